"""The queue for operators: shown, and changed by message or by a selection.

1. A leased delivery is being carried at this moment: it is not changed, and is counted as busy.
2. Each action is audited, in the transaction that did it.
3. One action changes a bounded number of rows; it tells when there are more.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from typing import Any
from uuid import UUID

from gateway.store.admitted import Admitted, Rider, write_riders
from gateway.store.audit import Audit
from gateway.store.database import Database
from gateway.store.intake.insertion import insert
from gateway.store.messages.messages import row_of
from gateway.store.row_ids import Mint
from gateway.store.wakeups.topics import QUEUE, call_workers

CHANGED_MAX = 10_000  # deliveries by one act
CANCELLED_MAX = 1000  # each may cause a report
ATTEMPTS_SHOWN_MAX = 200  # of one delivery: more than it is ever tried
CANCELLED = "Cancelled by an operator."


class Act(StrEnum):
    """The actions of an operator on waiting deliveries."""

    HOLD = "hold"
    RELEASE = "release"
    RETRY = "retry"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Selection:
    """Conditions on live deliveries; all that are given must hold."""

    ids: tuple[str, ...] | None = (
        None  # public ids of their messages, or rows, of which each names one message
    )
    sender: str | None = None
    recipient: str | None = None
    destination: str | None = None
    state: str | None = None
    code: str | None = None  # of the last attempt
    older_seconds: int | None = None  # accepted longer ago than this


@dataclass(frozen=True, slots=True)
class LiveDelivery:
    """A live delivery as it is shown. `paused` and `open_until` are those of its destination, while they last."""

    message: UUID
    recipient: str
    message_id: str
    sender: str
    address: str
    destination: str
    state: str
    under_way: bool
    due: datetime
    scheduled: bool
    attempts: int
    accepted_at: datetime
    expires_at: datetime
    first_attempt: datetime | None
    last_attempt: datetime | None
    code: str | None
    error: str | None
    paused: str | None
    open_until: datetime | None
    trouble: str | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A failed attempt."""

    message: UUID
    recipient: str
    attempt: int
    at: datetime
    via: str | None
    code: str | None
    error: str | None
    milliseconds: int | None


@dataclass(frozen=True, slots=True)
class EndedMessage:
    """The cancelled recipients of one message."""

    message: UUID
    message_id: str
    sender: str
    proven: bool
    automatic: bool
    recipients: tuple[str, ...]  # names
    addresses: tuple[str, ...]  # as written
    attempts: int
    last_attempt: datetime | None


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect of an action, or of its dry run."""

    matched: int  # deliveries that are meant
    busy: int  # of them under lease
    changed: int
    has_more: bool = False
    cancelled: tuple[EndedMessage, ...] = ()


@dataclass(frozen=True, slots=True)
class Slice:
    """The deliveries of one destination in one bucket of age; without a destination, of all the others."""

    destination: str | None
    bucket: int
    count: int


_FREE = "(d.token is null or d.due <= amtp_now())"

# The deliveries that each act changes. A retry leaves alone what its sender scheduled for later: it was never tried.
_ELIGIBLE = {
    Act.HOLD: f"d.state = 'queued' and {_FREE}",
    Act.RELEASE: f"d.state = 'held' and {_FREE}",
    Act.RETRY: "d.state = 'queued' and d.token is null and d.attempts > 0 and d.due > amtp_now()",
    Act.CANCEL: _FREE,
}

# A lapsed lease loses its token, so that its late worker changes nothing any more.
_CHANGE = {
    Act.HOLD: "state = 'held', token = null",
    Act.RELEASE: "state = 'queued', token = null",
    Act.RETRY: "due = amtp_now()",
}

_CONDITIONS = {
    "sender": "exists (select from messages m where m.id = d.message and m.sender = {})",
    "recipient": "d.recipient = {}",
    "destination": "d.destination = {}",
    "state": "d.state = {}",
    "code": "d.last_code = {}",
    "older_seconds": "d.accepted_at < amtp_now() - make_interval(secs => {}::int)",
}

_NAMED = (
    "d.message in (select id from messages where public_id = any ({}::text[])"
    " union all select id from messages where id = any ({}::uuid[]))"
)


def _conditions(selection: Selection, arguments: list[Any]) -> str:
    """Returns the selection as SQL; appends its values to the arguments."""

    def place(value: object) -> str:
        arguments.append(value)
        return f"${len(arguments)}"

    found = [
        condition.format(place(getattr(selection, name)))
        for name, condition in _CONDITIONS.items()
        if getattr(selection, name) is not None
    ]
    if selection.ids is not None:
        rows = [row for row in map(row_of, selection.ids) if row is not None]
        found.append(_NAMED.format(place(list(selection.ids)), place(rows)))
    return " and ".join(found) or "true"


_SHOWN = """
select d.message, d.recipient, coalesce(m.public_id, m.id::text), m.sender, d.address, d.destination, d.state,
       d.token is not null and d.due > amtp_now(), d.due, d.attempts = 0 and d.due > amtp_now(), d.attempts,
       d.accepted_at, d.expires_at, d.first_attempt, d.last_attempt, d.last_code, d.last_error,
       case when n.paused_at is not null and (n.paused_until is null or n.paused_until > amtp_now())
            then coalesce(n.pause_reason, '') end,
       case when n.open_until > amtp_now() then n.open_until end, n.last_error
