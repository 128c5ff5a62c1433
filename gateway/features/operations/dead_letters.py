"""Dead letters: failed deliveries, kept with their message until an operator replays or purges them.

1. A replay undoes the failure: the settled row is deleted, the delivery is queued again under the same ids, and the
   tally counts one finished recipient less.
2. Recipients that may have it already are tried as a repetition, never as a first attempt.
3. A poison message is its agent's own dead letter (poison.py). Operators see it here, and a replay puts the entry back
   into its inbox. It was delivered, so the tally does not change.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from gateway.store.audit import Audit
from gateway.store.database import Database
from gateway.store.row_ids import Mint
from gateway.store.wakeups.topics import QUEUE, notice_of

AT_ONCE_MAX = 10_000  # letters by one act
REMEMBERED = timedelta(days=14)  # how long a recipient's gateway knows a repetition


@dataclass(frozen=True, slots=True)
class Which:
    """Conditions on open dead letters; all that are given must hold."""

    number: int | None = None
    sender: str | None = None
    recipient: str | None = None
    domain: str | None = None  # of the recipient
    code: str | None = None
    older_seconds: int | None = None  # dead for longer than this
    younger_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter; `agent` is set for an inbox entry that its own agent never acknowledged."""

    number: int
    message_id: str
    sender: str
    recipient: str
    address: str
    agent: int | None
    code: str
    reason: str
    attempts: int
    first_attempt: datetime | None
    last_attempt: datetime | None
    at: datetime
    replayed_at: datetime | None
    accepted_at: datetime
    details: str | None  # of the failure, in JSON


@dataclass(frozen=True, slots=True)
class Replayed:
    """A replayed dead letter; `forgotten` where its recipient may no longer recognise it as a repetition."""

    number: int
    message_id: str
    address: str
    due: datetime
    forgotten: bool


_CONDITIONS = {
    "number": "l.id = {}",
    "sender": "m.sender = {}",
    "recipient": "l.recipient = {}",
    "domain": "split_part(l.recipient, '@', 2) = {}",
    "code": "l.failure_code = {}",
    "older_seconds": "l.at < amtp_now() - make_interval(secs => {}::int)",
    "younger_seconds": "l.at >= amtp_now() - make_interval(secs => {}::int)",
}


def _conditions(which: Which, arguments: list[Any]) -> str:
    """Returns the conditions as SQL; appends their values to the arguments."""
    found = []
    for name, condition in _CONDITIONS.items():
        value = getattr(which, name)
        if value is not None:
            arguments.append(value)
            found.append(condition.format(f"${len(arguments)}"))
    return " and ".join(found) or "true"


_SHOWN = """
select l.id, coalesce(m.public_id, m.id::text), m.sender, l.recipient, l.address, l.agent, l.failure_code,
       l.failure_reason, l.attempts, l.first_attempt, l.last_attempt, l.at, l.replayed_at, m.accepted_at,
       l.failure_details
from dead_letters l join messages m on m.id = l.message
"""
_OWN = "(${0}::text is null or (m.sender = ${0} and m.proven and l.agent is null))"


async def dead_letters(
    database: Database, which: Which, *, own: str | None, before: int | None, limit: int
) -> list[DeadLetter]:
    """Returns open dead letters, newest first; only those of messages that `own` sent, where it is given."""
    arguments: list[Any] = [before, limit, own]
    chosen = _conditions(which, arguments)
    rows = await database.fetch(
        f"{_SHOWN} where l.replayed_at is null and ($1::bigint is null or l.id < $1)"
        f" and {_OWN.format(3)} and {chosen} order by l.id desc limit $2",
        *arguments,
    )
    return [DeadLetter(*row) for row in rows]


async def dead_letter(database: Database, number: int, *, own: str | None) -> DeadLetter | None:
    row = await database.fetchrow(f"{_SHOWN} where l.id = $1 and {_OWN.format(2)}", number, own)
    return None if row is None else DeadLetter(*row)


async def original(database: Database, number: int) -> bytes | None:
    """Returns the message itself, as it is stored."""
    body: bytes | None = await database.fetchval(
        "select m.body from dead_letters l join messages m on m.id = l.message where l.id = $1", number
    )
    return body


_OPEN = "l.replayed_at is null"
_PURGEABLE = f"{_OPEN} and l.agent is null"  # an agent lets go of its own

# Its time to live is not over, and its delivery still counts as failed, or its entry is still aside.
_REPLAYABLE = f"""
    {_OPEN} and (m.expires_at is null or m.expires_at > amtp_now())
    and case when l.agent is null
        then exists (select from settled s where s.message = l.message and s.recipient = l.recipient
                     and s.status = 'failed')
        else exists (select from entries e where e.message = l.message and e.agent = l.agent
                     and e.dead_at is not null and e.acknowledged_at is null) end
"""

