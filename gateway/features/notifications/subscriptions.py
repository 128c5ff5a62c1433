"""Subscriptions: who is told of which events, at which URL, and how well that works.

Each change counts up one number in its own transaction, so that every process reads the list again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from gateway.features.notifications.events import Subscriber
from gateway.protocol.errors import AMTPError, Code
from gateway.store.audit import Audit
from gateway.store.database import Database

OWN_MAX = 20  # of one owner
KEPT_DAYS = 7  # what happens is kept so long for one that is disabled
CHALLENGE_LIFE = timedelta(days=1)  # after that its owner asks for another

_SHOWN = "select s.*, a.name as owner from subscriptions s left join agents a on a.id = s.agent"


@dataclass(frozen=True, slots=True)
class Subscription:
    id: UUID
    owner: str | None  # None: the operators'
    url: str
    events: tuple[str, ...]
    about: tuple[str, ...]
    description: str | None
    status: str  # "pending", "active" or "disabled"
    created_at: datetime
    proven_at: datetime | None
    failures: int
    failing_since: datetime | None
    warned_at: datetime | None
    disabled_at: datetime | None
    previous_until: datetime | None
    last_error: str | None
    last_failure: datetime | None
    last_success: datetime | None


@dataclass(frozen=True, slots=True)
class NewSubscription:
    id: UUID
    owner: str | None
    url: str
    events: Sequence[str]
    about: Sequence[str]
    description: str | None
    challenge: str
    secret: bytes  # sealed
    key: str | None = None  # with which it was made


@dataclass(frozen=True, slots=True)
class Change:
    """The changes to a subscription; None leaves a member unchanged."""

    url: str | None = None
    challenge: str | None = None  # with a URL, or to ask again
    events: Sequence[str] | None = None
    about: Sequence[str] | None = None
    description: str | None = None
    enabled: bool | None = None


async def subscribers(database: Database) -> tuple[int, list[Subscriber]]:
    """Returns all subscriptions for which events are kept, and the version of that list."""
    rows = await database.fetch(
        "select v.version, s.id, a.name, s.events, s.about from subscriptions_version v"
        " left join (subscriptions s left join agents a on a.id = s.agent)"
        " on s.proven_at is not null"
        " and (s.disabled_at is null or s.disabled_at > amtp_now() - make_interval(days => $1))",
        KEPT_DAYS,
    )
    return rows[0]["version"], [
        Subscriber(row["id"], row["name"], frozenset(row["events"]), frozenset(row["about"]))
        for row in rows
        if row["id"] is not None
    ]


async def subscriptions_version(database: Database) -> int:
    version: int = await database.fetchval("select version from subscriptions_version")
    return version


async def subscribers_changed(connection: Any) -> None:
    """Counts a change, in the transaction that makes it."""
    await connection.execute("update subscriptions_version set version = version + 1")


class Subscriptions:
    """The register. `own` limits a call to the subscriptions of that agent; None is an operator's call."""

    def __init__(self, database: Database, audit: Audit) -> None:
        self._database = database
        self._audit = audit

    async def add(self, new: NewSubscription, body: bytes, actor: str) -> Subscription:
        """Inserts it as pending, and queues its challenge."""
        async with self._database.transaction() as connection:
            await subscribers_changed(connection)  # its lock makes the count below hold
            agent = await _agent_of(connection, new.owner)
            owned = await connection.fetchval(
                "select count(*) from subscriptions where agent is not distinct from $1", agent
            )
            if owned >= OWN_MAX:
                raise AMTPError(
                    Code.CONFLICT, f"{OWN_MAX} webhooks are the most one owner has: remove one first."
                )
            await connection.execute(
                "insert into subscriptions (id, agent, url, events, about, description, challenge, secret, created_at,"
                " key) values ($1, $2, $3, $4, $5, $6, $7, $8, amtp_now(), $9)",
                new.id,
                agent,
                new.url,
                list(new.events),
                list(new.about),
                new.description,
                new.challenge,
                new.secret,
                new.key,
            )
            await send_challenge(connection, new.id, body)
            details = {"owner": new.owner or "operators", "events": list(new.events)}
            await self._audit.write(connection, actor, "webhook.added", str(new.id), details)
            return await _require(connection, new.id, None)

    async def get(self, number: UUID, own: str | None) -> Subscription:
        async with self._database.connection() as connection:
            return await _require(connection, number, own)

    async def all(self, own: str | None, after: UUID | None, limit: int) -> list[Subscription]:
        """Returns subscriptions in the order in which they were made."""
        rows = await self._database.fetch(
            f"{_SHOWN} where ($1::text is null or a.name = $1) and ($2::uuid is null or s.id > $2)"
            " order by s.id limit $3",
            own,
            after,
            limit,
        )
        return [_subscription(row) for row in rows]

    async def change(
        self, number: UUID, own: str | None, change: Change, body: bytes | None, actor: str
    ) -> Subscription:
        """Changes a subscription; another URL must answer the challenge `body` first."""
        async with self._database.transaction() as connection:
            await subscribers_changed(connection)
            before = await _require(connection, number, own)
            if body is not None:  # first, for who settles notices locks them before their subscription
                await send_challenge(connection, number, body)
            await connection.execute(
                _CHANGE,
                number,
                change.url,
                change.challenge,
                None if change.events is None else list(change.events),
                None if change.about is None else list(change.about),
                change.description,
                change.enabled,
            )
            await self._audit.write(connection, actor, "webhook.changed", str(number), _told(change))
            return await _require(connection, before.id, own)

    async def rotate(
        self, number: UUID, own: str | None, secret: bytes, grace_seconds: int, actor: str
    ) -> Subscription:
        """Sets a new secret; the one before signs too during the grace period."""
        async with self._database.transaction() as connection:
            await _require(connection, number, own)
            await connection.execute(
                "update subscriptions set secret = $2, previous = case when $3 > 0 then secret end,"
                " previous_until = case when $3 > 0 then amtp_now() + make_interval(secs => $3) end where id = $1",
                number,
                secret,
                float(grace_seconds),
            )
            details = {"grace_seconds": grace_seconds}
            await self._audit.write(connection, actor, "webhook.rotated", str(number), details)
            return await _require(connection, number, own)

    async def remove(self, number: UUID, own: str | None, actor: str) -> None:
        """Deletes it. Its waiting notices are not sent any more; a chore deletes them."""
        async with self._database.transaction() as connection:
            await subscribers_changed(connection)
            await _require(connection, number, own)
            await connection.execute("delete from subscriptions where id = $1", number)
            await self._audit.write(connection, actor, "webhook.removed", str(number))


