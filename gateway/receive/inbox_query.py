"""Parsing of parameters and bodies of the inbox endpoints."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from gateway.config.sections import InboxSettings
from gateway.http.parameters import offset_of
from gateway.http.request import bad_parameter
from gateway.http.routing import ID
from gateway.protocol.address import parse_address
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.json_strict import read_strict
from gateway.protocol.timestamp import parse_timestamp
from gateway.store.inbox.acknowledge import EntryName
from gateway.store.inbox.inbox import Lease, Listing, Mark

T = TypeVar("T")

LIMIT_DEFAULT = 100
LIMIT_MAX = 1000
NUMBER_MAX = 10**18 - 1
NAMES_MAX = 1000  # in one acknowledgement
BODY_BYTES_MAX = 512 * 1024  # a thousand ids with their senders
MESSAGES_MAX = 100  # sent by one request, beside the replies

_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3})?")
_COUNT = re.compile(r"[0-9]{1,18}")
_NOTHING = msgspec.Raw()
_REPLY_MEMBERS = ("subject", "schema", "response_type", "workflow_id", "attachments")
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Question:
    """A request to read an inbox: the listing, the lease's length and the time to wait."""

    listing: Listing
    lease_seconds: float | None = None
    wait_seconds: float = 0.0

    def lease(self) -> Lease | None:
        """Returns a new lease if one is asked for."""
        return None if self.lease_seconds is None else Lease(self.lease_seconds)


def parse_question(query: Mapping[str, str], rules: InboxSettings) -> Question:
    listing = Listing(
        limit=_count(query, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX),
        offset=offset_of(query),
        after=_row(query, "cursor", "must be one that an answer gave"),
        since=parse_timestamp(query["since"], "since") if "since" in query else None,
        mark=_mark(query),
    )
    lease_seconds = None
    if "lease" in query:
        if listing.offset:
            raise bad_parameter("offset", "does not go with a lease: what is leased is no longer listed")
        lease_seconds = float(rules.lease_seconds_default)
        if query["lease"]:
            lease_seconds = _seconds(query["lease"], "lease", 1, rules.lease_seconds_max)
    wait_seconds = _seconds(query.get("wait", "0"), "wait", 0, rules.wait_seconds_max)
    return Question(listing, lease_seconds, wait_seconds)


def parse_name(message_id: str, query: Mapping[str, str]) -> tuple[EntryName, UUID | None]:
    """Parses the entry that a path and its parameters name, and its lease."""
    sender = parse_address(query["sender"], "sender").name if "sender" in query else None
    return EntryName(message_id, sender), _row(query, "lease", "must be the token of a lease")


def dead_letter_page(query: Mapping[str, str]) -> tuple[int, int]:
    """Parses cursor and limit of a page of dead letters."""
    return _count(query, "cursor", 0, 0, NUMBER_MAX), _count(query, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX)


def dead_letter_number(text: str) -> int:
    """Parses the number of a dead letter; 0, which no letter has, if it is none."""
    return int(text) if _COUNT.fullmatch(text) else 0


@dataclass(frozen=True, slots=True)
class SaidReply:
    """The reply in an acknowledgement; the payload keeps its bytes."""

    payload: bytes
    members: Mapping[str, Any]
    headers: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """The reply and messages that an agent sends with an acknowledgement."""

    reply: SaidReply | None = None
    messages: tuple[bytes, ...] = ()

    def __bool__(self) -> bool:
        return self.reply is not None or bool(self.messages)


@dataclass(frozen=True, slots=True)
class AskedEntry:
    """One entry to acknowledge."""

    name: EntryName
    said: Said = Said()
    field: str = ""  # its field in the body, with a dot at the end


class _Said(msgspec.Struct, forbid_unknown_fields=True):
    reply: msgspec.Raw = _NOTHING
    messages: list[msgspec.Raw] = []


class _Name(_Said, forbid_unknown_fields=True):
    message_id: str = ""
    sender: str | None = None


class _Reply(msgspec.Struct, forbid_unknown_fields=True):
    payload: msgspec.Raw = msgspec.Raw(b"null")
    subject: str | None = None
    schema: str | None = None
    response_type: str | None = None
    workflow_id: str | None = None
    attachments: list[Any] | None = None
    headers: dict[str, Any] | None = None


class _Names(msgspec.Struct, forbid_unknown_fields=True):
    message_ids: list[str | _Name]
    lease: UUID | None = None


