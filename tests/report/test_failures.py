"""What a sender is told."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest

from gateway.protocol.errors import Code
from gateway.report.failures import (
    DELAY,
    FAILURE,
    PUSH_ENDED,
    FailureFacts,
    may_report,
    push_ended,
    report_on,
)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ROW = UUID("019b7800-0000-7000-8000-000000000001")


def trouble(kind: str = FAILURE) -> FailureFacts:
    return FailureFacts(
        kind,
        "m-1",
        "alice@acme.test",
        ["bob+x@peer.test", "carol@peer.test"],
        Code.AGENT_UNKNOWN,
        "Nobody.",
        3,
        NOW - timedelta(seconds=1),
        NOW + timedelta(hours=1) if kind == DELAY else None,
    )


def test_a_failure_report_is_a_message_from_postmaster_in_reply_to_what_failed() -> None:
    report = report_on(trouble(), domain="acme.test", row=ROW, now=NOW)
    assert (report.sender.name, [to.name for to in report.recipients]) == (
        "postmaster@acme.test",
        ["alice@acme.test"],
    )
    assert (report.row, report.message_id, report.in_reply_to) == (ROW, str(ROW), "m-1")
    assert report.headers.auto_submitted == "auto-generated"


def test_its_facts_stand_at_top_level_and_in_the_payload() -> None:
    body = msgspec.json.decode(report_on(trouble(), domain="acme.test", row=ROW, now=NOW).body)
    facts = {
        "message_type": "delivery_failure",
        "original_message_id": "m-1",
        "failed_recipients": ["bob+x@peer.test", "carol@peer.test"],
        "error_code": "AGENT_UNKNOWN",
        "error_message": "Nobody.",
        "retry_count": 3,
        "final_attempt": "2026-01-01T11:59:59.000Z",
    }
    assert body["payload"] == facts
    assert facts.items() <= body.items()


def test_a_report_of_a_delay_says_when_it_is_tried_again() -> None:
    body = msgspec.json.decode(report_on(trouble(DELAY), domain="acme.test", row=ROW, now=NOW).body)
    assert body["message_type"] == "delivery_delayed"
    assert body["next_attempt"] == "2026-01-01T13:00:00.000Z"


@pytest.mark.parametrize(
    ("sender", "proven", "automatic", "told"),
    [
        ("alice@acme.test", True, False, True),
        ("alice@acme.test", False, False, False),  # perhaps somebody else wrote it in her name
        ("alice@acme.test", True, True, False),
        ("postmaster@peer.test", True, False, False),
        ("postmaster.jones@acme.test", True, False, True),
    ],
)
def test_who_is_told(sender: str, proven: bool, automatic: bool, told: bool) -> None:
    assert may_report(sender=sender, proven=proven, automatic=automatic) is told


def test_operators_are_told_in_their_own_inbox_that_an_agent_is_not_pushed_to_any_more() -> None:
    told = push_ended("bob@acme.test", domain="acme.test", row=ROW, now=NOW)
    assert told.sender.name == "postmaster@acme.test"
    assert [to.name for to in told.recipients] == ["postmaster@acme.test"]
    assert told.headers.auto_submitted == "auto-generated"
    body = msgspec.json.decode(told.body)
    assert (body["message_type"], body["payload"]["agent"]) == (PUSH_ENDED, "bob@acme.test")
