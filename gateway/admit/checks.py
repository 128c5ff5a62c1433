"""The seam for judges of a message before it is committed: each check has its place in one order.

A check that raises refuses the message. One that is not configured is not in the list, and one that has nothing to say
of a message costs a call.
"""

from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, assert_never

from gateway.admit.caller import Caller
from gateway.protocol.message import Message
from gateway.protocol.status import Receipt, RecipientState
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
    """Keeps a message for later instead of the queue."""

    async def keep(self, admitted: Admitted, states: Sequence[RecipientState], /) -> Receipt:
        """Commits it; returns what its sender is answered."""


@dataclass(frozen=True, slots=True)
class Pass:
    """The message goes on, and these rows are committed with it."""

    riders: tuple[Rider, ...] = ()


@dataclass(frozen=True, slots=True)
class Keep:
    """The message is handed to this keeper."""

    keeper: Keeper


Judgement = Pass | Keep


class Check(Protocol):
    """Judges a message that has at least one recipient."""

    @property
    def stage(self) -> Stage: ...

    def judge(self, message: Message, caller: Caller, /) -> Awaitable[Judgement] | None:
        """Returns the judgement to wait for; None where the message does not concern this check."""


class Checks:
    """All checks of a gateway, in their order."""

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