from deliveries d join messages m on m.id = d.message left join destinations n using (destination)
"""


async def waiting(
    database: Database, selection: Selection, *, after: tuple[UUID, str] | None = None, limit: int
) -> list[LiveDelivery]:
    """Returns a page of live deliveries, oldest first."""
    arguments: list[Any] = [*(after or (UUID(int=0), "")), limit]
    rows = await database.fetch(
        f"{_SHOWN} where (d.message, d.recipient) > ($1, $2) and {_conditions(selection, arguments)}"
        " order by d.message, d.recipient limit $3",
        *arguments,
    )
    return [LiveDelivery(*row) for row in rows]


async def attempts(
    database: Database, shown: Sequence[LiveDelivery]
) -> dict[tuple[UUID, str], list[Attempt]]:
    """Returns the failed attempts of each of these deliveries, oldest first."""
    rows = await database.fetch(
        "select a.* from unnest($1::uuid[], $2::text[]) u (message, recipient) cross join lateral ("
        " select message, recipient, attempt, at, via, code, error, milliseconds from attempts"
        " where message = u.message and recipient = u.recipient order by at desc limit $3) a order by a.at",
        [one.message for one in shown],
        [one.recipient for one in shown],
        ATTEMPTS_SHOWN_MAX,
    )
    found: dict[tuple[UUID, str], list[Attempt]] = {}
    for row in rows:
        found.setdefault((row["message"], row["recipient"]), []).append(Attempt(*row))
    return found


async def shape(database: Database, bounds_seconds: Sequence[int], top: int) -> list[Slice]:
    """Returns the number of deliveries by destination and age: the largest destinations, and the others as one."""
    rows = await database.fetch(
        "with sliced as (select destination, count(*) as count, width_bucket("
        "    extract(epoch from amtp_now() - accepted_at)::float8, $1::float8[]) as bucket"
        "  from deliveries group by destination, bucket),"
        " ranked as (select destination, row_number() over (order by sum(count) desc, destination) as place"
        "  from sliced group by destination)"
        " select case when place <= $2 then destination end as name, bucket, sum(count)::bigint"
        " from sliced join ranked using (destination)"
        " group by name, bucket order by min(least(place, $2 + 1)), bucket",
        [float(bound) for bound in bounds_seconds],
        top,
    )
    return [Slice(*row) for row in rows]


# Rows that another transaction is changing are skipped: they count as leased.
_PICKED = """
picked as (
    select d.message, d.recipient from deliveries d where {eligible} and {selected}
    order by d.message, d.recipient limit $1 for update skip locked
)
"""

_CANCEL = """
with {picked}, gone as (
    delete from deliveries d using picked p where d.message = p.message and d.recipient = p.recipient
    returning d.message, d.recipient, d.address, d.attempts, d.last_attempt
), ended as (
    insert into settled (message, recipient, address, status, error, attempts, settled_at)
    select message, recipient, address, 'cancelled', $2, attempts, amtp_now() from gone
    on conflict (message, recipient) do update
    set status = excluded.status, via = null, code = null, error = excluded.error,
        attempts = excluded.attempts, settled_at = excluded.settled_at
), told as (
    insert into events (message, at, event, recipient, actor)
    select message, amtp_now(), 'cancelled', recipient, $3 from gone
), counted as (
    insert into tallies (id, at, accepted, finished) select $4, amtp_now(), 0, count(*) from gone
)
select g.message, g.recipient, g.address, g.attempts, g.last_attempt, m.sender, m.proven, m.automatic,
       coalesce(m.public_id, m.id::text) as message_id
