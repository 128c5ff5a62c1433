"""Statuses: of each recipient, and of a message as a whole; acceptances and how they are rendered."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec
from msgspec.structs import replace

from gateway.protocol.errors import Code
from gateway.protocol.timestamp import render_timestamp


class Status(StrEnum):
    """The status of one recipient."""

    QUEUED = "queued"
    HELD = "held"
    DELIVERED = "delivered"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


LIVE = frozenset({Status.QUEUED, Status.HELD})


def status_of_message(statuses: Iterable[Status]) -> str:
    """Returns queued while any recipient is live, else delivered, failed, or partial when only some were."""
    seen = set(statuses)
    if not seen:
        raise ValueError("a message has at least one recipient")
    if seen & LIVE:
        return "queued"
    if seen == {Status.DELIVERED}:
        return "delivered"
    return "partial" if Status.DELIVERED in seen else "failed"


class RecipientState(msgspec.Struct, frozen=True):
    address: str  # as the sender wrote it
    status: Status
    error: tuple[Code, str] | None = None  # why it was refused: code and text
    timestamp: datetime | None = None  # of the last change
    attempts: int = 0
    delivered_at: datetime | None = None
    next_retry: datetime | None = None
    last_error: str | None = None
    via: str | None = None  # who has it: inbox, webhook, amtp:<host>, smtp:<host>
    details: msgspec.Raw | None = None  # of the error, as the gateway there gave them


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """The schedule of a repeated message; `next_at` is None when it has ended."""

    id: UUID
    repeat: str
    next_at: datetime | None
    ends_at: datetime | None


class Acceptance(msgspec.Struct, frozen=True):
    """The answer to a message handed in."""

    message_id: str
    recipients: tuple[RecipientState, ...]
    row: UUID | None = None  # of the message it is about; never shown
    schedule: ScheduleState | None = None  # it repeats
    misspelt: tuple[
        tuple[str, str], ...
    ] = ()  # members of the message, each with the known one it is close to

    @property
    def status(self) -> str:
        return status_of_message(recipient.status for recipient in self.recipients)


def brought_up_to_date(
    acceptance: Acceptance, names: Sequence[str], known: Mapping[str, RecipientState]
) -> Acceptance:
    """Returns the acceptance with its recipients' current states; `names` are theirs, in its order."""
    recipients = [
        replace(known[name], address=state.address) if name in known else state
        for name, state in zip(names, acceptance.recipients, strict=True)
    ]
    return replace(acceptance, recipients=tuple(recipients))


def render_acceptance(acceptance: Acceptance) -> dict[str, Any]:
    rendered: dict[str, Any] = {
        "message_id": acceptance.message_id,
        "status": acceptance.status,
        "recipients": render_recipients(acceptance.recipients),
    }
    if acceptance.schedule is not None:
        rendered["schedule"] = render_schedule(acceptance.schedule)
    if acceptance.misspelt:
        rendered["warnings"] = [
            {"field": field, "nearest": nearest} for field, nearest in acceptance.misspelt
        ]
    return rendered


def render_schedule(schedule: ScheduleState) -> dict[str, Any]:
    return {
        "id": str(schedule.id),
        "repeat": schedule.repeat,
        "next_at": _moment(schedule.next_at),
        "ends_at": _moment(schedule.ends_at),
    }


def render_recipients(recipients: Sequence[RecipientState]) -> list[dict[str, Any]]:
    """Returns each recipient's state, as an acceptance shows it."""
    return [_accepted(recipient) for recipient in recipients]


def render_status(
    message_id: str, created_at: datetime, recipients: Sequence[RecipientState]
) -> dict[str, Any]:
    """Returns the status of the message, as a whole and for each recipient. Unknown values are null."""
    status = status_of_message(recipient.status for recipient in recipients)
    delivered = [recipient.delivered_at for recipient in recipients if recipient.delivered_at]
    retries = [recipient.next_retry for recipient in recipients if recipient.next_retry]
    return {
        "message_id": message_id,
        "status": status,
        "created_at": render_timestamp(created_at),
        "delivered_at": _moment(max(delivered) if delivered and status == "delivered" else None),
        "attempts": max(recipient.attempts for recipient in recipients),
        "next_retry": _moment(min(retries, default=None)),
        "recipients": [_tracked(recipient) for recipient in recipients],
    }


def _accepted(recipient: RecipientState) -> dict[str, Any]:
    shown: dict[str, Any] = {"address": recipient.address, "status": recipient.status.value}
    if recipient.error is not None:
        code, message = recipient.error
        shown["error"] = {"code": code.value, "message": message}
        if recipient.details is not None:
            shown["error"]["details"] = recipient.details
    return shown


def _tracked(recipient: RecipientState) -> dict[str, Any]:
    return {
        **_accepted(recipient),
        "timestamp": _moment(recipient.timestamp),
        "attempts": recipient.attempts,
        "delivered_at": _moment(recipient.delivered_at),
        "next_retry": _moment(recipient.next_retry),
        "last_error": recipient.last_error,
        "via": recipient.via,
    }


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else render_timestamp(moment)
