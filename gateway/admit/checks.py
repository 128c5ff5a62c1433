"""The seam for checks of a message before it is committed; they run in one order.

A check that raises refuses the message. One that is not configured is not in the list, and one that does not concern
a message costs a call.
"""

from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, assert_never

from gateway.admit.caller import Caller
from gateway.protocol.message import Message
from gateway.protocol.status import Acceptance, RecipientState
from gateway.store.admitted import Admitted, Rider


class Stage(IntEnum):
    """The order of checks at the door."""

    SIGNATURE = 1
    LIMITS = 2
    LOOPS = 3
    POLICY = 4
    SCHEMA = 5
    ATTACHMENTS = 6
    APPROVAL = 7
    TIME = 8
    RECORDS = 9  # nothing is judged: what the message says of others is written with it


class Keeper(Protocol):
    """A store that keeps a message for later instead of the queue."""

    async def keep(self, admitted: Admitted, states: Sequence[RecipientState], /) -> Acceptance:
        """Commits the message; returns its receipt."""


@dataclass(frozen=True, slots=True)
class Pass:
    """The judgement that a message goes on; these rows are committed with it."""

    riders: tuple[Rider, ...] = ()


@dataclass(frozen=True, slots=True)
class Keep:
    """The judgement that this keeper takes the message."""

    keeper: Keeper


Judgement = Pass | Keep


class Check(Protocol):
    """A check of messages that have at least one recipient."""

    @property
    def stage(self) -> Stage: ...

    def judge(self, message: Message, caller: Caller, /) -> Awaitable[Judgement] | None:
        """Returns the judgement to wait for; None where the message does not concern this check."""


class Checks:
    """The checks of a gateway, in their order."""

    def __init__(self, checks: Iterable[Check]) -> None:
        self._checks = sorted(checks, key=lambda check: check.stage)

    async def judge(self, message: Message, caller: Caller) -> tuple[tuple[Rider, ...], Keeper | None]:
        """Returns the rows to commit with the message, and who keeps it, if anybody does."""
        riders: tuple[Rider, ...] = ()
        keeper: Keeper | None = None
        for check in self._checks:
            waiting = check.judge(message, caller)
            if waiting is None:
                continue
            match await waiting:
                case Pass(more):
                    riders += more
                case Keep(keeper):
                    pass
                case never:
                    assert_never(never)
        return riders, keeper
