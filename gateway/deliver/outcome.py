"""Outcomes, which are facts that a courier saw, and verdicts, which are our decisions about them. Pure.

A failure of unknown kind is temporary.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never

import msgspec

from gateway.protocol.errors import Code
from gateway.protocol.retry import ATTEMPTS_MAX, delay_seconds
from gateway.protocol.status import Status

REASON_CHARACTERS_MAX = 500


@dataclass(frozen=True, slots=True)
class Delivered:
    """A delivery handed over; `via` says to whom. `response` is what an agent answered at once."""

    via: str
    response: msgspec.Raw | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """A delivery for an inbox here: the settling transaction itself makes the entry."""

    agent: int
    address: str | None


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A delivery to an agent whose webhook is gone for good: its inbox takes this one, and all later ones."""

    agent: int
    address: str | None
    url: str  # the one that is gone


@dataclass(frozen=True, slots=True)
class Deferred:
    """A temporary failure. `blames` the destination as a whole (its breaker counts it), not this message.

    `unreachable`: nothing of the message was sent, so the destination is healthy once it can be reached again.
    `inside`: the reason for operators, where it contains what only they may know.
    """

    code: Code
    reason: str
    retry_after_seconds: float | None = None
    blames: bool = False
    unreachable: bool = False
    details: str | None = None  # of a peer's error, in JSON
    inside: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A permanent failure. `unknown`: an earlier attempt may have succeeded, so no failure is reported."""

    code: Code
    reason: str
    unknown: bool = False
    details: str | None = None  # of a peer's error, in JSON


Outcome = Delivered | Placed | Withdrawn | Deferred | Refused


@dataclass(frozen=True, slots=True)
class Facts:
    """The queue's facts about a delivery when its attempt ends; attempts include this one."""

    attempts: int
    expires_at: datetime
    expiry: str
    attempts_max: int = ATTEMPTS_MAX
    awaited: bool = False  # its sender hears the outcome in an answer, and wants no second attempt


@dataclass(frozen=True, slots=True)
class Done:
    """A final success."""

    via: str


@dataclass(frozen=True, slots=True)
class Shelved:
    """A final success, in an inbox here."""

    agent: int
    address: str | None


@dataclass(frozen=True, slots=True)
class Again:
    """A retry at `due`."""

    due: datetime
    code: Code
    reason: str
    inside: str | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """A final failure. If failed, it is a dead letter unless an answer tells of it; `report`: its sender may be told."""

    status: Status
    code: Code
    reason: str
    dead_letter: bool
    report: bool
    details: str | None = None
    inside: str | None = None


Verdict = Done | Shelved | Again | Ended


def verdict_on(outcome: Outcome, facts: Facts, now: datetime, draw: float) -> Verdict:
    """Returns the verdict on an outcome. `draw` is random in [0, 1) and spreads the retries."""
    match outcome:
        case Delivered(via):
            return Done(via)
        case Placed(agent, address) | Withdrawn(agent, address):
            return Shelved(agent, address)
        case Refused(code, reason, unknown, details):
            told = facts.awaited
            return Ended(
                Status.FAILED, code, tidy(reason), not told, report=not told and not unknown, details=details
            )
        case Deferred(code, reason) if facts.awaited:
            return _ended(outcome, Status.FAILED, reason, told=True)
        case Deferred(code, reason, retry_after_seconds, _):
            due = now + timedelta(seconds=delay_seconds(facts.attempts, draw, retry_after_seconds))
            if facts.attempts >= facts.attempts_max or due >= facts.expires_at:
                return _over(outcome, facts, due)
            return Again(due, code, tidy(reason), outcome.inside)
        case _:
            assert_never(outcome)


def may_be_last(attempts: int, attempts_max: int, expires_at: datetime, now: datetime) -> bool:
    """Returns whether this may be the last attempt: with the longest delay that jitter allows, none would follow."""
    longest = timedelta(seconds=delay_seconds(attempts, 1.0))
    return attempts >= attempts_max or now + longest >= expires_at


def _over(outcome: Deferred, facts: Facts, due: datetime) -> Ended:
    """Returns the verdict when attempts or time are used up: expired if the sender set the time limit, failed if we did."""
    if facts.expiry != "horizon" and due >= facts.expires_at:
        text = f"The message's time to live ended before it could be delivered. Last: {outcome.reason}"
        return _ended(outcome, Status.EXPIRED, text)
    return _ended(outcome, Status.FAILED, f"Gave up after {facts.attempts} attempts. Last: {outcome.reason}")


def _ended(outcome: Deferred, status: Status, text: str, *, told: bool = False) -> Ended:
    """Returns the final failure of a deferred delivery; `told`: an answer tells of it."""
    return Ended(
        status,
        outcome.code,
        tidy(text),
        dead_letter=status is Status.FAILED and not told,
        report=not told,
        details=outcome.details,
        inside=outcome.inside,
    )


def tidy(text: str) -> str:
    """Returns another's text made safe to store and show: printable, one line, 500 characters."""
    clean = "".join(
        character if character.isprintable() else " " for character in text[: REASON_CHARACTERS_MAX * 2]
    )
    return clean[:REASON_CHARACTERS_MAX]
