"""What a check is: a small async function whose docstring says, in one sentence, what must hold.

One that takes a second argument looks at what the gateway does towards others, and needs them.
"""

import inspect
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from types import ModuleType
from typing import Any

from conformance.abroad import Abroad
from conformance.target import Target

Run = Callable[[Target], Awaitable[None]] | Callable[[Target, Abroad], Awaitable[None]]


class Level(StrEnum):
    CORE = "core"  # what the draft asks of every gateway
    EXTENDED = "extended"  # what this project decided where the draft is silent, marked D


class Mismatch(AssertionError):
    """The gateway did something else than the protocol says."""


@dataclass(frozen=True, slots=True)
class Check:
    level: Level
    run: Callable[..., Awaitable[None]]

    @property
    def needs_peer(self) -> bool:
        return len(inspect.signature(self.run).parameters) > 1

    @property
    def name(self) -> str:
        return self.run.__name__

    @property
    def says(self) -> str:
        return (self.run.__doc__ or "").strip()

    @property
    def section(self) -> int:
        """Of the draft, as the name of its module begins: s04_messages is section 4."""
        return int(self.module[1:3])

    @property
    def module(self) -> str:
        return self.run.__module__.rpartition(".")[2]


def core(run: Run) -> Check:
    return Check(Level.CORE, run)


def extended(run: Run) -> Check:
    return Check(Level.EXTENDED, run)


def checks_in(modules: Collection[ModuleType]) -> list[Check]:
    """In the order in which they are written."""
    return [value for module in modules for value in vars(module).values() if isinstance(value, Check)]


def same(found: Any, wanted: Any, what: str) -> None:
    if found != wanted:
        raise Mismatch(f"{what}: expected {wanted!r:.300}, found {found!r:.300}")


def holds(condition: object, what: str) -> None:
    if not condition:
        raise Mismatch(f"does not hold: {what}")
