"""A message: read once at the door, well-formed by type ever after.

1. The body that is stored and passed on is the body that came, byte for byte, where it lacks nothing.
2. What is missing and ours to give (version, message_id, timestamp; a local agent's payload) is put in front.
3. `gateway` and `sender_verification` are taken out: nobody but this gateway speaks to an agent in them.
4. Unknown members stay. `null` and "" mean absent in every optional member.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from gateway.protocol.address import Address, parse_address
from gateway.protocol.attachments import check_attachments
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.fields import fault, given, line, matching, optional_line
from gateway.protocol.headers import Headers, parse_headers
from gateway.protocol.json_strict import read_strict
from gateway.protocol.members import (
    ANNOTATIONS,
    annotate,
    content_of,
    encode,
    members_of,
    render,
    same_content,
    with_recipients,
)
from gateway.protocol.timestamp import parse_timestamp, render_timestamp

__all__ = [
    "BODY_BYTES_MAX",
    "RECIPIENTS_MAX",
    "VERSION",
    "Headers",
    "Message",
    "annotate",
    "members_of",
    "parse_message",
    "render",
    "same_content",
    "with_recipients",
]

VERSION = "1.0"
BODY_BYTES_MAX = 10_485_760  # measured by whoever reads the body, before it is parsed
RECIPIENTS_MAX = 1000
KEY_CHARACTERS_MAX = 255

_MESSAGE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_WHITESPACE = b" \t\r\n"
_SIGNATURE = ("algorithm", "keyid", "value")


@dataclass(frozen=True, slots=True)
class Message:
    row: UUID  # ours, a UUIDv7; the public id too where the sender gave none
    message_id: str
    minted: bool  # message_id was minted here: it is str(row)
    sender: Address
    recipients: tuple[Address, ...]  # distinct by name, in the order written
    key: str | None  # idempotency_key
    timestamp: str  # as the sender wrote it
    subject: str | None
    schema: str | None
    in_reply_to: str | None
    response_type: str | None
    workflow_id: str | None
    headers: Headers
    content: bytes  # digest of what is said: see content_of
    body: bytes  # the whole message as stored and passed on
    coordination: bool  # has a workflow block
    signed: bool  # has a signature

    @property
    def expires_at(self) -> datetime | None:
        return self.headers.expires_at


def parse_message(raw: bytes, *, row: UUID, now: datetime, local: bool) -> Message:
    """The message in `raw`, accepted at `now`; `local`: from an authenticated agent of ours."""
    document = read_strict(raw)
    if not isinstance(document, dict):
        raise fault("the body", "is not an object", "send one message as a JSON object")
    _check_version(given(document, "version"), local)
    if "payload" not in document and not local:
        raise fault("payload", "is missing", "send any JSON value, null included")
    message_id = given(document, "message_id")
    timestamp = given(document, "timestamp")
    key = given(document, "idempotency_key")
    coordination = given(document, "coordination")
    if coordination is not None and not isinstance(coordination, dict):
        raise fault("coordination", "is not an object", "write the workflow's members, or leave it out")
    attachments = given(document, "attachments")
    if attachments is not None:
        check_attachments(attachments)
    signature = given(document, "signature")
    if signature is not None:
        _check_signature(signature)
    if message_id is not None:
        matching(_MESSAGE_ID, message_id, "message_id", "write 1 to 128 of A-Z a-z 0-9 . _ : -")
    if timestamp is not None:
        parse_timestamp(timestamp, "timestamp")
    minted = _minted(document, row, now)
    body, content = _stored(raw, minted)
    return Message(
        row=row,
        message_id=minted.get("message_id") or message_id,
        minted=message_id is None,
        sender=parse_address(document.get("sender"), "sender"),
        recipients=_recipients(document.get("recipients")),
        key=None if key is None else line(key, "idempotency_key", KEY_CHARACTERS_MAX),
        timestamp=minted.get("timestamp") or timestamp,
        subject=optional_line(document, "subject"),
        schema=optional_line(document, "schema"),
        in_reply_to=optional_line(document, "in_reply_to"),
        response_type=optional_line(document, "response_type"),
        workflow_id=optional_line(document, "workflow_id"),
        headers=parse_headers(given(document, "headers"), now),
        content=content,
        body=body,
        coordination=coordination is not None,
        signed=signature is not None,
    )


def _check_version(version: object, local: bool) -> None:
    if version is None and not local:
        raise fault("version", "is missing", f'write "{VERSION}"')
    if version is not None and version != VERSION:
        raise AMTPError(
            Code.UNSUPPORTED_VERSION,
            f'version is not spoken here: write "{VERSION}"',
            {"field": "version", "supported": [VERSION]},
        )


def _recipients(written: object) -> tuple[Address, ...]:
    if not isinstance(written, list) or not 0 < len(written) <= RECIPIENTS_MAX:
        raise fault("recipients", "is not a list of addresses", f"write 1 to {RECIPIENTS_MAX} of them")
    if len(written) == 1:
        return (parse_address(written[0], "recipients[0]", Code.INVALID_RECIPIENT),)
    distinct: dict[str, Address] = {}
    for place, text in enumerate(written):
        address = parse_address(text, f"recipients[{place}]", Code.INVALID_RECIPIENT)
        distinct.setdefault(address.name, address)
    return tuple(distinct.values())


def _check_signature(signature: object) -> None:
    if not isinstance(signature, dict):
        raise fault("signature", "is not an object", f"write {', '.join(_SIGNATURE)}")
    for name in _SIGNATURE:
        if not isinstance(signature.get(name), str) or not signature[name]:
            raise fault(f"signature.{name}", "is not text", "write a string")


def _minted(document: Mapping[str, Any], row: UUID, now: datetime) -> dict[str, Any]:
    """What the message lacks and we give."""
    minted: dict[str, Any] = {}
    if given(document, "version") is None:
        minted["version"] = VERSION
    if given(document, "message_id") is None:
        minted["message_id"] = str(row)
    if given(document, "timestamp") is None:
        minted["timestamp"] = render_timestamp(now)
    if "payload" not in document:
        minted["payload"] = None
    return minted


def _stored(raw: bytes, minted: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """The body to keep, and the digest of its content."""
    body = raw.strip(_WHITESPACE)
    members: dict[str, bytes | msgspec.Raw] = {**members_of(body)}
    clean = members.keys().isdisjoint(ANNOTATIONS) and members.keys().isdisjoint(minted)
    for name in ANNOTATIONS:
        members.pop(name, None)
    members |= encode(minted)
    return (annotate(body, **minted) if clean else render(members)), content_of(members)
