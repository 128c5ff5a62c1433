"""What comes out of an inbox, and what a gateway answers when it is given a message."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from gateway.protocol.address import parse_address
from gateway.protocol.errors import AMTPError
from gateway.protocol.status import Status

T = TypeVar("T")
FAILURE = "delivery_failure"  # the message_type of a report that ends a message
_AUTOMATIC = frozenset({"auto-generated", "auto-replied"})
_UNDONE = frozenset({Status.FAILED.value, Status.EXPIRED.value, Status.CANCELLED.value})


class Attachment(msgspec.Struct, frozen=True):
    """A file that travels beside a message: where it is, and what it must be."""

    filename: str
    content_type: str
    size: int
    hash: str
    url: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it was received. `body` has every member, also those that have no name here."""

    id: str
    sender: str
    payload: Any
    body: Mapping[str, Any] = field(repr=False)

    @property
    def recipients(self) -> Sequence[str]:
        return tuple(self.body.get("recipients") or ())

    @property
    def subject(self) -> str | None:
        return self.body.get("subject") or None

    @property
    def schema(self) -> str | None:
        return self.body.get("schema") or None

    @property
    def in_reply_to(self) -> str | None:
        return self.body.get("in_reply_to") or None

    @property
    def timestamp(self) -> str | None:
        return self.body.get("timestamp")

    @property
    def headers(self) -> Mapping[str, Any]:
        return self.body.get("headers") or {}

    @property
    def attachments(self) -> Sequence[Attachment]:
        return msgspec.convert(self.body.get("attachments") or (), tuple[Attachment, ...])

    @property
    def kind(self) -> str | None:
        return self.headers.get("kind") or None

    @property
    def reply_to(self) -> str:
        """Where an answer goes. An unproven sender has it within its own domain alone."""
        wanted = self.headers.get("reply-to")
        if not wanted or not (self.proven or _domain_of(wanted) == _domain_of(self.sender)):
            return self.sender
        return str(wanted)

    @property
    def proven(self) -> bool:
        """Whether the gateway knows that it comes from whom it says."""
        return self.body.get("sender_verification") == "pass"

    @property
    def automatic(self) -> bool:
        """Written by no one who waits for an answer: answering it is how loops begin."""
        return bool(self._gateway.get("automatic")) or self.headers.get("auto-submitted") in _AUTOMATIC

    @property
    def is_failure_report(self) -> bool:
        """Says that a message of ours could not be delivered; believed of a proven postmaster alone."""
        reports = self.body.get("message_type") == FAILURE and self.proven
        return reports and name_of(self.sender).startswith("postmaster@")

    @property
    def entry(self) -> str:
        """Its place in the inbox: two messages may share an id, never this."""
        return str(self._gateway.get("entry") or self.id)

    @property
    def lease(self) -> str | None:
        """The token under which it is ours for a while."""
        return (self._gateway.get("lease") or {}).get("token")

    def payload_as(self, kind: type[T]) -> T:
        """The payload as that type (a dataclass, TypedDict or msgspec.Struct), or ValueError."""
        return msgspec.convert(self.payload, kind)

    @property
    def _gateway(self) -> Mapping[str, Any]:
        return self.body.get("gateway") or {}


def read_message(body: Mapping[str, Any]) -> Message:
    """One message of a gateway's answer."""
    return Message(body.get("message_id") or "", body.get("sender") or "", body.get("payload"), body)


class Fault(msgspec.Struct, frozen=True):
    """Why a recipient did not get it."""

    code: str
    message: str


class Recipient(msgspec.Struct, frozen=True):
    """What became of a message for one of those it was sent to."""

    address: str
    status: str
    error: Fault | None = None

    @property
    def undone(self) -> bool:
        """Whether it ended without having been delivered."""
        return self.status in _UNDONE


class Schedule(msgspec.Struct, frozen=True):
    """What makes a message go out again and again."""

    id: str
    repeat: str
    next_at: str | None = None
    ends_at: str | None = None


class Receipt(msgspec.Struct, frozen=True):
    """The gateway has the message, on disk. One recipient may be refused while others are accepted."""

    message_id: str
    status: str
    recipients: tuple[Recipient, ...] = ()
    schedule: Schedule | None = None

    @property
    def refused(self) -> tuple[Recipient, ...]:
        return tuple(recipient for recipient in self.recipients if recipient.error is not None)


def _domain_of(address: str) -> str:
    return name_of(address).rpartition("@")[2]


def name_of(address: str) -> str:
    """Who is meant by an address, however it is written."""
    try:
        return parse_address(address, "address").name
    except AMTPError:
        return address
