"""What a process remembers of agents and keys, and when it must forget.

Every change in the database counts up one number. A process looks at it each second; what it remembers is
good while the number stands still and the last look is no older than two seconds. So a revoked key is dead
everywhere within two seconds, and when the database can't be asked, nothing remembered is believed.

Only what exists is remembered. A name that is missing is asked for every time, so an agent that was
registered a moment ago on another process is found at once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Mapping
from time import monotonic
from typing import Generic, TypeVar

from gateway.protocol.errors import AMTPError, Code

LOOK_SECONDS = 1.0
TRUST_SECONDS = 2.0
ASKED_AT_ONCE_MAX = 10_000  # names in one question; a message has at most 1 000
REMEMBERED_MAX = 50_000  # some 20 MB

Name = TypeVar("Name", bound=Hashable)
Thing = TypeVar("Thing")

log = logging.getLogger(__name__)


class DirectoryWatch:
    """Knows whether the directory stood still since it was last read."""

    def __init__(self, ask: Callable[[], Awaitable[int]]) -> None:
        self._ask = ask
        self._version: int | None = None
        self._seen_at = 0.0  # when the question was put, for the answer may have been older than its arrival

    @property
    def version(self) -> int | None:
        """The version that may be believed now."""
        return self._version if monotonic() - self._seen_at < TRUST_SECONDS else None

    def seen(self, version: int, asked_at: float) -> None:
        """Takes note of what the database said; an answer to an older question is no news."""
        if asked_at >= self._seen_at:
            self._version, self._seen_at = version, asked_at

    def forget(self) -> None:
        """This process changed something: nothing remembered before now is believed."""
        self._version, self._seen_at = None, monotonic()

    async def run(self) -> None:
        """Looks each second until cancelled. A look that fails is made up for by the next."""
        while True:
            asked_at = monotonic()
            try:
                async with asyncio.timeout(TRUST_SECONDS):
                    self.seen(await self._ask(), asked_at)
            except (AMTPError, TimeoutError) as failure:
                log.debug("the directory could not be looked at: %s", failure)
            await asyncio.sleep(max(0.0, asked_at + LOOK_SECONDS - monotonic()))


class _Question(Generic[Name, Thing]):
    """Names that are asked for together; whoever comes first puts the question for all."""

    def __init__(self) -> None:
        self.names: set[Name] = set()
        self.answer: Mapping[Name, Thing] | AMTPError | None = None


class Remembered(Generic[Name, Thing]):
    """Things by name, from memory while the directory stands still, else from the database."""

    def __init__(
        self,
        watch: DirectoryWatch,
        find: Callable[[Collection[Name]], Awaitable[tuple[int, Mapping[Name, Thing]]]],
    ) -> None:
        self._watch = watch
        self._find = find
        self._things: dict[Name, Thing] = {}
        self._version: int | None = None
        self._gathering: _Question[Name, Thing] = _Question()
        self._asking = asyncio.Lock()

    def recall(self, name: Name) -> Thing | None:
        """What is remembered and may be believed."""
        version = self._watch.version
        return self._things.get(name) if version is not None and version == self._version else None

    async def find(self, names: Iterable[Name]) -> dict[Name, Thing]:
        """Those of the names that exist."""
        found: dict[Name, Thing] = {}
        missing = []
        for name in names:
            thing = self.recall(name)
            if thing is None:
                missing.append(name)
            else:
                found[name] = thing
        if missing:
            answer = await self._ask(missing)
            found.update((name, answer[name]) for name in missing if name in answer)
        return found

    async def _ask(self, names: list[Name]) -> Mapping[Name, Thing]:
        """One question at a time: a flood of unknown names holds one connection, not the pool."""
        question = self._gathering
        if len(question.names) + len(names) > ASKED_AT_ONCE_MAX:
            raise AMTPError(
                Code.QUEUE_FULL, "Too many unknown names are asked for; try again shortly.", retry_after=1
            )
        question.names.update(names)
        async with self._asking:
            if question.answer is None:
                if question is self._gathering:
                    self._gathering = _Question()
                question.answer = await self._put(question.names)
        if isinstance(question.answer, AMTPError):
            raise question.answer
        return question.answer

    async def _put(self, names: Collection[Name]) -> Mapping[Name, Thing] | AMTPError:
        asked_at = monotonic()
        try:
            version, things = await self._find(names)
        except AMTPError as failure:
            return failure
        self._watch.seen(version, asked_at)
        if self._watch.version == version:
            self._remember(version, things)
        return things

    def _remember(self, version: int, things: Mapping[Name, Thing]) -> None:
        if version != self._version or len(self._things) + len(things) > REMEMBERED_MAX:
            self._things.clear()
            self._version = version
        self._things.update(things)
