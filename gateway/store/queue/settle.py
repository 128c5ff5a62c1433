"""Settle, the counterpart of intake: outcomes are written in batches, with everything that follows from them.

A row is changed only while it has the token it was leased under: a worker whose lease ended changes nothing.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from gateway.journal.journal import Journal
from gateway.store.admitted import Admitted, Rider, write_riders
from gateway.store.database import WEATHER, Database
from gateway.store.intake.insertion import insert
from gateway.store.row_ids import Mint
from gateway.store.wakeups.topics import Topic, notice_of, topics_of

BATCH_MAX = 256
GATHER_SECONDS = 0.02  # between commits without a waiter: a small one costs as much as a large one
RETRY_SECONDS = 0.5  # between tries while the database is away; leases lapse meanwhile, and nothing is lost


class Settlement(msgspec.Struct, frozen=True):
    """The outcome of one leased delivery. Exactly one of `status`, `due` and `agent` is set and says which."""

    message: UUID
    recipient: str
    address: str
    token: int
    attempts: int
    first_attempt: datetime | None
    status: str | None = None  # final
    due: datetime | None = None  # to be tried again
    agent: int | None = None  # delivered into this inbox
    entry_address: str | None = None
    via: str | None = None
    code: str | None = None
    error: str | None = None
    details: str | None = None  # JSON
    inside: str | None = None  # the error as operators see it, where that says more
    dead_letter: bool = False
    report: bool = False  # its sender is told, where it may be told
    milliseconds: int | None = None
    expires_at: datetime | None = None  # of the message, for an entry
    follow_ups: tuple[Admitted, ...] = ()  # accepted in the same transaction, if this settlement takes effect
    riders: tuple[Rider, ...] = ()  # as the follow-ups

    @property
    def alone(self) -> bool:
        """Returns whether nothing else follows from it."""
        return self.agent is None and not self.follow_ups and not self.riders


# The rows come in the order in which everybody locks them. `any (array[…])` finds each by its key: a join by equality
# may be planned as one that reads the whole table, and then stays so.
_SETTLE = """
with u as (
    select * from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::timestamptz[], $7::bigint[],
                         $8::text[], $9::text[], $10::text[], $11::text[], $12::bool[], $13::int[], $14::timestamptz[],
                         $15::int[], $16::timestamptz[], $19::jsonb[], $20::text[])
        as u (message, recipient, address, token, status, due, agent, entry_address, via, code, error, dead,
              attempts, first_attempt, milliseconds, expires_at, details, inside)
), won as (
    select u.*, d.receipt, d.unproven from u cross join lateral (
        select receipt, unproven from deliveries
        where message = u.message and recipient = u.recipient and token = u.token for update
    ) d
), gone as (
    delete from deliveries d using won
    where d.message = any (array[won.message]) and d.recipient = won.recipient and won.due is null
    returning d.message, d.recipient
), again as (
    update deliveries d set due = won.due, token = null, last_code = won.code, last_error = won.error
    from won where d.message = any (array[won.message]) and d.recipient = won.recipient and won.due is not null
), s as (
    insert into settled (message, recipient, address, status, via, code, error, details, attempts, settled_at)
    select message, recipient, address, status, via, code, error, details, attempts, amtp_now()
    from won where status is not null
    on conflict (message, recipient) do update
    set status = excluded.status, via = excluded.via, code = excluded.code, error = excluded.error,
        details = excluded.details, attempts = excluded.attempts, settled_at = excluded.settled_at
), e as (
    insert into entries (message, agent, address, expires_at, delivered_at, receipt, unproven)
    select message, agent, entry_address, expires_at, amtp_now(), case when receipt = 'read' then true end, unproven
    from won where agent is not null
    on conflict do nothing
    returning message
), r as (
    insert into receipts (message, address, kind) select message, address, receipt from won
    where receipt is not null and (via = 'webhook' or agent is not null and receipt = 'delivered')
    on conflict do nothing
), l as (
    insert into dead_letters
        (message, recipient, address, failure_code, failure_reason, failure_details, attempts, first_attempt,
         last_attempt, at)
    select message, recipient, address, code, error, details, attempts, first_attempt, amtp_now(), amtp_now()
    from won where dead
), a as (
    insert into attempts (message, recipient, attempt, at, via, code, error, milliseconds)
    select message, recipient, attempts, amtp_now(), via, code, coalesce(inside, error), milliseconds
    from won where code is not null
    on conflict do nothing
), t as (
    insert into tallies (id, at, accepted, finished, entries)
    select $17::uuid, amtp_now(), 0, count(*), (select count(*) from e) from gone
), n as (
    select case when $18::text <> '' then pg_notify('amtp_inbox', $18) end
)
select message, recipient, token, (select count(*) from n) from won
"""


async def settle(line: Any, mint: Mint, settlements: Sequence[Settlement]) -> list[Settlement]:
    """Writes the settlements and their follow-ups in the open transaction; returns those that took effect."""
    batch = sorted(settlements, key=lambda s: (s.message, s.recipient))
    agents = {s.agent for s in batch if s.agent is not None}
    rows = await line.fetch(
        _SETTLE,
        [s.message for s in batch],
        [s.recipient for s in batch],
        [s.address for s in batch],
        [s.token for s in batch],
        [s.status for s in batch],
        [s.due for s in batch],
        [s.agent for s in batch],
        [s.entry_address for s in batch],
        [s.via for s in batch],
        [s.code for s in batch],
        [s.error for s in batch],
        [s.dead_letter for s in batch],
        [s.attempts for s in batch],
        [s.first_attempt for s in batch],
        [s.milliseconds for s in batch],
        [s.expires_at for s in batch],
        mint(),
        notice_of(agents),
        [s.details for s in batch],
        [s.inside for s in batch],
    )
    effective = {(row["message"], row["recipient"], row["token"]) for row in rows}
    kept = [s for s in batch if (s.message, s.recipient, s.token) in effective]
    follow_ups = [follow_up for s in kept for follow_up in s.follow_ups]
    if follow_ups:
        await insert(line, mint(), follow_ups)
    await write_riders(line, (rider for s in kept for rider in s.riders))
    return kept


class Settle:
    """The writer of outcomes: each transaction takes what waits. A failed write only delays: the leases expire."""

    def __init__(
        self,
        database: Database,
        mint: Mint,
        journal: Journal,
        *,
        committed: Callable[[Iterable[Topic]], None],
    ) -> None:
        self._database = database
        self._mint = mint
        self._journal = journal
        self._committed = committed
        self._waiting: list[tuple[Sequence[Settlement], asyncio.Future[list[Settlement]]]] = []
        self._size = 0  # settlements waiting
        self._arrived = asyncio.Event()
        self._hurry = asyncio.Event()
        self._gathered_at = 0.0  # on the loop's clock: until then outcomes gather
        self._line: Any = None
        self._stopping = False

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        """Returns the settlements that took effect, once they are committed."""
        future: asyncio.Future[list[Settlement]] = asyncio.get_running_loop().create_future()
        self._waiting.append((settlements, future))
        self._size += len(settlements)
        self._arrived.set()
        if self._size >= BATCH_MAX or not all(settlement.alone for settlement in settlements):
            self._hurry.set()
        return await future

    async def run(self) -> None:
        while True:
            while not self._waiting:
                if self._stopping:
                    self._drop_line()
                    return
                self._arrived.clear()
                await self._arrived.wait()
            await self._gather()
            count, size = 0, 0
            for settlements, _ in self._waiting:
                size += len(settlements)
                count += 1
                if size >= BATCH_MAX:
                    break
            taken, self._waiting = self._waiting[:count], self._waiting[count:]
            self._size -= size
            await self._write(taken)
            self._gathered_at = asyncio.get_running_loop().time() + GATHER_SECONDS

    def stop(self) -> None:
        self._stopping = True
        self._arrived.set()
        self._hurry.set()

    async def _gather(self) -> None:
        """Waits a moment so that settlements without a waiter share a commit, unless the last commit is long ago."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._gathered_at):
                await self._hurry.wait()
        if not self._stopping and self._size < 2 * BATCH_MAX:
            self._hurry.clear()

    async def _write(
        self, taken: list[tuple[Sequence[Settlement], "asyncio.Future[list[Settlement]]"]]
    ) -> None:
        batch = [settlement for settlements, _ in taken for settlement in settlements]
        while True:
            try:
                kept = await self._transact(batch)
                break
            except WEATHER as failure:
                # Written again under the same tokens: what took effect the first time is not there any more.
                self._journal.database_lost(failure)
                self._drop_line()
                if self._stopping:
                    kept = []
                    break
                await asyncio.sleep(RETRY_SECONDS)
            except asyncpg.PostgresError as failure:
                self._drop_line()
                if len(taken) > 1:
                    for one in taken:
                        await self._write([one])
                    return
                self._journal.unstorable(str(batch[0].message), failure)
                kept = []
                break
        effective = {(s.message, s.recipient, s.token) for s in kept}
        for settlements, future in taken:
            if not future.done():
                future.set_result([s for s in settlements if (s.message, s.recipient, s.token) in effective])
        topics = topics_of(follow_up for s in kept for follow_up in s.follow_ups)
        topics.update(s.agent for s in kept if s.agent is not None)
        if topics:
            self._committed(topics)

    async def _transact(self, batch: Sequence[Settlement]) -> list[Settlement]:
        if self._line is None or self._line.is_closed():
            self._line = await self._database.line(rings=True)
        await self._database.turn(self._line)
        if self._database.listens and all(settlement.alone for settlement in batch):
            return await settle(self._line, self._mint, batch)  # one statement is its own transaction
        async with self._line.transaction():
            return await settle(self._line, self._mint, batch)

    def _drop_line(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.terminate()
