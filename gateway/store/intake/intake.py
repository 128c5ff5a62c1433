"""Intake: commits a message before its sender is answered. One writer per process; each transaction takes what waits.

The rules, in the order they are kept:

1. Nobody is answered before COMMIT.
2. Keys and ids are inserted sorted by hash, in one order everywhere, so two processes never deadlock over them.
3. A batch is undecided if the connection broke after COMMIT was sent. It is decided by inserting its tally again: that
   waits for a predecessor still at work, and an existing tally proves the batch. A plain look would be a race.
4. Where the tally was missing, its insertion, as zero, decides against the batch, which is retried under another id.
   An old transaction that arrives late then conflicts with that tally, and fails.
5. A row that fails alone is refused alone.
6. A batch without riders and without known keys or ids is one statement, which is its own transaction.
7. A commit costs as much as several messages: where only a few wait when one ends, they wait a moment for others.
   A message that comes alone never waits.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from time import monotonic
from typing import Any
from uuid import UUID

import asyncpg

from gateway.config.sections import LimitSettings
from gateway.journal.journal import Journal
from gateway.protocol.errors import AMTPError, Code
from gateway.store.admitted import Admitted
from gateway.store.database import WEATHER, Database, told
from gateway.store.intake.duplicates import originals
from gateway.store.intake.insertion import insert, insert_unseen
from gateway.store.intake.uniqueness import Original, Repeat, claim, hashes_of, may_be_ours, wanted_of
from gateway.store.row_ids import Mint
from gateway.store.wakeups.direct import Promises
from gateway.store.wakeups.topics import Topic

LIMITS = LimitSettings()
UNDECIDED_SECONDS_MAX = 30.0  # how long a batch in doubt is asked after before its senders hear "temporary"
PACE_SECONDS = 0.002  # from one batch's begin to the next, as long as fewer than these wait for it
FEW = 16
RECIPIENT_BYTES = 8192  # what a recipient's row counts for in a batch: it takes the time of so many bytes
REPEATS_MAX = 8  # of a batch the database asked us to repeat


@dataclass(slots=True)
class _Waiting:
    admitted: Admitted
    hashes: dict[str, bytes]
    outcome: "asyncio.Future[Repeat | None]"


@dataclass(slots=True)
class _Batch:
    id: UUID
    waiting: list[_Waiting] = field(default_factory=list)
    promises: Promises = field(default_factory=Promises)


@dataclass(frozen=True, slots=True)
class _Written:
    """The result of a written batch: the repetitions found, and when the others were accepted, where that is known."""

    repeats: dict[UUID, Repeat]
    at: datetime | None


class Intake:
    """The writer of admitted messages: answers each when it is committed, or with the reason why it is not."""

    def __init__(
        self,
        database: Database,
        mint: Mint,
        journal: Journal,
        *,
        committed: Callable[[Iterable[Topic]], None],
        promise: Callable[[Iterable[Admitted]], Promises] = lambda _: Promises(),
        limits: LimitSettings = LIMITS,
    ) -> None:
        self._database = database
        self._mint = mint
        self._journal = journal
        self._committed = committed  # told what rings, after each commit
        self._promise = promise
        self._limits = limits
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._line: Any = None
        self._telling: set[asyncio.Task[None]] = set()
        self._stopping = False

    def adopt(self, limits: LimitSettings) -> None:
        """Applies other limits from the next message on."""
        self._limits = limits

    async def commit(self, admitted: Admitted) -> Repeat | None:
        """Returns when the message is committed (None) or known to be a repetition; raises otherwise."""
        if self._stopping or len(self._queue) >= self._limits.waiting_messages:
            raise AMTPError(
                Code.QUEUE_FULL, "Too many messages wait to be stored; try again shortly.", retry_after=1
            )
        waiting = _Waiting(admitted, hashes_of(admitted), asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._arrived.set()
        return await waiting.outcome

    async def run(self) -> None:
        """Runs the writer. Ends after `stop` when the queue is empty."""
        while True:
            while not self._queue:
                if self._stopping:
                    await self._drop_line()
                    await asyncio.gather(*self._telling)
                    return
                self._arrived.clear()
                await self._arrived.wait()
            began = monotonic()
            await self._write(self._gather())
            rest = began + PACE_SECONDS - monotonic()
            if rest > 0 and 0 < len(self._queue) < FEW:
                await asyncio.sleep(rest)

    def stop(self) -> None:
        self._stopping = True
        self._arrived.set()

    def _gather(self) -> _Batch:
        """Takes the next batch from the queue, up to the limits; a second message with the same key or id waits."""
        batch, seen, later, size = _Batch(self._mint()), set[bytes](), [], 0
        while self._queue and len(batch.waiting) < self._limits.batch_messages:
            waiting = self._queue.popleft()
            admitted = waiting.admitted
            rows = len(admitted.entries) + len(admitted.deliveries)
            size += len(admitted.message.body) + rows * RECIPIENT_BYTES
            if size > self._limits.batch_bytes and batch.waiting:
                self._queue.appendleft(waiting)
                break
            hashes = waiting.hashes.values()
            if seen.isdisjoint(hashes):
                seen.update(hashes)
                batch.waiting.append(waiting)
            else:
                later.append(waiting)
        self._queue.extendleft(reversed(later))
        return batch

    async def _write(self, batch: _Batch) -> None:
        """Commits the batch and answers everyone in it; halves it where one row makes it fail."""
        started = monotonic()
        batch.promises = self._promise(waiting.admitted for waiting in batch.waiting)
        try:
            written = await self._settled(batch)
        except WEATHER as failure:
            batch.promises.break_off()
            self._journal.database_lost(failure)
            await self._drop_line()
            self._refuse(batch.waiting, told(failure))
            self._refuse(self._queue, told(failure))  # they would only wait for the same answer
            self._queue.clear()
        except asyncpg.PostgresError as failure:
            batch.promises.withdraw()
            await self._drop_line()
            if len(batch.waiting) == 1:
                self._journal.unstorable(batch.waiting[0].admitted.message.message_id, failure)
                self._refuse(batch.waiting, told(failure))
                return
            middle = len(batch.waiting) // 2
            for half in (batch.waiting[:middle], batch.waiting[middle:]):
                await self._write(_Batch(self._mint(), half))
        else:
            self._journal.batch_committed(len(batch.waiting), monotonic() - started)
            self._answer(batch, written)

    async def _settled(self, batch: _Batch) -> _Written:
        """Writes until the outcome is known; retries what the database asks to be retried."""
        for _ in range(REPEATS_MAX):
            try:
                return await self._transact(batch)
            except asyncpg.TransactionRollbackError:
                await self._line.execute("rollback")
            except _Undecided as doubt:
                await self._drop_line()
                if await self._happened(batch):
                    return _Written(doubt.repeats, None)
                batch.id = self._mint()
        raise TimeoutError("the database kept asking for a repetition")

    async def _transact(self, batch: _Batch) -> _Written:
        line = await self._connected()
        if self._database.listens and (at := await _insert_at_once(line, batch)):
            return _Written({}, at)
        await line.execute("begin")  # behind a pooler always: it gives a statement alone to several servers
        repeats = await claim(line, [(w.admitted, w.hashes) for w in batch.waiting])
        new = [w.admitted for w in batch.waiting if w.admitted.message.row not in repeats]
        at = await insert(line, batch.id, new, batch.promises.places) if new else None
        try:
            await line.execute("commit")
        except WEATHER as failure:
            raise _Undecided(repeats) from failure
        return _Written(repeats, at)

    async def _happened(self, batch: _Batch) -> bool:
        """Returns whether a batch whose COMMIT got no answer was committed; if not, makes sure it never will be."""
        deadline = asyncio.get_running_loop().time() + UNDECIDED_SECONDS_MAX
        while True:
            try:
                line = await self._connected()
                accepted: int = await line.fetchval(_DECIDE, batch.id)
                return accepted > 0
            except WEATHER as failure:
                await self._drop_line()
                if asyncio.get_running_loop().time() > deadline:
                    raise
                self._journal.database_lost(failure)
                await asyncio.sleep(0.1)

    def _answer(self, batch: _Batch, written: _Written) -> None:
        new: list[Admitted] = []
        repeated: list[tuple[_Waiting, Repeat]] = []
        for waiting in batch.waiting:
            repeat = written.repeats.get(waiting.admitted.message.row)
            if repeat is not None:
                repeated.append((waiting, repeat))
                continue
            new.append(waiting.admitted)
            if not waiting.outcome.done():
                waiting.outcome.set_result(None)
        if repeated:
            telling = asyncio.create_task(self._tell(repeated))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)
        if topics := batch.promises.keep(new, written.at):
            self._committed(topics)

    async def _tell(self, repeated: Sequence[tuple[_Waiting, Repeat]]) -> None:
        """Answers the repetitions of one batch with the state of their originals, by one query."""
        same = {repeat.row for _, repeat in repeated if repeat.same}
        known: Mapping[UUID, Original] = {}
        try:
            if same:
                with suppress(AMTPError, asyncpg.PostgresError, ValueError):  # each looks for itself then
                    known = await originals(self._database, same)
        finally:  # nobody is left waiting, whatever it was
            for waiting, repeat in repeated:
                if not waiting.outcome.done():
                    original = known.get(repeat.row) if repeat.same else None
                    waiting.outcome.set_result(replace(repeat, original=original))

    def _refuse(self, refused: Iterable[_Waiting], error: AMTPError) -> None:
        for waiting in refused:
            if not waiting.outcome.done():
                waiting.outcome.set_exception(error)

    async def _connected(self) -> Any:
        if self._line is None or self._line.is_closed():
            self._line = await self._database.line(rings=True)
        await self._database.turn(self._line)
        return self._line

    async def _drop_line(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.terminate()


class _Undecided(Exception):
    """A COMMIT that was sent and got no answer."""

    def __init__(self, repeats: dict[UUID, Repeat]) -> None:
        self.repeats = repeats


async def _insert_at_once(line: Any, batch: _Batch) -> datetime | None:
    """Writes the batch by one statement and returns the time; writes nothing and returns None where one is not enough."""
    new = [waiting.admitted for waiting in batch.waiting]
    if any(admitted.riders or may_be_ours(admitted) for admitted in new):
        return None
    wanted = wanted_of([(waiting.admitted, waiting.hashes) for waiting in batch.waiting])
    try:
        if wanted:
            return await insert_unseen(line, batch.id, new, batch.promises.places, wanted)
        return await insert(line, batch.id, new, batch.promises.places)
    except WEATHER as failure:
        if _told_no(failure):
            raise
        raise _Undecided({}) from failure


def _told_no(failure: BaseException) -> bool:
    """Returns whether the server itself reported that a statement failed. A lost connection or a shutdown proves nothing."""
    return (
        isinstance(failure, asyncpg.PostgresError)
        and not isinstance(failure, asyncpg.PostgresConnectionError)
        and failure.severity_en == "ERROR"
    )


# Waits for a batch still at work under this id. A batch that was written has accepted somebody.
_DECIDE = """
insert into tallies as t (id, at, accepted, finished) values ($1, amtp_now(), 0, 0)
on conflict (id) do update set accepted = t.accepted
returning accepted
"""
