"""A message: parsed once at the door, and well-formed by type from then on.

1. The body that is stored and passed on is the body that came, byte for byte, where it lacks nothing.
2. What is missing and ours to give (version, message_id, timestamp; a local agent's payload) is put in front.
3. `gateway`, `sender_verification` and `status` are taken out: nobody but this gateway speaks to an agent in them.
4. Unknown members stay, unless a reader could take one for a known one. `null` and "" mean absent in every optional
   member.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from gateway.protocol.address import Address, is_international, parse_address
from gateway.protocol.attachments import Attachment, attachments_of, check_attachments
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.fields import fault, line, matching
from gateway.protocol.headers import Headers, parse_headers
from gateway.protocol.identifiers import ORIGINALS, restore_identifiers
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
from gateway.protocol.names import Names
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
INTERNATIONAL_DOMAINS_MAX = 50  # of one message's recipients: each costs up to 0.3 ms of IDNA
MEMBERS_MAX = 1000  # at the top level, where every copy of a message walks over them
KEY_CHARACTERS_MAX = 255

_MESSAGE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_WHITESPACE = b" \t\r\n"
_SIGNATURE = ("algorithm", "keyid", "value")


class Message(msgspec.Struct, frozen=True):
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
    content: bytes  # digest of what is said (see content_of), where the sender's key or id may come again
    body: bytes  # the whole message as stored and passed on
    coordination: bool  # has a workflow block
    signed: bool  # has a signature
    attachments: tuple[Attachment, ...] = ()
    misspelt: tuple[
        tuple[str, str], ...
    ] = ()  # unknown members that are close to a known one, each with that one
    came_as: str | None = None  # the message_id of a peer's copy, where that stood for the sender's own

    @property
    def expires_at(self) -> datetime | None:
        return self.headers.expires_at


def parse_message(raw: bytes, *, row: UUID, now: datetime, local: bool) -> Message:
    """Returns the message in `raw`, accepted at `now`; `local`: from an authenticated agent of ours."""
    document = read_strict(raw)
    if not isinstance(document, dict):
        raise fault("the body", "is not an object", "send one message as a JSON object")
    came_as = None
    if not local and isinstance(headers := document.get("headers"), dict) and ORIGINALS in headers:
        raw, came_as = restore_identifiers(raw)
        document = msgspec.json.decode(raw)
    if len(document) > MEMBERS_MAX:
        raise fault("the body", "has too many members", f"at most {MEMBERS_MAX}; put more into the payload")
    if "payload" not in document and not local:
        raise fault("payload", "is missing", "send any JSON value, null included")
    strange = () if document.keys() <= NAMES else _MEMBERS.unknown(document)
    given = {name: value for name, value in document.items() if value is not None and value != ""}
    _check_version(given.get("version"), local)
    sender = parse_address(given.get("sender"), "sender")
    recipients = _recipients(given.get("recipients"))
    for name, value in given.items():
        if name in _CHECKS:
            _CHECKS[name](value, name)
    headers = parse_headers(given.get("headers"), now)
    minted = _minted(given, row, now)
    if "payload" not in document:
        minted["payload"] = None
    body = _stored(raw, document, minted)
    repeatable = "idempotency_key" in given or "message_id" not in minted
    return Message(
        row=row,
        message_id=minted.get("message_id") or given["message_id"],
        minted="message_id" in minted,
        sender=sender,
        recipients=recipients,
        key=given.get("idempotency_key"),
        timestamp=minted.get("timestamp") or given["timestamp"],
        subject=given.get("subject"),
        schema=given.get("schema"),
        in_reply_to=given.get("in_reply_to"),
        response_type=given.get("response_type"),
        workflow_id=given.get("workflow_id"),
        headers=headers,
        content=content_of(members_of(body)) if repeatable else b"",
        body=body,
        coordination="coordination" in given,
        signed="signature" in given,
        attachments=attachments_of(given.get("attachments", ())),
        misspelt=_MEMBERS.misspelt(strange) if strange else (),
        came_as=came_as,
    )


def in_reply_to(message: Message, message_id: str) -> Message:
    """Returns the message as an answer to another id; it counts as the same content."""
    members: dict[str, bytes | msgspec.Raw] = {**members_of(message.body)}
    body = render(members | encode({"in_reply_to": message_id}))
    return msgspec.structs.replace(message, in_reply_to=message_id, body=body)


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
    domains = {
        text.rpartition("@")[2] for text in written if isinstance(text, str) and is_international(text)
    }
    if len(domains) > INTERNATIONAL_DOMAINS_MAX:
        raise fault(
            "recipients",
            "has too many international domains",
            f"send to at most {INTERNATIONAL_DOMAINS_MAX} of them at once",
        )
    distinct: dict[str, Address] = {}
    for place, text in enumerate(written):
        address = parse_address(text, f"recipients[{place}]", Code.INVALID_RECIPIENT)
        distinct.setdefault(address.name, address)
    return tuple(distinct.values())


def _check_id(value: object, field: str) -> None:
    matching(_MESSAGE_ID, value, field, "write 1 to 128 of A-Z a-z 0-9 . _ : -")


def _check_key(value: object, field: str) -> None:
    line(value, field, KEY_CHARACTERS_MAX)


def _check_coordination(value: object, field: str) -> None:
    if not isinstance(value, dict):
        raise fault(field, "is not an object", "write its members, or leave it out")
    _COORDINATION.unknown(value, f"{field}.")


def _check_signature(value: object, field: str) -> None:
    if not isinstance(value, dict):
        raise fault(field, "is not an object", f"write {', '.join(_SIGNATURE)}")
    for name in _SIGNATURE:
        if not isinstance(value.get(name), str) or not value[name]:
            raise fault(f"{field}.{name}", "is not text", "write a string")
    _SIGNED.unknown(value, f"{field}.")


# The optional members with a form, `headers` apart.
_CHECKS: Mapping[str, Callable[[object, str], object]] = {
    "message_id": _check_id,
    "idempotency_key": _check_key,
    "timestamp": parse_timestamp,
    "subject": line,
    "schema": line,
    "in_reply_to": line,
    "response_type": line,
    "workflow_id": line,
    "coordination": _check_coordination,
    "attachments": check_attachments,
    "signature": _check_signature,
}

NAMES = frozenset({"version", "sender", "recipients", "payload", "headers", "message_type", *_CHECKS})
_MEMBERS = Names(NAMES, sealed=ANNOTATIONS)
_SIGNED = Names(_SIGNATURE)
_COORDINATION = Names(
    {
        *("type", "workflow_id", "timeout", "requires_response", "required_responses", "optional_responses"),
        *("sequence", "stop_on_failure", "conditions"),
    }
)


def _minted(given: Mapping[str, Any], row: UUID, now: datetime) -> dict[str, Any]:
    """Returns the members that the message lacks and the gateway adds."""
    minted: dict[str, Any] = {}
    if "version" not in given:
        minted["version"] = VERSION
    if "message_id" not in given:
        minted["message_id"] = str(row)
    if "timestamp" not in given:
        minted["timestamp"] = render_timestamp(now)
    return minted


def _stored(raw: bytes, document: Mapping[str, Any], minted: Mapping[str, Any]) -> bytes:
    """Returns the body to keep."""
    body, names = raw.strip(_WHITESPACE), document.keys()
    if names.isdisjoint(ANNOTATIONS) and names.isdisjoint(minted):
        return annotate(body, **minted)
    members = {name: value for name, value in members_of(body).items() if name not in ANNOTATIONS}
    return render({**members, **encode(minted)})
