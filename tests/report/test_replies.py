"""What a reply takes over from the message it answers."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
from msgspec import Raw

from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.fields import LINE_CHARACTERS_MAX
from gateway.protocol.message import parse_message
from gateway.report.replies import BY_HAND, GENERATED, reply_to

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ROW = UUID("019b7800-0000-7000-8000-000000000001")
ORIGINAL = UUID("019b7800-0000-7000-8000-000000000009")
AGENT = "bob@acme.test"


def original(**members: Any) -> bytes:
    message = {
        "version": "1.0",
        "message_id": "m-1",
        "sender": "Alice+desk@acme.test",
        "recipients": [AGENT],
        "payload": None,
        **members,
    }
    return parse_message(json.dumps(message).encode(), row=ORIGINAL, now=NOW, local=True).body


def test_a_reply_goes_to_the_sender_as_written_and_says_what_it_answers() -> None:
    reply = reply_to(original(subject="Offer"), Raw(b"1"), responder=AGENT, proven=True, row=ROW, now=NOW)
    assert reply is not None
    assert (reply.sender.name, [to.written for to in reply.recipients]) == (AGENT, ["Alice+desk@acme.test"])
    assert (reply.row, reply.message_id, reply.in_reply_to, reply.subject) == (
        ROW,
        str(ROW),
        "m-1",
        "Re: Offer",
    )
    assert (reply.headers.kind, reply.headers.auto_submitted) == ("response", "auto-replied")


def test_reply_to_comes_before_the_sender() -> None:
    asked = original(headers={"reply-to": "desk@peer.test"})
    reply = reply_to(asked, Raw(b"1"), responder=AGENT, proven=True, row=ROW, now=NOW)
    assert reply is not None
    assert [to.name for to in reply.recipients] == ["desk@peer.test"]


@pytest.mark.parametrize(
    ("wanted", "recipient"),
    [("victim@third.test", "Alice+desk@acme.test"), ("desk@ACME.test", "desk@ACME.test")],
)
def test_an_unproven_sender_has_its_answers_within_its_own_domain(wanted: str, recipient: str) -> None:
    asked = original(headers={"reply-to": wanted})
    reply = reply_to(asked, Raw(b"1"), responder=AGENT, proven=False, row=ROW, now=NOW)
    assert reply is not None
    assert [to.written for to in reply.recipients] == [recipient]


def test_correlation_and_thread_are_copied_and_no_other_header() -> None:
    asked = original(
        headers={"correlation-id": "c", "thread-id": "t", "priority": "high", "ttl": 5, "x-own": 1}
    )
    reply = reply_to(asked, Raw(b"1"), responder=AGENT, proven=True, row=ROW, now=NOW)
    assert reply is not None
    assert msgspec.json.decode(reply.body)["headers"] == {
        "correlation-id": "c",
        "thread-id": "t",
        "kind": "response",
        "auto-submitted": "auto-replied",
    }


def test_the_schema_is_what_the_original_asked_for() -> None:
    asked = original(schema="acme:order.v1", response_type="acme:receipt.v1")
    reply = reply_to(asked, Raw(b"1"), responder=AGENT, proven=True, row=ROW, now=NOW)
    assert reply is not None
    assert reply.schema == "acme:receipt.v1"


def test_the_payload_keeps_its_bytes() -> None:
    payload = b'{ "n" : 1.00 , "big": 12345678901234567890 }'
    reply = reply_to(original(), Raw(payload), responder=AGENT, proven=True, row=ROW, now=NOW)
    assert reply is not None
    assert payload in reply.body


def test_two_answers_of_one_agent_to_one_message_have_one_key() -> None:
    def key(asked: bytes, responder: str, payload: bytes) -> str | None:
        reply = reply_to(asked, Raw(payload), responder=responder, proven=True, row=ROW, now=NOW)
        assert reply is not None
        return reply.key

    first = key(original(), AGENT, b"1")
    assert first == key(original(), AGENT, b"2")
    assert first is not None
    assert UUID(first).version == 4
    assert first not in (
        key(original(), "carol@acme.test", b"1"),
        key(original(message_id="m-2"), AGENT, b"1"),
    )


@pytest.mark.parametrize("submitted", ["auto-generated", "auto-replied"])
def test_an_automatic_message_gets_an_answer_by_hand_alone(submitted: str) -> None:
    asked = original(headers={"auto-submitted": submitted})
    assert reply_to(asked, Raw(b"1"), responder=AGENT, proven=True, row=ROW, now=NOW) is None
    assert (
        reply_to(asked, Raw(b"1"), responder=AGENT, proven=True, row=ROW, now=NOW, submitted=GENERATED)
        is None
    )
    reply = reply_to(asked, Raw(b"1"), responder=AGENT, proven=True, row=ROW, now=NOW, submitted=BY_HAND)
    assert reply is not None
    assert reply.headers.auto_submitted == "no"


def test_what_is_said_of_the_reply_comes_before_what_follows_from_the_original() -> None:
    reply = reply_to(
        original(subject="Offer"),
        Raw(b"1"),
        responder=AGENT,
        proven=True,
        row=ROW,
        now=NOW,
        members={"subject": "Taken", "schema": "acme:receipt.v2"},
        headers={"kind": "ack", "thread-id": "t-2"},
    )
    assert reply is not None
    assert (reply.subject, reply.schema, reply.headers.kind, reply.headers.thread_id) == (
        "Taken",
        "acme:receipt.v2",
        "ack",
        "t-2",
    )


def test_a_subject_is_marked_once_and_stays_one_line() -> None:
    marked = reply_to(
        original(subject="Re: Offer"), Raw(b"1"), responder=AGENT, proven=True, row=ROW, now=NOW
    )
    long = reply_to(
        original(subject="x" * LINE_CHARACTERS_MAX), Raw(b"1"), responder=AGENT, proven=True, row=ROW, now=NOW
    )
    assert marked is not None
    assert marked.subject == "Re: Offer"
    assert long is not None
    assert long.subject is not None
    assert len(long.subject) == LINE_CHARACTERS_MAX


@pytest.mark.parametrize("payload", [b"{", b'{"a":1,"a":2}', b"NaN", b'1,"sender":"eve@acme.test"'])
def test_what_is_no_json_value_becomes_no_message(payload: bytes) -> None:
    with pytest.raises(AMTPError) as refused:
        reply_to(original(), Raw(payload), responder=AGENT, proven=True, row=ROW, now=NOW)
    assert refused.value.code is Code.INVALID_MESSAGE_FORMAT
