"""What a receipt says, and who may have one."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest

from gateway.protocol.message import parse_message
from gateway.protocol.status import RecipientState, Status
from gateway.report.receipts import by_domain, owing, receipt_on
from gateway.route.placing import Places
from gateway.store.admitted import Admitted, Entry, Queued
from gateway.store.intake.owed_receipts import DueReceipt, Owed

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ROW = UUID("019b7800-0000-7000-8000-000000000001")


def placed(receipt: str, *, sender: str = "alice@acme.test", proven: bool = True, **headers: Any) -> Admitted:
    """A message for an inbox here, for an agent here who waits, and for elsewhere; with what it owes."""
    body = {
        "version": "1.0",
        "sender": sender,
        "recipients": ["Bob+x@acme.test", "carol@acme.test", "dave@peer.test"],
        "payload": None,
        "headers": {"receipt": receipt, **headers},
    }
    message = parse_message(msgspec.json.encode(body), row=ROW, now=NOW, local=True)
    queued = [
        Queued(name, name, destination, NOW, NOW, "horizon")
        for name, destination in (("carol@acme.test", "carol@acme.test"), ("dave@peer.test", "peer.test"))
    ]
    states = [RecipientState("Bob+x@acme.test", Status.DELIVERED, timestamp=NOW, via="inbox")]
    states += [RecipientState(each.address, Status.QUEUED, timestamp=NOW) for each in queued]
    places = Places([Entry(7, "Bob+x@acme.test")], queued, states)
    automatic = message.headers.auto_submitted != "no"
    admitted = Admitted(message, proven, tuple(places.entries), tuple(queued), automatic=automatic)
    return owing(admitted, places)


def test_a_delivered_one_is_owed_at_once_for_an_inbox_and_later_for_who_waits_here() -> None:
    admitted = placed("delivered")
    assert admitted.riders == (Owed(ROW, 7, "Bob+x@acme.test"),)
    assert [entry.receipt for entry in admitted.entries] == [False]
    assert [queued.receipt for queued in admitted.deliveries] == ["delivered", None]


def test_a_read_one_is_owed_when_an_inbox_here_is_read() -> None:
    admitted = placed("read")
    assert admitted.riders == ()
    assert [entry.receipt for entry in admitted.entries] == [True]
    assert [queued.receipt for queued in admitted.deliveries] == ["read", None]


@pytest.mark.parametrize(
    "asked",
    [
        {"receipt": "none"},
        {"receipt": "read", "proven": False, "sender": "eve@peer.test"},
        {"receipt": "delivered", "sender": "postmaster@peer.test"},
        {"receipt": "read", "auto-submitted": "auto-replied"},
        {"receipt": "delivered", "auto-submitted": "auto-generated"},
    ],
)
def test_nobody_else_is_owed_anything(asked: dict[str, Any]) -> None:
    admitted = placed(**asked)
    assert admitted.riders == ()
    assert not any(entry.receipt for entry in admitted.entries)
    assert not any(queued.receipt for queued in admitted.deliveries)


@pytest.mark.parametrize("kind", ["delivered", "read"])
def test_a_receipt_is_an_automatic_message_from_the_postmaster_in_reply(kind: str) -> None:
    body = {
        "message_id": "m-1",
        "sender": "Alice+desk@acme.test",
        "recipients": ["bob@acme.test"],
        "headers": {"thread-id": "t", "reply-to": "desk@acme.test", "receipt": kind},
        "payload": "x",
    }
    due = DueReceipt(kind, msgspec.json.encode(body), ("bob@acme.test",))
    receipt = receipt_on(due, due.addresses, domain="acme.test", row=ROW, now=NOW)
    assert (receipt.sender.name, [to.written for to in receipt.recipients], receipt.in_reply_to) == (
        "postmaster@acme.test",
        ["Alice+desk@acme.test"],
        "m-1",
    )
    assert (receipt.headers.auto_submitted, receipt.headers.receipt, receipt.headers.thread_id) == (
        "auto-generated",
        "none",
        "t",
    )
    facts = {
        "message_type": "receipt",
        "receipt": kind,
        "original_message_id": "m-1",
        f"{kind}_recipients": ["bob@acme.test"],
    }
    said = msgspec.json.decode(receipt.body)
    assert said["payload"] == facts
    assert facts.items() <= said.items()


def test_each_domain_writes_for_its_own() -> None:
    found = by_domain(["bob@acme.test", "carol@Acme.test", "dave@other.test"])
    assert found == {"acme.test": ["bob@acme.test", "carol@Acme.test"], "other.test": ["dave@other.test"]}