_LETTERS = "from dead_letters l join messages m on m.id = l.message"
_PICKED = (
    f"picked as (select l.id {_LETTERS} where {{meant}} order by l.id limit $1 for update of l skip locked)"
)

_REPLAY = """
with {picked}, placed as (
    select l.*, m.accepted_at, m.expires_at, coalesce(m.public_id, m.id::text) as message_id,
           amtp_now() + make_interval(secs => (row_number() over (order by l.id) - 1) * $2::float8) as new_due
    from picked join dead_letters l using (id) join messages m on m.id = l.message
), revived as (
    update entries e set dead_at = null, read_at = null, lapses = 0
    from placed p where e.message = p.message and e.agent = p.agent
    returning p.*
), reopened as (
    delete from settled s using placed p
    where p.agent is null and s.message = p.message and s.recipient = p.recipient and s.status = 'failed'
    returning p.*
), alive as (
    insert into deliveries
        (message, recipient, address, destination, due, attempts, accepted_at, expires_at, expiry)
    select message, recipient, address,
           case when split_part(recipient, '@', 2) = any ($3::text[]) then recipient
                else split_part(recipient, '@', 2) end,
           new_due, least(attempts, 1), accepted_at,
           least(expires_at, new_due + $4::interval),
           case when expires_at < new_due + $4::interval then 'ttl' else 'horizon' end
    from reopened
), replayed as (
    select id, message, message_id, recipient, address, agent, new_due,
           accepted_at < amtp_now() - $7::interval as forgotten from reopened
    union all
    select id, message, message_id, recipient, address, agent, amtp_now(), false from revived
), marked as (
    update dead_letters l set replayed_at = amtp_now() from replayed r where l.id = r.id
), told as (
    insert into events (message, at, event, recipient, actor)
    select message, amtp_now(), 'replayed', recipient, $5 from replayed
), counted as (
    insert into tallies (id, at, accepted, finished) select $6, amtp_now(), 0, -count(*) from reopened
)
select id, message_id, address, new_due, forgotten, agent from replayed order by id
"""

_PURGE = "with {picked} delete from dead_letters l using picked where l.id = picked.id"


class DeadLetters:
    """The operators' actions on dead letters."""

    def __init__(
        self, database: Database, mint: Mint, audit: Audit, *, domains: Sequence[str], horizon: timedelta
    ) -> None:
        """Takes its collaborators; `domains` are local, `horizon` is the new time limit of a replayed delivery."""
        self._database = database
        self._mint = mint
        self._audit = audit
        self._domains = list(domains)
        self._horizon = horizon

    async def count(self, which: Which, *, replayable: bool) -> int:
        """Returns the number of matching dead letters: the replayable ones, or all."""
        arguments: list[Any] = []
        meant = f"{_REPLAYABLE if replayable else _PURGEABLE} and {_conditions(which, arguments)}"
        count: int = await self._database.fetchval(f"select count(*) {_LETTERS} where {meant}", *arguments)
        return count

    async def replay(
        self, which: Which, *, actor: str, limit: int = 1, per_second: float | None = None
    ) -> list[Replayed]:
        """Replays dead letters, oldest first: into the queue, due one after another at the rate, or into their inbox."""
        arguments: list[Any] = [
            limit,
            1 / per_second if per_second else 0.0,
            self._domains,
            self._horizon,
            actor,
            self._mint(),
            REMEMBERED,
        ]
        picked = _PICKED.format(meant=f"{_REPLAYABLE} and {_conditions(which, arguments)}")
        async with self._database.transaction() as connection:
            rows = await connection.fetch(_REPLAY.format(picked=picked), *arguments)
            if gained := {row["agent"] or QUEUE for row in rows}:
                await connection.execute("select pg_notify('amtp_inbox', $1)", notice_of(gained))
            await self._note(connection, "replay", which, len(rows), actor)
        return [Replayed(*row[:5]) for row in rows]

    async def purge(self, which: Which, *, actor: str, limit: int = 1) -> int:
        """Deletes dead letters; their deliveries stay failed."""
        arguments: list[Any] = [limit]
        picked = _PICKED.format(meant=f"{_PURGEABLE} and {_conditions(which, arguments)}")
        async with self._database.transaction() as connection:
            purged = int((await connection.execute(_PURGE.format(picked=picked), *arguments)).split()[-1])
            await self._note(connection, "purge", which, purged, actor)
        return purged

    async def _note(self, connection: Any, act: str, which: Which, count: int, actor: str) -> None:
        if not count:
            return
        said = {name: getattr(which, name) for name in _CONDITIONS}
        details = {"count": count, **{name: value for name, value in said.items() if value is not None}}
        subject = "all" if which.number is None else str(which.number)
        await self._audit.write(connection, actor, f"dead_letter.{act}", subject, details)
