"""A reply to a message, as the gateway writes it for an agent: the answer of a webhook, of an acknowledgement,
or a receipt. Pure: the original's bytes and the answer in, a message out.

| member | value |
|---|---|
| `sender` | the agent that answers |
| `recipients` | the original's `reply-to`, else its sender as written; of an unproven sender, within its own domain alone |
| `in_reply_to` | the original's id |
| `subject` | `Re: ` and the original's |
| `schema` | what the original asked for as `response_type` |
| `idempotency_key` | of the original and the agent: another gateway takes one such reply |
| `correlation-id`, `thread-id` | the original's |
| `kind`, `auto-submitted` | `response`, and who wrote it |
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from gateway.protocol.address import parse_address
from gateway.protocol.fields import LINE_CHARACTERS_MAX
from gateway.protocol.identifiers import uuid4_of
from gateway.protocol.members import encode, render
from gateway.protocol.message import VERSION, Message, parse_message

REPLIED, GENERATED, BY_HAND = "auto-replied", "auto-generated", "no"  # words of `auto-submitted`
COPIED: Final = ("correlation-id", "thread-id")

_RE: Final = "Re: "


class _Original(msgspec.Struct):
    """The members of the original that a reply needs; the rest is not parsed."""

    message_id: str
    sender: str
    subject: str | None = None
    response_type: str | None = None
    headers: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(_Original)


def reply_to(
    original: bytes,
    payload: bytes | msgspec.Raw,
    *,
    responder: str,
    proven: bool,
    row: UUID,
    now: datetime,
    submitted: str = REPLIED,
    members: Mapping[str, Any] | None = None,
    headers: Mapping[str, Any] | None = None,
) -> Message | None:
    """Returns the reply of the agent `responder` to the stored body `original`, its payload kept byte for byte.

    `proven` says whether the original's sender was: a stranger must not choose to which domain this gateway writes.
    `members` and `headers` override what follows from the original. None: an automatic message gets no automatic
    reply. Raises AMTPError where payload, members or headers make no valid message.
    """
    asked = _decoder.decode(original)
    known = asked.headers or {}
    if submitted != BY_HAND and known.get("auto-submitted") not in (None, "", BY_HAND):
        return None
    written = {
        "version": VERSION,
        "sender": responder,
        "recipients": [_addressee(asked.sender, known.get("reply-to"), proven=proven)],
        "in_reply_to": asked.message_id,
        "subject": _subject(asked.subject),
        "schema": asked.response_type,
        "idempotency_key": key_of(original_id=asked.message_id, sender=asked.sender, responder=responder),
        **(members or {}),
        "headers": {
            **{name: known[name] for name in COPIED if known.get(name)},
            "kind": "response",
            "auto-submitted": submitted,
            **(headers or {}),
        },
    }
    given = encode({name: value for name, value in written.items() if value is not None})
    return parse_message(render({**given, "payload": payload}), row=row, now=now, local=True)


def key_of(*, original_id: str, sender: str, responder: str) -> str:
    """Returns a key that is the same for every reply of one agent to one message. Some gateways take a UUIDv4 alone."""
    return uuid4_of(sender, original_id, responder)


def _addressee(sender: str, wanted: str | None, *, proven: bool) -> str:
    if not wanted or not (proven or _domain_of(wanted) == _domain_of(sender)):
        return sender
    return wanted


def _domain_of(address: str) -> str:
    return parse_address(address, "headers.reply-to").domain


def _subject(subject: str | None) -> str | None:
    if not subject or subject.startswith(_RE):
        return subject or None
    return (_RE + subject)[:LINE_CHARACTERS_MAX]
