"""A store that filled up after its statements were planned, and a count of the blocks that each of them reads."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.row_ids import Mint
from tests.store.house import House

DEAD = 500  # destinations that nothing can be delivered to
QUEUED_EACH = 60
LIVE, LIVE_QUEUED = "live.test", 400
AGENTS, UNREAD_EACH = 200, 100
WEBHOOKS, NOTICES_EACH = 200, 100
SCHEDULES = 5000
DELIVERED = 20_000
BODY = b'{"payload":"' + b"x" * 200 + b'"}'

_TABLES = "select c.oid::regclass::text from pg_class c where relkind = 'r' and relnamespace = 'public'::regnamespace"
_BLOCKS = (
    "select relid::regclass::text, coalesce(heap_blks_read + heap_blks_hit, 0)"
    " + coalesce(idx_blks_read + idx_blks_hit, 0) from pg_statio_user_tables"
)


class Single(Database):
    """A database of one connection, which keeps the plan that it made first."""

    def __init__(self, dsn: str, *, clock: Clock) -> None:
        super().__init__(dsn, clock=clock, pool_size=1, statement_timeout_seconds=120)

    async def begin(self) -> None:
        """Opens it: whatever it prepares from now on is planned for empty tables, and stays so."""
        await self.open()
        for table in await self.fetch(_TABLES):
            await self.execute(f"alter table {table[0]} set (autovacuum_enabled = off)")
        await self.execute("vacuum analyze")
        await self.execute("set plan_cache_mode = force_generic_plan")

    async def blocks(self, act: Callable[[], Awaitable[object]]) -> dict[str, int]:
        """How many blocks of each table and its indexes the act reads."""
        before = await self._read()
        await act()
        after = await self._read()
        return {table: after[table] - before[table] for table in after if after[table] > before[table]}

    async def _read(self) -> dict[str, int]:
        await self.execute("select pg_stat_force_next_flush()")
        await self.execute("select pg_stat_clear_snapshot()")
        return dict(await self.fetch(_BLOCKS))


@dataclass
class Crowd:
    """A crowded house."""

    house: House
    dead: list[str] = field(default_factory=lambda: [f"dead{n:04}.test" for n in range(DEAD)])
    agents: list[int] = field(default_factory=list)
    asked: list[UUID] = field(default_factory=list)  # messages that were replied to

    @property
    def database(self) -> Database:
        return self.house.database

    @property
    def mint(self) -> Mint:
        return self.house.mint

    async def fill(self) -> None:
        self.agents = [await self.house.agent(f"a{n}") for n in range(AGENTS)]
        async with self.database.connection() as connection:
            await self._queue(connection)
            await self._inboxes(connection)
            await self._webhooks(connection)
            await self._schedules(connection)

    async def _queue(self, connection: Any) -> None:
        now = self.house.clock.now()
        places = [place for place in self.dead for _ in range(QUEUED_EACH)] + [LIVE] * LIVE_QUEUED
        rows = await self._messages(connection, len(places))
        times = {
            "due": now - timedelta(seconds=60),
            "accepted_at": now,
            "expires_at": now + timedelta(days=7),
        }
        await _copy(
            connection,
            "deliveries",
            [
                {
                    "message": row,
                    "recipient": f"bob@{place}",
                    "address": f"bob@{place}",
                    "destination": place,
                    "expiry": "horizon",
                    **times,
                }
                for row, place in zip(rows, places, strict=True)
            ],
        )
        await _copy(
            connection,
            "destinations",
            [{"destination": p, "failures": 9, "open_until": now + timedelta(hours=1)} for p in self.dead],
        )
        await _copy(
            connection, "tallies", [{"id": self.mint(), "at": now, "accepted": len(rows), "finished": 0}]
        )

    async def _inboxes(self, connection: Any) -> None:
        self.asked = [self.mint() for _ in range(AGENTS)]
        places = [(agent, n) for n in range(UNREAD_EACH) for agent in self.agents]
        rows = await self._messages(connection, len(places), replies=[str(row) for row in self.asked])
        await _copy(
            connection,
            "entries",
            [{"message": row, "agent": agent} for row, (agent, _) in zip(rows, places, strict=True)],
        )
        now = self.house.clock.now()
        done = await self._messages(connection, DELIVERED)
        await _copy(
            connection,
            "settled",
            [
                {
                    "message": row,
                    "recipient": "bob@far.test",
                    "address": "bob@far.test",
                    "status": "delivered",
                    "settled_at": now,
                }
                for row in done
            ],
        )
        await _copy(
            connection,
            "receipts",
            [{"message": row, "address": "bob@far.test", "kind": "delivered"} for row in done],
        )
        await _copy(
            connection,
            "idempotency",
            [{"hash": row.bytes, "message": row, "content": row.bytes, "at": now} for row in done],
        )

    async def _messages(self, connection: Any, count: int, replies: list[str] | None = None) -> list[UUID]:
        rows, now = [self.mint() for _ in range(count)], self.house.clock.now()
        asked = [*(replies or ()), *([None] * count)][:count]
        await _copy(
            connection,
            "messages",
            [
                {
                    "id": row,
                    "sender": "bob@acme.test",
                    "proven": True,
                    "in_reply_to": to,
                    "body": BODY,
                    "accepted_at": now,
                }
                for row, to in zip(rows, asked, strict=True)
            ],
        )
        return rows

    async def _webhooks(self, connection: Any) -> None:
        now, hooks = self.house.clock.now(), [uuid4() for _ in range(WEBHOOKS)]
        await _copy(
            connection,
            "subscriptions",
            [
                {
                    "id": hook,
                    "url": "https://hooks.test/",
                    "events": [],
                    "about": [],
                    "status": "active",
                    "challenge": "abc",
                    "secret": b"sealed",
                    "created_at": now,
                    "proven_at": now,
                }
                for hook in hooks
            ],
        )
        await _copy(
            connection,
            "notices",
            [
                {
                    "id": uuid4(),
                    "subscription": hook,
                    "event": "message.failed",
                    "body": b"{}",
                    "at": now,
                    "due": now,
                    "until": now + timedelta(days=3),
                }
                for hook in hooks
                for _ in range(NOTICES_EACH)
            ],
        )

    async def _schedules(self, connection: Any) -> None:
        now = self.house.clock.now()
        await _copy(
            connection,
            "schedules",
            [
                {
                    "id": self.mint(),
                    "agent": self.agents[n % AGENTS],
                    "repeat": "0 0 * * *",
                    "body": json.dumps({"n": n}).encode(),
                    "created_at": now,
                    "next_at": now + timedelta(seconds=-1 if n < 20 else 3600),
                }
                for n in range(SCHEDULES)
            ],
        )


async def _copy(connection: Any, table: str, rows: list[dict[str, Any]]) -> None:
    columns = list(rows[0])
    await connection.copy_records_to_table(
        table, records=[tuple(row.values()) for row in rows], columns=columns
    )
