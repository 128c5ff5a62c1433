"""Notices: those waiting for subscribers, those sent, and every attempt.

1. A notice is written in the transaction of what it tells of.
2. As in the queue, a lease has a token, and a result under another token changes nothing.
3. Targets are found by jumping from one to the next in the index, so a backlog of one costs the others nothing.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from gateway.features.notifications.subscriptions import KEPT_DAYS, subscribers_changed
from gateway.store.database import Database

CLAIM_MAX = 256
FAILURES_MAX = 5  # of a target in a row, before its breaker opens
REST_SECONDS_FIRST, REST_SECONDS_MAX = 2.0, 300.0  # of a breaker
LIFE = timedelta(days=3)  # of a notice; then it is given up
REPLAYED_MAX = 10_000  # by one request

# The agent of a subscription `s` is there to be told.
OWNED = "(s.agent is null or exists (select from agents a where a.id = s.agent and a.state = 'active'))"


@dataclass(frozen=True, slots=True)
class Notice:
    """A rider: one event for one subscriber."""

    id: UUID
    subscription: UUID
    event: str
    body: bytes

    @staticmethod
    async def write(line: Any, riders: Sequence["Notice"], /) -> None:
        """Inserts the notices whose subscription still takes them; one that waits already is not inserted again."""
        await line.execute(
            "insert into notices (id, subscription, event, body, at, due, until)"
            " select u.id, s.id, u.event, u.body, amtp_now(), amtp_now(), amtp_now() + $5"
            " from unnest($1::uuid[], $2::uuid[], $3::text[], $4::bytea[]) as u (id, subscription, event, body)"
            " join subscriptions s on s.id = u.subscription and s.proven_at is not null"
            " and (s.disabled_at is null or s.disabled_at > amtp_now() - make_interval(days => $6))"
            f" and {OWNED} order by u.id on conflict do nothing",
            [rider.id for rider in riders],
            [rider.subscription for rider in riders],
            [rider.event for rider in riders],
            [rider.body for rider in riders],
            LIFE,
            KEPT_DAYS,
        )


@dataclass(frozen=True, slots=True)
class DueNotice:
    """A leased notice, and its target. Attempts include the current one."""

    id: UUID
    subscription: UUID
    event: str
    body: bytes
    until: datetime
    token: int
    attempts: int
    url: str
    challenge: str
    secrets: tuple[bytes, ...]  # sealed
    shaky: bool  # its target failed so often that one at a time is enough


_CLAIM = f"""
with recursive waiting (subscription, due) as (
    (select subscription, due from notices order by subscription, due limit 1)
    union all
    select next.subscription, next.due from waiting w cross join lateral (
        select n.subscription, n.due from notices n where n.subscription > w.subscription
        order by n.subscription, n.due limit 1
    ) next
), ready as materialized (
    select s.*, case when s.failures >= $4 then 1 else $2 end as room
    from waiting w cross join lateral (select * from subscriptions where id = w.subscription offset 0) s
    where w.due <= amtp_now() and s.id not in (select unnest($1::uuid[]))
      and (s.open_until is null or s.open_until <= amtp_now()) and {OWNED}
), picked as (
    select n.place, r.* from ready r cross join lateral (
        select ctid as place from notices where r.status = 'active' and subscription = r.id and due <= amtp_now()
        order by due limit r.room for update skip locked
    ) n
    union all
    select n.place, r.* from ready r cross join lateral (
        select ctid as place from notices where r.status = 'pending' and subscription = r.id and due <= amtp_now()
            and event = 'challenge'
        for update skip locked
    ) n
    limit $3
)
update notices n
set due = amtp_now() + make_interval(secs => $5), token = $6, attempts = n.attempts + 1
from picked s where n.ctid = s.place
returning n.id, n.subscription, n.event, n.body, n.until, n.token, n.attempts, s.url, s.challenge,
          case when s.previous_until > amtp_now() then array[s.secret, s.previous] else array[s.secret] end,
          s.failures >= $4