from gone g join messages m on m.id = g.message order by g.message, g.recipient
"""

Report = Callable[[EndedMessage], Awaitable[Admitted | None]]


class Queue:
    """The operators' actions."""

    def __init__(self, database: Database, mint: Mint, audit: Audit) -> None:
        self._database = database
        self._mint = mint
        self._audit = audit

    async def count(self, act: Act, selection: Selection) -> Effect:
        """Returns the effect the action would have."""
        return await _count(self._database, act, selection)

    async def change(self, act: Act, selection: Selection, *, actor: str, reason: str | None) -> Effect:
        """Holds, releases, or makes due."""
        async with self._database.transaction() as connection:
            before = await _count(connection, act, selection)
            arguments: list[Any] = [CHANGED_MAX]
            picked = _picked(act, selection, arguments)
            done = await connection.execute(
                f"with {picked} update deliveries d set {_CHANGE[act]} from picked p"
                " where d.message = p.message and d.recipient = p.recipient",
                *arguments,
            )
            changed = int(done.split()[-1])
            await self._note(connection, act, selection, changed, actor, reason)
            if changed and act is not Act.HOLD:
                await call_workers(connection, QUEUE)
        return Effect(before.matched, before.busy, changed, changed == CHANGED_MAX)

    async def cancel(
        self,
        selection: Selection,
        *,
        actor: str,
        reason: str | None,
        report: Report,
        riders: Callable[[EndedMessage], Iterable[Rider]] = lambda _: (),
    ) -> Effect:
        """Ends deliveries, and accepts the reports to their senders in the same transaction."""
        async with self._database.transaction() as connection:
            before = await _count(connection, Act.CANCEL, selection)
            arguments = [CANCELLED_MAX, CANCELLED, actor, self._mint()]
            picked = _picked(Act.CANCEL, selection, arguments)
            rows = await connection.fetch(_CANCEL.format(picked=picked), *arguments)
            ended = tuple(_ended(list(group)) for _, group in groupby(rows, key=lambda row: row["message"]))
            reports = [told for told in [await report(one) for one in ended] if told is not None]
            if reports:
                await insert(connection, self._mint(), reports)
            await write_riders(connection, [rider for one in ended for rider in riders(one)])
            await self._note(connection, Act.CANCEL, selection, len(rows), actor, reason)
        return Effect(before.matched, before.busy, len(rows), len(rows) == CANCELLED_MAX, ended)

    async def _note(
        self,
        connection: Any,
        act: Act,
        selection: Selection,
        changed: int,
        actor: str,
        reason: str | None,
    ) -> None:
        if not changed:
            return
        details = {"changed": changed, "reason": reason, **_said(selection)}
        await self._audit.write(
            connection,
            actor,
            f"queue.{act.value}",
            _subject(selection),
            {name: value for name, value in details.items() if value is not None},
        )


def _picked(act: Act, selection: Selection, arguments: list[Any]) -> str:
    return _PICKED.format(eligible=_ELIGIBLE[act], selected=_conditions(selection, arguments))


async def _count(where: Any, act: Act, selection: Selection) -> Effect:
    arguments: list[Any] = []
    selected = _conditions(selection, arguments)
    row = await where.fetchrow(
        f"select count(*), count(*) filter (where not {_FREE}), count(*) filter (where {_ELIGIBLE[act]})"
        f" from deliveries d where {selected}",
        *arguments,
    )
    return Effect(*row)


def _ended(rows: Sequence[Any]) -> EndedMessage:
    first = rows[0]
    return EndedMessage(
        message=first["message"],
        message_id=first["message_id"],
        sender=first["sender"],
        proven=first["proven"],
        automatic=first["automatic"],
        recipients=tuple(row["recipient"] for row in rows),
        addresses=tuple(row["address"] for row in rows),
        attempts=max(row["attempts"] for row in rows),
        last_attempt=max((row["last_attempt"] for row in rows if row["last_attempt"]), default=None),
    )


def _said(selection: Selection) -> dict[str, Any]:
    """Returns the given conditions, as the audit keeps them."""
    said = {name: getattr(selection, name) for name in _CONDITIONS}
    return {**said, "ids": None if selection.ids is None else list(selection.ids)}


def _subject(selection: Selection) -> str:
    ids: Collection[str] = selection.ids or ()
    if len(ids) == 1:
        return next(iter(ids))
    return selection.destination or selection.recipient or selection.sender or "queue"
