"""The bell: wakes those who wait for a commit, in this process or in another.

1. A waiter gets an ear before it looks, and a ring during the look is heard by the wait after it: so none is missed.
2. A ring means "look again" and carries no content: a needless one costs a look, so the bell rings in case of doubt.
3. A notice may be lost with its connection. After a reconnect every waiter is woken, and inboxes with waiters are
   polled every few seconds, by one statement for all.
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import asyncpg

from gateway.journal.journal import Journal
from gateway.protocol.errors import AMTPError
from gateway.store.database import WEATHER, Database
from gateway.store.inbox.inbox import with_unread
from gateway.store.wakeups.topics import EVERYONE, WORK, Topic, heard_in

CHANNEL = "amtp_inbox"
POLL_SECONDS = 5.0
POLL_SECONDS_DEAF = 1.0  # where LISTEN doesn't reach the server, or its line is down


class Ear:
    """The signal of one waiter. Wait by `rung`; look before and after."""

    __slots__ = ("_heard", "_hushed", "_waiting")

    def __init__(self) -> None:
        self._heard = False
        self._hushed = False
        self._waiting: asyncio.Future[None] | None = None

    def ring(self) -> None:
        self._heard = True
        self._wake()

    def hush(self) -> None:
        """Ends this wait and any later one with False: the client is gone."""
        self._hushed = True
        self._wake()

    async def rung(self, timeout_seconds: float) -> bool:
        """Waits; returns whether it rang since the last call or rings before the timeout."""
        if not self._has_news() and timeout_seconds > 0:
            loop = asyncio.get_running_loop()
            self._waiting = loop.create_future()
            alarm = loop.call_later(timeout_seconds, self._wake)
            try:
                await self._waiting
            finally:
                alarm.cancel()
                self._waiting = None
        heard, self._heard = self._heard, False
        return heard and not self._hushed

    def _has_news(self) -> bool:
        return self._heard or self._hushed

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


@contextmanager
def hushed_at(ending: asyncio.Event, ear: Ear) -> Iterator[None]:
    """Ends the wait when the client is gone, or the gateway stops."""
    over = asyncio.ensure_future(ending.wait())
    over.add_done_callback(lambda _: ear.hush())
    try:
        yield
    finally:
        over.cancel()


class Bell:
    """The wakeups of one process. Thousands may wait: each costs an ear, and all share one database connection."""

    def __init__(self, database: Database, journal: Journal) -> None:
        self._database = database
        self._journal = journal
        self._ears: dict[Topic, set[Ear]] = {}
        self._line: Any = None
        self._line_lost = asyncio.Event()

    @contextmanager
    def ear(self, topic: Topic) -> Iterator[Ear]:
        """Yields an ear for this topic, registered while the block runs."""
        ear = Ear()
        with self.listening(topic, ear):
            yield ear

    @contextmanager
    def listening(self, topic: Topic, ear: Ear) -> Iterator[None]:
        """Registers this ear for this topic while the block runs."""
        ears = self._ears.setdefault(topic, set())
        ears.add(ear)
        try:
            yield
        finally:
            ears.discard(ear)
            if not ears and self._ears.get(topic) is ears:
                del self._ears[topic]

    def only(self, topic: Topic) -> Ear | None:
        """Returns the ear that listens to this topic alone, if no other in this process does."""
        ears = self._ears.get(topic, ())
        return next(iter(ears)) if len(ears) == 1 else None

    def ring(self, topics: Iterable[Topic]) -> None:
        """Wakes the waiters of these topics in this process; other processes hear the notice of the transaction."""
        for topic in topics:
            for ear in self._ears.get(topic, ()):
                ear.ring()

    async def run(self) -> None:
        """Listens to other processes' notices until cancelled."""
        try:
            while True:
                await self._listen()
                await self._poll()
                self._line_lost.clear()
                deaf = self._line is None or self._line.is_closed()
                with suppress(TimeoutError):
                    await asyncio.wait_for(
                        self._line_lost.wait(), POLL_SECONDS_DEAF if deaf else POLL_SECONDS
                    )
        finally:
            self._drop_line()

    async def _listen(self) -> None:
        if not self._database.listens or (self._line is not None and not self._line.is_closed()):
            return
        self._drop_line()
        try:
            self._line = await self._database.line()
            self._line.add_termination_listener(lambda _: self._line_lost.set())
            await self._line.add_listener(CHANNEL, self._hear)
        except (*WEATHER, asyncpg.PostgresError) as failure:  # whatever it is, polls go on
            self._drop_line()
            self._journal.database_lost(failure)
        else:
            self.ring(list(self._ears))  # for what was committed while nobody listened

    def _hear(self, _line: object, backend: int, _channel: str, notice: object) -> None:
        if self._database.rings(backend):
            return
        self.ring(heard_in(str(notice)) if notice != EVERYONE else list(self._ears))

    async def _poll(self) -> None:
        """Rings inboxes that have unread mail, and all reply topics; workers poll by themselves."""
        inboxes = [topic for topic in self._ears if isinstance(topic, int)]
        self.ring([topic for topic in self._ears if isinstance(topic, str) and topic not in WORK])
        if inboxes:
            with suppress(AMTPError):  # the database is away; the next poll is soon
                self.ring(await with_unread(self._database, inboxes))

    def _drop_line(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.terminate()