"""


async def claim(
    database: Database,
    *,
    closed: Collection[UUID],
    per_target: int,
    limit: int,
    lease_seconds: float,
    token: int,
) -> list[DueNotice]:
    """Leases due notices, oldest first for each target that is not closed."""
    rows = await database.fetch(
        _CLAIM,
        list(closed),
        per_target,
        min(limit, CLAIM_MAX),
        FAILURES_MAX,
        float(lease_seconds),
        token,
    )
    return [DueNotice(*(*row[:9], tuple(row[9]), row[10])) for row in rows]


async def hand_back(database: Database, leased: Sequence[DueNotice]) -> None:
    """Releases leases: due at once, and not counted as attempts."""
    await database.execute(
        "update notices n set due = amtp_now(), token = null, attempts = n.attempts - 1"
        " from unnest($1::uuid[], $2::bigint[]) as u (id, token) where n.id = u.id and n.token = u.token",
        [due.id for due in leased],
        [due.token for due in leased],
    )


@dataclass(frozen=True, slots=True)
class Tried:
    """The result of one attempt: taken, to be retried at `again`, or given up."""

    due: DueNotice
    told: bool
    again: datetime | None = None
    status: int | None = None
    error: str | None = None
    milliseconds: int = 0


_SETTLE = """
with u as (
    select * from unnest($1::uuid[], $2::bigint[], $3::bool[], $4::timestamptz[], $5::int[], $6::text[], $7::int[])
        as u (id, token, told, again, status, error, milliseconds)
), mine as (
    select n.*, u.told, u.again, u.status, u.error, u.milliseconds
    from (select * from u order by id) u
    cross join lateral (select * from notices where id = u.id and token = u.token for update) n
), gone as (
    delete from notices n using mine m where n.id = any (array[m.id]) and m.again is null
), later as (
    update notices n set due = m.again, token = null
    from mine m where n.id = any (array[m.id]) and m.again is not null
), ended as (
    insert into notices_ended (id, subscription, event, body, at, ended_at, told)
    select id, subscription, event, body, at, amtp_now(), told from mine
    where again is null and event not in ('challenge', 'webhook.test')
    on conflict (id) do update set body = excluded.body, at = excluded.at, ended_at = excluded.ended_at,
        told = excluded.told
), tried as (
    insert into notice_attempts (notice, subscription, event, attempt, at, status, error, milliseconds)
    select id, subscription, event, attempts, amtp_now(), status, error, milliseconds from mine
)
select id from mine
"""

# One that was told something is well; else its failures count, and its rest grows with them.
_HEALTH = """
with u as (
    select * from unnest($1::uuid[], $2::bool[], $3::int[], $4::text[]) as u (id, told, failed, error)
), mine as (
    select s.id, s.failures + u.failed as failures, u.told, u.error
    from subscriptions s join u using (id) order by s.id for update of s
)
update subscriptions s set
    failures = case when m.told then 0 else m.failures end,
    failing_since = case when m.told then null else coalesce(s.failing_since, amtp_now()) end,
    warned_at = case when m.told then null else s.warned_at end,
    open_until = case when m.told or m.failures < $5 then null
                      else amtp_now() + make_interval(secs => least($6 * 2 ^ least(m.failures - $5, 30), $7)) end,
    last_success = case when m.told then amtp_now() else s.last_success end,
    last_failure = case when m.error is null then s.last_failure else amtp_now() end,
    last_error = coalesce(m.error, s.last_error)
