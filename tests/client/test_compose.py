"""What is said with a message stands in it under its name on the wire."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from gateway.client.callbacks import Callbacks, Rule
from gateway.client.compose import answering, compose
from gateway.client.message import Message, read_message
from gateway.protocol.headers import KNOWN

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def composed(payload: Any = None, **said: Any) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.json.decode(compose("a@acme.test", "b@acme.test", payload, said))
    return body


@pytest.mark.parametrize(
    ("said", "member"),
    [
        ({"subject": "An order"}, {"subject": "An order"}),
        ({"subject": None, "schema": "", "ttl": None}, {}),
        ({"ttl": timedelta(minutes=1)}, {"headers": {"ttl": 60}}),
        ({"deliver_after": NOON}, {"headers": {"deliver-after": "2026-03-01T12:00:00.000Z"}}),
        ({"priority": "high", "headers": {"x-mine": 1}}, {"headers": {"priority": "high", "x-mine": 1}}),
        ({"headers": {"kind": "request"}, "kind": "response"}, {"headers": {"kind": "request"}}),
    ],
    ids=["member", "nothing", "while", "time", "others", "first"],
)
def test_each_word_has_its_place(said: dict[str, Any], member: dict[str, Any]) -> None:
    usual = {"version": "1.0", "sender": "a@acme.test", "recipients": ["b@acme.test"], "payload": None}
    assert composed(**said) == usual | member


@pytest.mark.parametrize("header", sorted(KNOWN))
def test_every_header_with_a_meaning_is_a_word(header: str) -> None:
    assert composed(**{header.replace("-", "_"): "x"})["headers"] == {header: "x"}


def test_a_word_that_means_nothing_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        composed(colour="red")


def test_a_payload_of_bytes_of_json_is_kept_as_it_is() -> None:
    raw = msgspec.Raw(b'{"n": 1.0}')
    assert b'"payload":{"n": 1.0}' in compose("a@acme.test", ["b@acme.test"], raw, {})


def message(**members: Any) -> Message:
    return read_message({"message_id": "m-1", "sender": "a@acme.test", **members})


def test_an_answer_keeps_thread_and_correlation() -> None:
    asked = message(headers={"thread-id": "t", "correlation-id": "c", "reply-to": "desk@acme.test"})
    headers = {"kind": "response", "thread-id": "t", "correlation-id": "c"}
    answer = composed(**answering(asked))
    assert (answer["in_reply_to"], answer["headers"], asked.reply_to) == ("m-1", headers, "desk@acme.test")


def test_of_a_message_without_members_everything_is_absent() -> None:
    bare = message(headers=None, subject="", attachments=None)
    assert (bare.subject, bare.schema, bare.kind, bare.in_reply_to, bare.lease) == (None,) * 5
    assert (bare.reply_to, bare.attachments, bare.proven, bare.automatic) == ("a@acme.test", (), False, False)


class Order(msgspec.Struct):
    item: str


def test_a_payload_is_converted_or_refused() -> None:
    assert message(payload={"item": "apples"}).payload_as(Order) == Order("apples")
    with pytest.raises(ValueError, match="item"):
        message(payload={}).payload_as(Order)


def test_two_callbacks_for_the_same_messages_are_a_mistake() -> None:
    callbacks = Callbacks()

    def first(message: Message) -> None: ...
    def second(message: Message) -> None: ...

    callbacks.add(Rule(first, kind="request"))
    callbacks.add(Rule(second))
    with pytest.raises(ValueError, match="first and second"):
        callbacks.add(Rule(second, kind="request"))
    assert callbacks.choose(message(headers={"kind": "request"})) is first
    assert callbacks.choose(message()) is second
