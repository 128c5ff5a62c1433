"""Messages as an inbox returns them, and receipts for messages sent."""

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
    """A file attached to a message: its URL, and its size and hash to check."""

    filename: str
    content_type: str
    size: int
    hash: str
    url: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it was received. `body` has every member, also those without a property here."""

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
        """Returns the address for answers; an unproven sender can choose one in its own domain only."""
        wanted = self.headers.get("reply-to")
        if not wanted or not (self.proven or _domain_of(wanted) == _domain_of(self.sender)):
            return self.sender
        return str(wanted)

    @property
    def proven(self) -> bool:
        """Returns whether the gateway verified the sender."""
        return self.body.get("sender_verification") == "pass"

    @property
    def automatic(self) -> bool:
        """Returns whether no one waits for an answer; answering automatic messages causes loops."""
        return bool(self._gateway.get("automatic")) or self.headers.get("auto-submitted") in _AUTOMATIC

    @property
    def is_failure_report(self) -> bool:
        """Returns whether it reports a failed delivery; only a proven postmaster is believed."""
        reports = self.body.get("message_type") == FAILURE and self.proven
        return reports and name_of(self.sender).startswith("postmaster@")

    @property
    def entry(self) -> str:
        """Returns its id within the inbox; unlike message ids, it is unique."""
        return str(self._gateway.get("entry") or self.id)

    @property
    def lease(self) -> str | None:
        """Returns the token of its lease, if it has one."""
        return (self._gateway.get("lease") or {}).get("token")

    def payload_as(self, kind: type[T]) -> T:
        """Returns the payload as that type (a dataclass, TypedDict or msgspec.Struct); raises ValueError if it can't."""
        return msgspec.convert(self.payload, kind)

    @property
    def _gateway(self) -> Mapping[str, Any]:
        return self.body.get("gateway") or {}


def read_message(body: Mapping[str, Any]) -> Message:
    """Returns one message of a gateway's answer."""
    return Message(body.get("message_id") or "", body.get("sender") or "", body.get("payload"), body)


class Fault(msgspec.Struct, frozen=True):
    """The reason why a recipient did not get a message."""

    code: str
    message: str


class Recipient(msgspec.Struct, frozen=True):
    """The status of a message for one recipient."""

    address: str
    status: str
    error: Fault | None = None

    @property
    def undone(self) -> bool:
        """Returns whether delivery failed, expired or was cancelled."""
        return self.status in _UNDONE


class Schedule(msgspec.Struct, frozen=True):
    """The schedule of a repeated message."""

    id: str
    repeat: str
    next_at: str | None = None
    ends_at: str | None = None


class Receipt(msgspec.Struct, frozen=True):
    """A receipt: the gateway has committed the message. Some recipients may be refused while others are accepted."""

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
    """Returns the canonical name of an address, or the text itself if it is none."""
    try:
        return parse_address(address, "address").name
    except AMTPError:
        return address