from mine m where s.id = m.id
returning s.id, s.open_until is not null as closed
"""


async def settle(database: Database, tries: Sequence[Tried]) -> tuple[list[Tried], list[UUID]]:
    """Writes the results of attempts; returns those that took effect, and the targets whose breaker opened."""
    async with database.transaction() as connection:
        rows = await connection.fetch(
            _SETTLE,
            [tried.due.id for tried in tries],
            [tried.due.token for tried in tries],
            [tried.told for tried in tries],
            [tried.again for tried in tries],
            [tried.status for tried in tries],
            [tried.error for tried in tries],
            [tried.milliseconds for tried in tries],
        )
        effective = {row["id"] for row in rows}
        kept = [tried for tried in tries if tried.due.id in effective]
        closed = await _note_health(connection, kept)
        await _activate(connection, [t.due for t in kept if t.told and t.due.event == "challenge"])
    return kept, closed


async def _note_health(connection: Any, kept: Sequence[Tried]) -> list[UUID]:
    told: dict[UUID, bool] = {}
    failed: dict[UUID, int] = {}
    errors: dict[UUID, str] = {}
    for tried in kept:
        target = tried.due.subscription
        told[target] = told.get(target, False) or tried.told
        if tried.error is not None:
            failed[target] = failed.get(target, 0) + 1
            errors[target] = tried.error
    rows = await connection.fetch(
        _HEALTH,
        list(told),
        list(told.values()),
        [failed.get(target, 0) for target in told],
        [errors.get(target) for target in told],
        FAILURES_MAX,
        REST_SECONDS_FIRST,
        REST_SECONDS_MAX,
    )
    return [row["id"] for row in rows if row["closed"]]


async def _activate(connection: Any, answered: Sequence[DueNotice]) -> None:
    """Activates subscriptions that answered their latest challenge; an earlier challenge proves an earlier URL."""
    for due in answered:
        await subscribers_changed(connection)
        await connection.execute(
            "update subscriptions set status = 'active', proven_at = coalesce(proven_at, amtp_now())"
            " where id = $1 and challenge = $2 and status = 'pending'",
            due.subscription,
            due.challenge,
        )


@dataclass(frozen=True, slots=True)
class NoticeAttempt:
    number: int
    notice: UUID
    event: str
    attempt: int
    at: datetime
    status: int | None
    error: str | None
    milliseconds: int


async def attempts(
    database: Database, subscription: UUID, *, before: int | None, limit: int
) -> list[NoticeAttempt]:
    """Returns recent attempts, newest first."""
    rows = await database.fetch(
        "select number, notice, event, attempt, at, status, error, milliseconds from notice_attempts"
        " where subscription = $1 and ($2::bigint is null or number < $2) order by number desc limit $3",
        subscription,
        before,
        limit,
    )
    return [NoticeAttempt(*row) for row in rows]


async def challenged_within(database: Database, subscription: UUID, seconds: float) -> bool:
    """Returns whether its target was sent a challenge within these seconds."""
    found: bool = await database.fetchval(
        "select exists (select from notice_attempts where subscription = $1 and event = 'challenge'"
        " and at > amtp_now() - make_interval(secs => $2))",
        subscription,
        float(seconds),
    )
    return found


async def waiting(database: Database, subscription: UUID) -> int:
    count: int = await database.fetchval(
        "select count(*) from (select from notices where subscription = $1 limit $2) as few",
        subscription,
        REPLAYED_MAX,
    )
    return count


async def replay(database: Database, subscription: UUID, since: datetime, event: str | None = None) -> int:
    """Queues ended notices since then again under their ids, oldest first; returns their number."""
    done = await database.execute(
        "with again as (delete from notices_ended where id in (select id from notices_ended"
        "     where subscription = $1 and at >= $2 and ($5::text is null or event = $5)"
        "     order by at limit $3 for update skip locked) returning *)"
        " insert into notices (id, subscription, event, body, at, due, until)"
        " select id, subscription, event, body, at, least(at, amtp_now()), amtp_now() + $4 from again"
        " on conflict do nothing",
        subscription,
        since,
        REPLAYED_MAX,
        LIFE,
        event,
    )
    return int(done.split()[-1])
