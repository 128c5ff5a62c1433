"""Composing of messages: options and payload become bytes, and every retry sends the same bytes."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict, Unpack

import msgspec

from gateway.client.message import Attachment, Message
from gateway.protocol.headers import KNOWN
from gateway.protocol.timestamp import render_timestamp

Priority = Literal["low", "normal", "high", "urgent"]
Kind = Literal["request", "response", "broadcast", "negotiation", "coordination", "heartbeat", "ack"]


class Said(TypedDict, total=False):
    """The options of a message beside its payload; None leaves one out."""

    subject: str | None
    schema: str | None
    in_reply_to: str | None
    response_type: str | None
    attachments: Sequence[Attachment]
    idempotency_key: str | None
    priority: Priority | None
    ttl: int | timedelta | None  # seconds
    expires_at: datetime | str | None
    deliver_after: datetime | str | None
    repeat: str | None
    delivery: Literal["best_effort", "at_least_once", "exactly_once"] | None
    kind: Kind | None
    correlation_id: str | None
    thread_id: str | None
    reply_to: str | None
    receipt: Literal["delivered", "read", "none"] | None
    auto_submitted: Literal["no", "auto-generated", "auto-replied"] | None
    headers: Mapping[str, Any] | None  # others, by their names on the wire


MEMBERS = frozenset(
    {"subject", "schema", "in_reply_to", "response_type", "attachments", "idempotency_key", "message_id"}
)


class Letter:
    """A message that goes out with an answer: `Letter("carol@acme.test", {"n": 1}, subject="Your turn")`."""

    __slots__ = ("payload", "said", "to")

    def __init__(self, to: str | Sequence[str], payload: Any = None, **said: Unpack[Said]) -> None:
        self.to = to
        self.payload = payload
        self.said = said


NO_REPLY: Any = object()  # None is a payload like others


class Answer:
    """A callback's result that is more than the payload of a reply. The gateway accepts all of it in one transaction with
    the acknowledgement of the message, exactly once.
    """

    __slots__ = ("letters", "payload", "said")

    def __init__(
        self, payload: Any = NO_REPLY, *, letters: Sequence[Letter] = (), **said: Unpack[Said]
    ) -> None:
        self.payload = payload
        self.letters = letters
        self.said = said


def compose(sender: str, to: str | Sequence[str], payload: Any, said: Mapping[str, Any]) -> bytes:
    """Returns the message as it is sent to the gateway. A payload that is msgspec.Raw is sent as it is."""
    recipients = [to] if isinstance(to, str) else list(to)
    message = {"version": "1.0", "sender": sender, "recipients": recipients}
    return msgspec.json.encode({**message, **members(payload, said)})


def members(payload: Any, said: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options and the payload, under their names on the wire."""
    found: dict[str, Any] = {}
    headers: dict[str, Any] = {}
    others: Mapping[str, Any] = {}
    for word, value in said.items():
        if word == "headers":
            others = value or {}
        elif word in MEMBERS:
            if value:
                found[word] = value
        elif (name := word.replace("_", "-")) in KNOWN:
            if value is not None:
                headers[name] = _plain(value)
        else:
            raise TypeError(f"{word!r} can't be said with a message; other headers go into headers={{…}}")
    if headers or others:
        found["headers"] = {**headers, **others}
    found["payload"] = payload
    return found


def answering(message: Message) -> dict[str, Any]:
    """Returns the options that every answer to `message` has."""
    return {
        "in_reply_to": message.id,
        "kind": "response",
        "correlation_id": message.headers.get("correlation-id"),
        "thread_id": message.headers.get("thread-id"),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return render_timestamp(value)
    if isinstance(value, timedelta):
        return int(value.total_seconds())
    return value
