"""What has become of a message is told from what has become of its recipients."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.errors import Code
from gateway.protocol.status import (
    LIVE,
    Acceptance,
    RecipientState,
    Status,
    render_acceptance,
    render_status,
    status_of_message,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ONE = datetime(2026, 3, 1, 13, tzinfo=UTC)


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        (["queued"], "queued"),
        (["held"], "queued"),
        (["delivered"], "delivered"),
        (["failed"], "failed"),
        (["expired"], "failed"),
        (["cancelled"], "failed"),
        (["failed", "expired", "cancelled"], "failed"),
        (["delivered", "delivered"], "delivered"),
        (["delivered", "failed"], "partial"),
        (["delivered", "cancelled"], "partial"),
        (["delivered", "failed", "held"], "queued"),
        (["failed", "queued"], "queued"),
    ],
)
def test_the_recipients_make_the_status(statuses: list[str], status: str) -> None:
    assert status_of_message(map(Status, statuses)) == status


@given(st.lists(st.sampled_from(Status), min_size=1))
def test_a_message_is_queued_as_long_as_anybody_waits(statuses: list[Status]) -> None:
    assert (status_of_message(statuses) == "queued") == bool(LIVE & set(statuses))


def test_a_message_without_recipients_has_no_status() -> None:
    with pytest.raises(ValueError, match="at least one recipient"):
        status_of_message([])


def test_a_receipt_tells_each_recipient_and_why_one_was_refused() -> None:
    receipt = Acceptance(
        "m-1",
        (
            RecipientState("A+x@b.test", Status.DELIVERED, via="inbox", delivered_at=NOON),
            RecipientState("c@b.test", Status.FAILED, (Code.AGENT_UNKNOWN, "no such agent")),
        ),
    )
    assert render_acceptance(receipt) == {
        "message_id": "m-1",
        "status": "partial",
        "recipients": [
            {"address": "A+x@b.test", "status": "delivered"},
            {
                "address": "c@b.test",
                "status": "failed",
                "error": {"code": "AGENT_UNKNOWN", "message": "no such agent"},
            },
        ],
    }


def test_the_status_tells_where_every_recipient_stands() -> None:
    waiting = RecipientState(
        "a@b.test",
        Status.QUEUED,
        timestamp=NOON,
        attempts=3,
        next_retry=ONE,
        last_error="503 from the peer",
    )
    done = RecipientState(
        "c@d.test", Status.DELIVERED, timestamp=ONE, attempts=1, delivered_at=ONE, via="amtp:d.test"
    )
    assert render_status("m-1", NOON, [waiting, done]) == {
        "message_id": "m-1",
        "status": "queued",
        "created_at": "2026-03-01T12:00:00.000Z",
        "delivered_at": None,
        "attempts": 3,
        "next_retry": "2026-03-01T13:00:00.000Z",
        "recipients": [
            {
                "address": "a@b.test",
                "status": "queued",
                "timestamp": "2026-03-01T12:00:00.000Z",
                "attempts": 3,
                "delivered_at": None,
                "next_retry": "2026-03-01T13:00:00.000Z",
                "last_error": "503 from the peer",
                "via": None,
            },
            {
                "address": "c@d.test",
                "status": "delivered",
                "timestamp": "2026-03-01T13:00:00.000Z",
                "attempts": 1,
                "delivered_at": "2026-03-01T13:00:00.000Z",
                "next_retry": None,
                "last_error": None,
                "via": "amtp:d.test",
            },
        ],
    }


def test_a_message_was_delivered_when_the_last_recipient_had_it() -> None:
    early = RecipientState("a@b.test", Status.DELIVERED, delivered_at=NOON)
    late = RecipientState("c@d.test", Status.DELIVERED, delivered_at=ONE)
    assert render_status("m-1", NOON, [late, early])["delivered_at"] == "2026-03-01T13:00:00.000Z"
