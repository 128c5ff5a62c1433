"""The cache of agents and keys in a process, and its invalidation.

Every change in the database counts up one number, and notes whom it concerns. A process polls that each second,
evicts those who changed, and uses the rest as long as the last poll is no older than two seconds. So a revoked key
is dead everywhere within two seconds, and while the database can't be asked, the cache is not used.

Only what exists is cached. A missing name is asked for every time, so an agent that was
registered a moment ago on another process is found at once.
"""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Mapping, Sequence
from time import monotonic
from typing import Generic, TypeVar

from gateway.protocol.errors import AMTPError, Code
from gateway.store.agents.keys import Changes

LOOK_SECONDS = 1.0
TRUST_SECONDS = 2.0
ASKED_AT_ONCE_MAX = 10_000  # names in one question; a message has at most 1 000
REMEMBERED_MAX = 50_000  # some 20 MB
FROM_NOW_ON = sys.maxsize  # a version behind all that was read

Name = TypeVar("Name", bound=Hashable)
Thing = TypeVar("Thing")

log = logging.getLogger(__name__)


class DirectoryWatch:
    """The version of the directory up to which this process knows the changes; tells its followers whom they concerned."""

    def __init__(self, ask: Callable[[int | None], Awaitable[Changes]]) -> None:
        self._ask = ask
        self._version: int | None = None
        self._seen_at = 0.0  # when the question was put, for the answer may have been older than its arrival
        self._followers: list[Callable[[int, Sequence[tuple[int, str]] | None], None]] = []
        self.changed_at = 0.0  # when this process last changed something

    @property
    def version(self) -> int | None:
        """Returns the version that may be used now: everything that changed before it is evicted."""
        return self._version if monotonic() - self._seen_at < TRUST_SECONDS else None

    def follow(self, evict: Callable[[int, Sequence[tuple[int, str]] | None], None]) -> None:
        """Registers a function to call at each change, with the version and the changes, where they are known."""
        self._followers.append(evict)

    def seen(self, changes: Changes, asked_at: float) -> None:
        """Takes the result of a poll; ignores one that was asked before the latest."""
        if asked_at < self._seen_at:
            return
        if self._version is not None and changes.version != self._version:
            self._tell(changes.version, changes.since)
        self._version, self._seen_at = changes.version, asked_at

    def answered(self, version: int, asked_at: float) -> None:
        """Takes the version that another query was answered at: if it is the one known here, that counts as a poll."""
        if version == self._version or self._version is None:
            self.seen(Changes(version), asked_at)

    def forget(self, name: str) -> None:
        """Evicts a name that this process changed; answers to earlier queries are not cached any more."""
        self.changed_at = monotonic()
        self._tell(FROM_NOW_ON, [(FROM_NOW_ON, name)])

    def _tell(self, version: int, changes: Sequence[tuple[int, str]] | None) -> None:
        for evict in self._followers:
            evict(version, changes)

    async def run(self) -> None:
        """Polls each second until cancelled. A failed poll is made up for by the next."""
        while True:
            asked_at = monotonic()
            try:
                async with asyncio.timeout(TRUST_SECONDS):
                    self.seen(await self._ask(self._version), asked_at)
            except (AMTPError, TimeoutError) as failure:
                log.debug("the directory could not be looked at: %s", failure)
            await asyncio.sleep(max(0.0, asked_at + LOOK_SECONDS - monotonic()))


class _Question(Generic[Name, Thing]):
    """A query for names asked by several callers; the first one sends it for all."""

    def __init__(self) -> None:
        self.names: set[Name] = set()
        self.answer: Mapping[Name, Thing] | AMTPError | None = None


class Remembered(Generic[Name, Thing]):
    """A cache of things by name, with the database behind it."""

    def __init__(
        self,
        watch: DirectoryWatch,
        find: Callable[[Collection[Name]], Awaitable[tuple[int, Mapping[Name, Thing]]]],
        concerns: Callable[[Name, Thing], Iterable[str]],
    ) -> None:
        """Takes the watch and the query; `concerns` returns the directory names whose changes evict a thing."""
        self._watch = watch
        self._find = find
        self._concerns = concerns
        self._things: dict[Name, tuple[int, Thing]] = {}  # with the version they were read at
        self._concerned: dict[str, set[Name]] = {}
        self._gathering: _Question[Name, Thing] = _Question()
        self._asking = asyncio.Lock()
        watch.follow(self._evict)

    def recall(self, name: Name) -> Thing | None:
        """Returns the cached thing, if it may be used."""
        if self._watch.version is None:
            return None
        kept = self._things.get(name)
        return None if kept is None else kept[1]

    async def find(self, names: Iterable[Name]) -> dict[Name, Thing]:
        """Returns the things that exist, by name."""
        found: dict[Name, Thing] = {}
        missing = []
        usable = {} if self._watch.version is None else self._things
        for name in names:
            kept = usable.get(name)
            if kept is None:
                missing.append(name)
            else:
                found[name] = kept[1]
        if missing:
            answer = await self._ask(missing)
            found.update((name, answer[name]) for name in missing if name in answer)
        return found

    async def _ask(self, names: list[Name]) -> Mapping[Name, Thing]:
        """Queries names, one query at a time: a flood of unknown names holds one connection, not the pool."""
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
        self._watch.answered(version, asked_at)
        heard = self._watch.version
        if heard is not None and version >= heard and asked_at >= self._watch.changed_at:
            self._remember(version, things)
        return things

    def _remember(self, version: int, things: Mapping[Name, Thing]) -> None:
        if len(self._things) + len(things) > REMEMBERED_MAX:
            self._things.clear()
            self._concerned.clear()
        for name, thing in things.items():
            if name in self._things:
                self._drop(name)
            self._things[name] = version, thing
            for concerned in self._concerns(name, thing):
                self._concerned.setdefault(concerned, set()).add(name)

    def _evict(self, version: int, changes: Sequence[tuple[int, str]] | None) -> None:
        """Evicts what was read before it changed; everything older where the changed names are not known."""
        if changes is None:
            changes = [(version, concerned) for concerned in self._concerned]
        for changed, concerned in changes:
            for name in list(self._concerned.get(concerned, ())):
                if self._things[name][0] < changed:
                    self._drop(name)

    def _drop(self, name: Name) -> None:
        _, thing = self._things.pop(name)
        for concerned in self._concerns(name, thing):
            self._concerned[concerned].discard(name)
            if not self._concerned[concerned]:
                del self._concerned[concerned]