class Renewal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new end of a lease, in seconds from now; 0 gives it back."""

    lease: UUID
    seconds: float


_read_names = msgspec.json.Decoder(_Names).decode
_read_said = msgspec.json.Decoder(_Said).decode
_read_reply = msgspec.json.Decoder(_Reply).decode
_read_renewal = msgspec.json.Decoder(Renewal).decode


def parse_names(body: bytes) -> tuple[list[AskedEntry], UUID | None]:
    """Parses the entries to acknowledge, and their lease."""
    try:
        asked = _strict(_read_names, body)
    except _UNREADABLE as failure:
        raise _bad_body(failure, '{"message_ids": ["…"], "lease": "…"}; lease may be left out') from None
    if not 0 < len(asked.message_ids) <= NAMES_MAX:
        raise AMTPError(
            Code.INVALID_MESSAGE_FORMAT,
            f"message_ids must name 1 to {NAMES_MAX} messages.",
            {"field": "message_ids", "limit": NAMES_MAX},
        )
    entries = [_asked(name, f"message_ids[{place}]") for place, name in enumerate(asked.message_ids)]
    if sum(len(entry.said.messages) for entry in entries) > MESSAGES_MAX:
        raise _too_many("message_ids")
    return entries, asked.lease


def parse_said(body: bytes) -> Said:
    """Parses what is sent with the acknowledgement of one entry; an empty body is nothing."""
    if not body:
        return Said()
    try:
        return _said(_strict(_read_said, body), "")
    except _UNREADABLE as failure:
        raise _bad_body(failure, '{"reply": {"payload": …}, "messages": […]}, or no body') from None


def _asked(name: str | _Name, field: str) -> AskedEntry:
    if isinstance(name, str):
        return AskedEntry(_named(name, None, field))
    return AskedEntry(_named(name.message_id, name.sender, field), _said(name, f"{field}."), f"{field}.")


def _said(written: _Said, prefix: str) -> Said:
    if len(written.messages) > MESSAGES_MAX:
        raise _too_many(f"{prefix}messages")
    return Said(_reply(written.reply, f"{prefix}reply"), tuple(map(bytes, written.messages)))


def _reply(raw: msgspec.Raw, field: str) -> SaidReply | None:
    if bytes(raw) in (b"", b"null"):
        return None
    try:
        reply = _read_reply(raw)
    except _UNREADABLE as failure:
        raise AMTPError(
            Code.INVALID_MESSAGE_FORMAT,
            f"{field} can't be read: {_told(failure)}. Send a payload, and what goes with it: "
            "subject, schema, response_type, workflow_id, headers, attachments.",
            {"field": field},
        ) from None
    members = {name: getattr(reply, name) for name in _REPLY_MEMBERS}
    return SaidReply(
        bytes(reply.payload), {name: value for name, value in members.items() if value}, reply.headers or {}
    )


def _too_many(field: str) -> AMTPError:
    return AMTPError(
        Code.INVALID_MESSAGE_FORMAT,
        f"{field} would send more than {MESSAGES_MAX} messages: send fewer at once.",
        {"field": field, "limit": MESSAGES_MAX},
    )


def parse_renewal(body: bytes, rules: InboxSettings) -> Renewal:
    try:
        renewal = _strict(_read_renewal, body)
    except _UNREADABLE as failure:
        raise _bad_body(failure, '{"lease": "…", "seconds": 60}') from None
    if renewal.seconds != 0 and not 1 <= renewal.seconds <= rules.lease_seconds_max:
        raise AMTPError(
            Code.INVALID_MESSAGE_FORMAT,
            f"seconds must be 1 to {rules.lease_seconds_max}, or 0 to give the lease back.",
            {"field": "seconds"},
        )
    return renewal


def _named(message_id: str, sender: str | None, field: str) -> EntryName:
    if ID.fullmatch(message_id) is None:
        raise AMTPError(
            Code.INVALID_MESSAGE_FORMAT,
            f"{field} is no message id: send it as the inbox gave it.",
            {"field": field},
        )
    if sender is None:
        return EntryName(message_id)
    return EntryName(message_id, parse_address(sender, f"{field}.sender").name)


def _strict(read: Callable[[bytes], T], body: bytes) -> T:
    """Decodes a body as one of the structs above; refuses JSON that parsers may read differently."""
    read_strict(body)
    return read(body)


def _bad_body(failure: Exception, remedy: str) -> AMTPError:
    return AMTPError(Code.INVALID_MESSAGE_FORMAT, f"The body can't be read: {_told(failure)}. Send {remedy}.")


def _told(failure: Exception) -> str:
    return str(failure) if isinstance(failure, msgspec.ValidationError) else "it is no JSON"


def _count(query: Mapping[str, str], name: str, default: int, least: int, most: int, remedy: str = "") -> int:
    text = query.get(name)
    if text is None:
        return default
    if _COUNT.fullmatch(text) is None or not least <= int(text) <= most:
        raise bad_parameter(name, f"must be a whole number from {least} to {most}")
    return int(text)


def _seconds(text: str, name: str, least: int, most: int) -> float:
    if _SECONDS.fullmatch(text) is None or not least <= float(text) <= most:
        about = {"field": name, "limit": most}
        raise bad_parameter(name, f"must be seconds, from {least} to {most}", about)
    return float(text)


def _row(query: Mapping[str, str], name: str, remedy: str) -> UUID | None:
    text = query.get(name)
    if text is None:
        return None
    try:
        return UUID(text)
    except ValueError:
        raise bad_parameter(name, remedy) from None


def _mark(query: Mapping[str, str]) -> Mark | None:
    text = query.get("status")
    if text is None:
        return None
    try:
        return Mark(text)
    except ValueError:
        raise bad_parameter("status", "must be unread or read") from None
