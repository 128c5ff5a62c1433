"""Events: the facts a gateway tells its subscribers, and how a body and its id are made.

A body has `type`, `timestamp` and `data`, as in Standard Webhooks, and none of the message's content.
The id is derived from what happened, to whom, and the subscriber: it is the same in every retry and every replay.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID, uuid5

import msgspec

from gateway.protocol.timestamp import render_timestamp


class Event(StrEnum):
    ACCEPTED = "message.accepted"
    DELIVERED = "message.delivered"
    DELAYED = "message.delayed"
    FAILED = "message.failed"
    EXPIRED = "message.expired"
    CANCELLED = "message.cancelled"
    DEAD = "message.dead"  # put aside as a dead letter, undeliverable or undigested
    READ = "message.read"
    ACKNOWLEDGED = "message.acknowledged"
    AGENT_UNAVAILABLE = "agent.unavailable"
    WEBHOOK_FAILING = "webhook.failing"
    WEBHOOK_DISABLED = "webhook.disabled"
    TEST = "webhook.test"


CHALLENGE: Final = "challenge"  # the type of what a target must answer before it hears of anything


@dataclass(frozen=True, slots=True)
class Happening:
    """A fact to tell subscribers. `subject` and `recipient` say to what it happened; `concerned` whom it concerns."""

    event: Event
    at: datetime
    subject: str
    concerned: tuple[str, ...]  # names of agents
    recipient: str = ""
    data: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Subscriber:
    """A subscription's filter. Without an owner it belongs to the operators, and may hear of everything."""

    id: UUID
    owner: str | None
    events: frozenset[str] = frozenset()  # none: all of them
    about: frozenset[str] = frozenset()  # addresses and domains; none: whatever the owner may hear of

    def hears(self, happening: Happening) -> bool:
        if self.events and happening.event not in self.events:
            return False
        if happening.subject == str(self.id):  # no webhook is told of itself: its target would not take it
            return False
        if self.owner is not None and self.owner not in happening.concerned:
            return False
        return not self.about or any(
            name in self.about or name.rpartition("@")[2] in self.about for name in happening.concerned
        )


def notice_id(happening: Happening, subscription: UUID) -> UUID:
    """Returns the id of a happening for one subscription, the same every time."""
    return uuid5(subscription, f"{happening.event}\n{happening.subject}\n{happening.recipient}")


def render_event(happening: Happening) -> bytes:
    return msgspec.json.encode(
        {
            "type": happening.event.value,
            "timestamp": render_timestamp(happening.at),
            "data": happening.data or {},
        }
    )


def render_challenge(challenge: str, webhook: UUID, at: datetime) -> bytes:
    """Returns the body of a challenge; a target answers with the same `challenge`, in JSON or as plain text."""
    return msgspec.json.encode(
        {
            "type": CHALLENGE,
            "timestamp": render_timestamp(at),
            "challenge": challenge,
            "data": {"webhook_id": str(webhook)},
        }
    )


def answers_challenge(body: bytes, challenge: str) -> bool:
    """Returns whether an answer repeats the challenge: as it is, or as `{"challenge": …}`."""
    if body.strip() == challenge.encode():
        return True
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return isinstance(answer, dict) and answer.get("challenge") == challenge
