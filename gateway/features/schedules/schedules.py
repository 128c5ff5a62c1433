"""Schedules: each is a row with its next tick, and the process that locks the row sends what is due.

1. A tick's message, and the tick after it, are committed together: however many processes run or crash, each tick is
   sent once. Several missed ticks are sent as one.
2. The key under which a schedule was handed in counts as any message's does.
3. A schedule ends with its agent, and its row stays for a while to show that.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.protocol.cron import Plan
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.status import ScheduleState as State
from gateway.store.admitted import Admitted, write_riders
from gateway.store.audit import Audit
from gateway.store.database import Database
from gateway.store.intake.duplicates import repeat_in
from gateway.store.intake.insertion import insert
from gateway.store.intake.uniqueness import claim, hashes_of
from gateway.store.row_ids import Mint

FIRED_AT_ONCE = 50  # in one transaction, so that its rows are not held for long
OPERATOR, OWNER = "Cancelled by an operator.", "Cancelled by its agent."
OVER = "Its last tick is over."

_SHOWN = (
    "s.id, coalesce(s.public_id, s.id::text), a.name, s.repeat, s.created_at, s.next_at, s.ends_at, s.last_at,"
    " s.ticks, s.ended_at, s.end_reason, s.body"
)


@dataclass(frozen=True, slots=True)
class Schedule:
    id: UUID
    message_id: str
    agent: str
    repeat: str
    created_at: datetime
    next_at: datetime | None
    ends_at: datetime | None
    last_at: datetime | None
    ticks: int
    ended_at: datetime | None
    end_reason: str | None
    body: bytes

    @property
    def state(self) -> State:
        return State(self.id, self.repeat, self.next_at, self.ends_at)


@dataclass(frozen=True, slots=True)
class Tick:
    """The message of one tick of a schedule, and the time of the next."""

    schedule: UUID
    message: Admitted | None  # None: every recipient was refused
    report: Admitted | None  # to its agent, where a recipient was refused
    next_at: datetime | None


class Schedules:
    """The register of schedules."""

    def __init__(
        self, database: Database, mint: Mint, audit: Audit, *, per_agent_max: Callable[[], int]
    ) -> None:
        self._database = database
        self._mint = mint
        self._audit = audit
        self._per_agent_max = per_agent_max  # as the configuration has it now

    async def add(self, admitted: Admitted, plan: Plan, key: str | None = None) -> Schedule:
        """Stores the message, to be sent at every tick; returns the existing schedule for a repeated key."""
        message = admitted.message
        async with self._database.transaction() as connection:
            agent = await self._owner(connection, message.sender.name)
            repeats = await claim(connection, [(admitted, hashes_of(admitted))])
            if (seen := repeats.get(message.row)) is not None:
                await repeat_in(connection, self._mint, admitted, seen.row)
                return await _known(connection, seen.row)
            await self._refuse_too_many(connection, agent)
            await connection.execute(
                "insert into schedules (id, public_id, agent, repeat, body, created_at, next_at, ends_at, key)"
                " values ($1, $2, $3, $4, $5, amtp_now(), $6, $7, $8)",
                message.row,
                None if message.minted else message.message_id,
                agent,
                plan.repeat,
                message.body,
                plan.first,
                plan.ends,
                key,
            )
            await write_riders(connection, admitted.riders)
            return await _known(connection, message.row)

    async def _owner(self, connection: Any, name: str) -> int:
        """Returns the agent's id, locked so that it is neither retired nor given another schedule meanwhile."""
        agent: int | None = await connection.fetchval(
            "select id from agents where name = $1 and state = 'active' for no key update", name
        )
        if agent is None:
            raise AMTPError(
                Code.SENDER_NOT_ALLOWED,
                f"No active agent {name} is registered here, and a schedule needs one: register it first.",
                {"field": "sender"},
            )
        return agent

    async def _refuse_too_many(self, connection: Any, agent: int) -> None:
        count: int = await connection.fetchval(
            "select count(*) from schedules where agent = $1 and next_at is not null", agent
        )
        if count >= (limit := self._per_agent_max()):
            raise AMTPError(
                Code.POLICY_DENIED,
                f"The agent has {count} schedules, which is all it may have: cancel one first.",
                {"field": "headers.repeat", "limit": limit},
            )

    async def find(self, *, agent: str | None, after: UUID | None, limit: int) -> list[Schedule]:
        """Returns active schedules, oldest first: of one agent, or of all."""
        rows = await self._database.fetch(
            f"select {_SHOWN} from schedules s join agents a on a.id = s.agent"
            " where s.next_at is not null and ($1::text is null or a.name = $1 and a.state <> 'removed')"
            " and ($2::uuid is null or s.id > $2) order by s.id limit $3",
            agent,
            after,
            limit,
        )
        return [Schedule(*row) for row in rows]

    async def cancel(self, schedule: UUID, *, agent: str | None, actor: str) -> Schedule | None:
        """Ends a schedule: an agent its own, an operator any, which is audited. Repeating it changes nothing."""
        async with self._database.transaction() as connection:
            ended = await connection.fetchval(
                "update schedules s set next_at = null, ended_at = amtp_now(), end_reason = $3"
                " from agents a where a.id = s.agent and s.id = $1 and s.next_at is not null"
                " and ($2::text is null or a.name = $2) returning a.name",
                schedule,
                agent,
                OPERATOR if agent is None else OWNER,
            )
            found = await _find(connection, schedule)
            if ended is not None and agent is None:
                await self._audit.write(
                    connection, actor, "schedule.cancelled", str(schedule), {"agent": ended}
                )
        return found if found is not None and agent in (None, found.agent) else None

    async def fire(self, tick: Callable[[Schedule], Awaitable[Tick | None]]) -> list[Tick]:
        """Sends some of the due ticks; one for which `tick` returns None stays due."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                f"select {_SHOWN} from schedules s join agents a on a.id = s.agent"
                " where s.next_at <= amtp_now() order by s.next_at limit $1 for update of s skip locked",
                FIRED_AT_ONCE,
            )
            if not rows:
                return []
            found = [await tick(Schedule(*row)) for row in rows]
            ticks = [each for each in found if each is not None]
            seen = await self._send(connection, [each.message for each in ticks if each.message is not None])
            reports = [each.report for each in ticks if each.report is not None]
            if reports:
                await insert(connection, self._mint(), reports)
            await connection.executemany(_ADVANCE, [_advance(each) for each in ticks])
        return [
            replace(each, message=None) if each.message and each.message.message.row in seen else each
            for each in ticks
        ]

    async def _send(self, connection: Any, due: Sequence[Admitted]) -> Collection[UUID]:
        """Commits the messages; returns those whose derived ids exist already, which means that they were sent."""
        seen = await claim(connection, [(admitted, hashes_of(admitted)) for admitted in due])
        new = [admitted for admitted in due if admitted.message.row not in seen]
        if new:
            await insert(connection, self._mint(), new)
        return seen

    async def forget(self, days: int) -> None:
        """Deletes schedules that ended so long ago that their keys are gone, too."""
        await self._database.execute(
            "delete from schedules where ended_at < amtp_now() - make_interval(days => $1)", days
        )


async def _find(connection: Any, schedule: UUID) -> Schedule | None:
    row = await connection.fetchrow(
        f"select {_SHOWN} from schedules s join agents a on a.id = s.agent where s.id = $1", schedule
    )
    return None if row is None else Schedule(*row)


async def _known(connection: Any, schedule: UUID) -> Schedule:
    found = await _find(connection, schedule)
    if found is None:
        raise AMTPError(Code.CONFLICT, "That schedule ended long ago: send another one under a new key.")
    return found


def _advance(tick: Tick) -> tuple[object, ...]:
    return tick.schedule, tick.next_at, tick.message is not None, OVER


_ADVANCE = """
update schedules
set last_at = case when $3 then next_at else last_at end, ticks = ticks + $3::int, next_at = $2,
    ended_at = case when $2::timestamptz is null then amtp_now() end,
    end_reason = case when $2::timestamptz is null then $4 end
where id = $1
"""
