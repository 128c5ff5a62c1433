"""A cache of answers until they expire, with one question in flight per key."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, TypeVar

from gateway.store.clock import Clock

ENTRIES_MAX: Final = 10_000  # domains a busy gateway talks to; the least recently used goes first

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Kept(Generic[Value]):
    value: Value
    asked_at: datetime
    good_until: datetime

    def is_good(self, now: datetime) -> bool:
        """Returns whether it may be used now; not where the clock was set back to before the question."""
        return self.asked_at <= now < self.good_until


class Cache(Generic[Value]):
    """The cache; concurrent callers share one question, which goes on when one of them stops waiting."""

    def __init__(
        self,
        ask: Callable[[str], Awaitable[Kept[Value]]],
        clock: Clock,
        entries_max: int = ENTRIES_MAX,
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._entries_max = entries_max
        self._kept: OrderedDict[str, Kept[Value]] = OrderedDict()
        self._questions: dict[str, asyncio.Task[Kept[Value]]] = {}

    async def get(self, key: str) -> Value:
        kept = self._kept.get(key)
        if kept is not None and kept.is_good(self._clock.now()):
            self._kept.move_to_end(key)
            return kept.value
        question = self._questions.get(key)
        if question is None:
            question = asyncio.create_task(self._put(key))
            self._questions[key] = question
            question.add_done_callback(lambda done: self._answered(key, done))
        return (await asyncio.shield(question)).value

    def put(self, key: str, kept: Kept[Value]) -> None:
        """Stores an answer that came late."""
        self._kept[key] = kept
        self._kept.move_to_end(key)
        while len(self._kept) > self._entries_max:
            self._kept.popitem(last=False)

    def peek(self, key: str) -> Kept[Value] | None:
        """Returns what is stored, expired or not, without asking."""
        return self._kept.get(key)

    async def close(self) -> None:
        questions = list(self._questions.values())
        for question in questions:
            question.cancel()
        await asyncio.gather(*questions, return_exceptions=True)

    async def _put(self, key: str) -> Kept[Value]:
        kept = await self._ask(key)
        self.put(key, kept)
        return kept

    def _answered(self, key: str, question: asyncio.Task[Kept[Value]]) -> None:
        del self._questions[key]
        if not question.cancelled():
            question.exception()  # whoever waits raises it; nobody may be left waiting
