"""Destinations for operators: shown, paused, resumed, flushed, reset. Workers learn of a change within a second."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.store.audit import Audit
from gateway.store.database import Database
from gateway.store.wakeups.topics import DESTINATIONS, call_workers


@dataclass(frozen=True, slots=True)
class DestinationState:
    """A destination's backlog, and what all processes know of it."""

    name: str
    queued: int = 0
    held: int = 0
    under_way: int = 0
    due: int = 0  # of the queued ones, not under way: could start at once
    scheduled: int = 0  # their senders want them to go later
    oldest: datetime | None = None  # acceptance of the longest waiting one
    next_due: datetime | None = None  # of those not due yet
    last_attempt: datetime | None = None
    failures: int = 0
    open_until: datetime | None = None  # while the breaker is open
    last_error: str | None = None
    last_failure: datetime | None = None
    last_success: datetime | None = None
    paused_at: datetime | None = None  # while it is paused
    paused_by: str | None = None
    pause_reason: str | None = None
    paused_until: datetime | None = None


_COUNTED = """
select destination,
       count(*) filter (where state = 'queued') as queued,
       count(*) filter (where state = 'held') as held,
       count(*) filter (where token is not null and due > amtp_now()) as under_way,
       count(*) filter (where state = 'queued' and due <= amtp_now()) as due,
       count(*) filter (where state = 'queued' and attempts = 0 and due > amtp_now()) as scheduled,
       min(accepted_at) as oldest,
       min(due) filter (where state = 'queued' and token is null and due > amtp_now()) as next_due,
       max(last_attempt) as last_attempt
from deliveries {which} group by destination
"""

_PAUSED = "(n.paused_at is not null and (n.paused_until is null or n.paused_until > amtp_now()))"

_SHOWN = f"""
select destination, coalesce(q.queued, 0), coalesce(q.held, 0), coalesce(q.under_way, 0), coalesce(q.due, 0),
       coalesce(q.scheduled, 0), q.oldest, q.next_due, q.last_attempt,
       coalesce(n.failures, 0), case when n.open_until > amtp_now() then n.open_until end,
       coalesce(n.last_error, w.last_error), n.last_failure, n.last_success,
       case when {_PAUSED} then n.paused_at end, case when {_PAUSED} then n.paused_by end,
       case when {_PAUSED} then n.pause_reason end, case when {_PAUSED} then n.paused_until end
from ({_COUNTED}) q full join (select * from destinations {{which}}) n using (destination)
left join lateral (
    select last_error from deliveries d where d.destination = q.destination and d.last_error is not null
    order by last_attempt desc nulls last limit {{errors}}
) w on true
"""


async def destinations(database: Database, *, after: str, limit: int) -> list[DestinationState]:
    """Returns the destinations that have mail or are known for something, by name."""
    rows = await database.fetch(
        f"{_SHOWN.format(which='where destination > $1', errors=0)} order by destination limit $2",
        after,
        limit,
    )
    return [DestinationState(*row) for row in rows]


async def destination(database: Database, name: str) -> DestinationState:
    """Returns one destination, whether or not it has mail."""
    row = await database.fetchrow(_SHOWN.format(which="where destination = $1", errors=1), name)
    return DestinationState(name) if row is None else DestinationState(*row)


async def destinations_named(database: Database, names: Collection[str]) -> dict[str, DestinationState]:
    """Returns those of the named destinations that have mail or are known for something."""
    rows = await database.fetch(_SHOWN.format(which="where destination = any ($1)", errors=1), list(names))
    return {row[0]: DestinationState(*row) for row in rows}


class Traffic:
    """The operators' actions; each returns how many deliveries it changed."""

    def __init__(self, database: Database, audit: Audit) -> None:
        self._database = database
        self._audit = audit

    async def pause(self, name: str, *, actor: str, reason: str, seconds: int | None) -> None:
        """Stops new deliveries there until the time is over or an operator resumes it."""
        async with self._database.transaction() as connection:
            await connection.execute(
                "insert into destinations (destination, paused_at, paused_by, pause_reason, paused_until)"
                " values ($1, amtp_now(), $2, $3, amtp_now() + make_interval(secs => $4::int))"
                " on conflict (destination) do update set paused_at = excluded.paused_at,"
                " paused_by = excluded.paused_by, pause_reason = excluded.pause_reason,"
                " paused_until = excluded.paused_until",
                name,
                actor,
                reason,
                seconds,
            )
            await call_workers(connection, DESTINATIONS)
            details: dict[str, Any] = {"reason": reason, "seconds": seconds}
            await self._audit.write(connection, actor, "destination.pause", name, details)

    async def resume(self, name: str, *, actor: str) -> None:
        await self._change(
            "update destinations set paused_at = null, paused_by = null, pause_reason = null, paused_until = null"
            " where destination = $1 and paused_at is not null",
            name,
            "resume",
            actor,
        )

    async def reset(self, name: str, *, actor: str) -> None:
        """Closes the breaker. Waiting deliveries keep their next attempt; flush makes them due."""
        await self._change(
            "update destinations set failures = 0, open_until = null, unreachable = false"
            " where destination = $1 and (failures > 0 or open_until is not null)",
            name,
            "reset",
            actor,
        )

    async def flush(self, name: str, *, actor: str) -> int:
        """Makes deliveries due that wait for a next attempt or behind the breaker; returns their number.

        Deliveries that their sender scheduled for later, or that an operator holds, stay as they are.
        """
        async with self._database.transaction() as connection:
            await connection.execute(
                "update destinations set open_until = amtp_now() where destination = $1 and open_until > amtp_now()",
                name,
            )
            await connection.execute(
                "update deliveries set due = amtp_now() where destination = $1 and state = 'queued'"
                " and token is null and attempts > 0 and due > amtp_now()",
                name,
            )
            flushed: int = await connection.fetchval(
                "select count(*) from deliveries where destination = $1 and state = 'queued' and due <= amtp_now()",
                name,
            )
            await self._tell(connection, name, "flush", actor, flushed)
        return flushed

    async def _change(self, statement: str, name: str, act: str, actor: str) -> int:
        async with self._database.transaction() as connection:
            changed = int((await connection.execute(statement, name)).split()[-1])
            await self._tell(connection, name, act, actor, changed)
        return changed

    async def _tell(self, connection: Any, name: str, act: str, actor: str, changed: int) -> None:
        if changed:
            await call_workers(connection, DESTINATIONS)
            await self._audit.write(connection, actor, f"destination.{act}", name, {"changed": changed})
