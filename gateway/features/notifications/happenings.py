"""The events that follow from what happened to a message. Pure: facts in, happenings out.

A refusal at the door is told by the answer, and an attempt that will be retried is no event.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Protocol

from gateway.features.notifications.events import Event, Happening
from gateway.protocol.message import Message
from gateway.protocol.status import RecipientState, Status
from gateway.protocol.timestamp import render_timestamp
from gateway.report.naming import Name, Named

EPISODE_SECONDS: Final = 600  # within which an agent that is unavailable is so under one id

_OF_STATUS: Mapping[str, Event] = {
    Status.DELIVERED: Event.DELIVERED,
    Status.FAILED: Event.FAILED,
    Status.EXPIRED: Event.EXPIRED,
    Status.CANCELLED: Event.CANCELLED,
}


class SettledDelivery(Protocol):
    """The outcome of one delivery: exactly one of `status`, `due` and an inbox is set."""

    @property
    def recipient(self) -> str: ...
    @property
    def status(self) -> str | None: ...
    @property
    def due(self) -> datetime | None: ...
    @property
    def via(self) -> str | None: ...
    @property
    def attempts(self) -> int: ...
    @property
    def code(self) -> str | None: ...
    @property
    def error(self) -> str | None: ...
    @property
    def dead_letter(self) -> bool: ...


class LateRecipient(Protocol):
    """A recipient who still waits."""

    @property
    def recipient(self) -> str: ...
    @property
    def attempts(self) -> int: ...
    @property
    def due(self) -> datetime: ...
    @property
    def code(self) -> str | None: ...
    @property
    def error(self) -> str | None: ...


class UndigestedEntry(Named, Protocol):
    """A poison message: an agent took it again and again and never acknowledged it."""

    @property
    def agent(self) -> str: ...
    @property
    def lapses(self) -> int: ...


def accepted(
    message: Message,
    states: Iterable[RecipientState],
    now: datetime,
    *,
    original: Name | None = None,
    joined: Collection[str] | None = None,
) -> list[Happening]:
    """Returns the events of an accepted message; a recipient with an inbox here has it at once.

    `original` is the message that this one repeats, and `joined` the recipients it had not before.
    """
    name = original or Name(message.row, message.message_id, message.sender.name)
    found = []
    for recipient, state in zip(message.recipients, states, strict=True):
        status = state.status
        if status is Status.FAILED or (joined is not None and recipient.name not in joined):
            continue
        found.append(happened(Event.ACCEPTED, name, recipient.name, now, status=status.value))
        if status is Status.DELIVERED:
            found.append(
                happened(Event.DELIVERED, name, recipient.name, now, status=status.value, via=state.via)
            )
    return found


def settled(outcome: SettledDelivery, message: Named, now: datetime) -> list[Happening]:
    """Returns the events of a finished delivery, delivered or failed."""
    if outcome.due is not None:
        return []
    status = outcome.status or Status.DELIVERED.value
    facts = {
        "status": status,
        "via": outcome.via or (None if outcome.status else "inbox"),
        "attempts": outcome.attempts,
        "error": _error(outcome.code, outcome.error),
    }
    events = [_OF_STATUS[status], *([Event.DEAD] if outcome.dead_letter else [])]
    return [happened(event, message, outcome.recipient, now, **facts) for event in events]


def delayed(late: Iterable[LateRecipient], message: Named, now: datetime) -> list[Happening]:
    return [
        happened(
            Event.DELAYED,
            message,
            one.recipient,
            now,
            status=Status.QUEUED.value,
            attempts=one.attempts,
            error=_error(one.code, one.error),
            next_retry=render_timestamp(one.due),
        )
        for one in late
    ]


def cancelled(recipients: Sequence[str], message: Named, now: datetime) -> list[Happening]:
    return [
        happened(Event.CANCELLED, message, recipient, now, status=Status.CANCELLED.value)
        for recipient in recipients
    ]


def read(recipient: str, message: Named, now: datetime) -> Happening:
    """Returns the event of an entry handed out for the first time."""
    return happened(Event.READ, message, recipient, now, status=Status.DELIVERED.value)


def acknowledged(recipient: str, message: Named, now: datetime) -> Happening:
    return happened(Event.ACKNOWLEDGED, message, recipient, now, status=Status.DELIVERED.value)


def undigested(buried: Iterable[UndigestedEntry], now: datetime) -> list[Happening]:
    """Returns the events of entries that became dead letters of their agents."""
    status = Status.DELIVERED.value
    return [happened(Event.DEAD, one, one.agent, now, status=status, lapses=one.lapses) for one in buried]


def unavailable(agent: str, reason: str, now: datetime) -> Happening:
    """Returns the event of an agent whose webhook's breaker opened; within one episode it has the same id."""
    episode = int(now.timestamp() // EPISODE_SECONDS)
    data = {"agent": agent, "status": "unavailable", "reason": reason}
    return Happening(Event.AGENT_UNAVAILABLE, now, f"{agent} {episode}", (agent,), data=data)


def happened(event: Event, message: Named, recipient: str, now: datetime, **facts: Any) -> Happening:
    known = {name: value for name, value in facts.items() if value is not None}
    return Happening(
        event,
        now,
        str(message.row),
        (message.sender, recipient),
        recipient,
        {"message_id": message.message_id, "sender": message.sender, "recipient": recipient, **known},
    )


def _error(code: str | None, text: str | None) -> dict[str, str] | None:
    return {"code": code, "message": text or ""} if code else None