# A URL that is new or not proven yet has to answer a challenge; one that is merely enabled again need not.
_CHANGE = """
update subscriptions set
    url = coalesce($2, url), challenge = coalesce($3, challenge), events = coalesce($4, events),
    about = coalesce($5, about), description = coalesce($6, description),
    status = case when $2 is not null and url <> $2 then 'pending'
                  when $7 then case when proven_at is null then 'pending' else 'active' end
                  when not $7 and status = 'active' then 'disabled'
                  else status end,
    disabled_at = case when ($2 is not null and url <> $2) or $7 then null
                       when not $7 and status = 'active' then amtp_now()
                       else disabled_at end,
    failures = case when $2 is not null or $7 then 0 else failures end,
    failing_since = case when $2 is not null or $7 then null else failing_since end,
    warned_at = case when $2 is not null or $7 then null else warned_at end,
    open_until = case when $2 is not null or $3 is not null or $7 then null else open_until end
where id = $1
"""


async def send_challenge(connection: Any, subscription: UUID, body: bytes) -> None:
    """Queues a challenge, under a new id each time; an earlier one that still waits is replaced."""
    await connection.execute(
        "delete from notices where subscription = $1 and event = 'challenge'", subscription
    )
    await connection.execute(
        "insert into notices (id, subscription, event, body, at, due, until)"
        " values (gen_random_uuid(), $1, 'challenge', $2, amtp_now(), amtp_now(), amtp_now() + $3)",
        subscription,
        body,
        CHALLENGE_LIFE,
    )


async def _agent_of(connection: Any, owner: str | None) -> int | None:
    if owner is None:
        return None
    agent: int | None = await connection.fetchval(
        "select id from agents where name = $1 and state = 'active' for share", owner
    )
    if agent is None:
        raise AMTPError(Code.AGENT_UNKNOWN, f"No agent {owner} is registered here.", {"field": "owner"})
    return agent


async def _require(connection: Any, number: UUID, own: str | None) -> Subscription:
    row = await connection.fetchrow(
        f"{_SHOWN} where s.id = $1 and ($2::text is null or a.name = $2)", number, own
    )
    if row is None:
        raise AMTPError(Code.NOT_FOUND, "There is no webhook of this id that is yours.")
    return _subscription(row)


def _subscription(row: Mapping[str, Any]) -> Subscription:
    given = {name: row[name] for name in Subscription.__slots__}
    return Subscription(**given | {"events": tuple(row["events"]), "about": tuple(row["about"])})


def _told(change: Change) -> dict[str, Any]:
    """Returns a change as the audit shows it. Of a URL, which may contain a secret, only that it changed."""
    said = {
        "url": change.url and "changed",
        "events": None if change.events is None else list(change.events),
        "about": None if change.about is None else list(change.about),
        "enabled": change.enabled,
    }
    return {name: value for name, value in said.items() if value is not None}
