"""Which events follow from what became of a message."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest

from gateway.features.notifications import happenings as notify
from gateway.protocol.errors import Code
from gateway.protocol.message import Message, parse_message
from gateway.protocol.status import RecipientState, Status
from gateway.report.naming import Name

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
ROW = UUID(int=7)
LETTER = Name(ROW, "order-1", "alice@acme.test")


@dataclass
class Outcome:
    status: str | None = None
    due: datetime | None = None
    via: str | None = None
    code: str | None = None
    error: str | None = None
    dead_letter: bool = False
    attempts: int = 3
    recipient: str = "bob@peer.test"


def message(*recipients: str) -> Message:
    body = {"version": "1.0", "sender": "alice@acme.test", "recipients": recipients, "payload": "secret"}
    return parse_message(msgspec.json.encode(body), row=ROW, now=NOW, local=True)


def states(*statuses: Status) -> list[RecipientState]:
    return [RecipientState("as written", status, via="inbox") for status in statuses]


def test_each_accepted_recipient_is_told_of_and_those_with_an_inbox_here_as_delivered() -> None:
    sent = message("a@acme.test", "b@peer.test", "c@acme.test")
    found = notify.accepted(sent, states(Status.DELIVERED, Status.QUEUED, Status.FAILED), NOW)
    assert [(one.event, one.recipient, (one.data or {})["status"]) for one in found] == [
        ("message.accepted", "a@acme.test", "delivered"),
        ("message.delivered", "a@acme.test", "delivered"),
        ("message.accepted", "b@peer.test", "queued"),
    ]
    assert {one.subject for one in found} == {str(ROW)}


def test_a_repetition_tells_only_of_the_recipients_it_added_under_the_original() -> None:
    sent = message("a@acme.test", "b@acme.test")
    original = Name(UUID(int=1), "first", "alice@acme.test")
    delivered = states(Status.DELIVERED, Status.DELIVERED)
    found = notify.accepted(sent, delivered, NOW, original=original, joined={"b@acme.test"})
    assert [one.recipient for one in found] == ["b@acme.test"] * 2
    assert {one.subject for one in found} == {str(UUID(int=1))}
    assert {(one.data or {})["message_id"] for one in found} == {"first"}


@pytest.mark.parametrize(
    ("outcome", "events"),
    [
        (Outcome(due=NOW + timedelta(seconds=1), code="TEMPORARY_FAILURE"), []),
        (Outcome(), ["message.delivered"]),
        (Outcome(status="delivered", via="amtp:amtp.peer.test"), ["message.delivered"]),
        (Outcome(status="expired"), ["message.expired"]),
        (Outcome(status="failed", dead_letter=True), ["message.failed", "message.dead"]),
        (Outcome(status="failed"), ["message.failed"]),
        (Outcome(status="cancelled"), ["message.cancelled"]),
    ],
)
def test_an_ending_is_told_as_what_it_is_and_another_try_not_at_all(
    outcome: Outcome, events: list[str]
) -> None:
    assert [one.event for one in notify.settled(outcome, LETTER, NOW)] == events


def test_a_failure_says_why_and_whom_it_concerns() -> None:
    failed = Outcome(status="failed", code=Code.RECIPIENT_NOT_FOUND.value, error="Nobody is there.")
    (one,) = notify.settled(failed, LETTER, NOW)
    assert one.concerned == ("alice@acme.test", "bob@peer.test")
    assert one.data == {
        "message_id": "order-1",
        "sender": "alice@acme.test",
        "recipient": "bob@peer.test",
        "status": "failed",
        "attempts": 3,
        "error": {"code": "RECIPIENT_NOT_FOUND", "message": "Nobody is there."},
    }


def test_an_agent_that_falters_again_within_minutes_is_unavailable_under_one_id() -> None:
    first, again, later = (
        notify.unavailable("bob@acme.test", "It is down.", NOW + timedelta(seconds=s)) for s in (0, 300, 900)
    )
    assert first.subject == again.subject != later.subject
