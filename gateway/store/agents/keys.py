"""Keys: whose they are, what they may do, how long they live. A key itself is never here, only its digest."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from gateway.protocol.errors import AMTPError, Code
from gateway.store.agents.leaving import Leavings
from gateway.store.agents.leftovers import Made, end, made_with
from gateway.store.audit import Audit
from gateway.store.database import Database

LISTED_MAX = 1000
EVERYBODY = "*"
NAMED_KEYS = "named keys"  # what changes with every key that an operator makes or revokes
CHANGES_KEPT = 10_000  # a process that looks each second is never so far behind
CHANGES_READ_MAX = 5000  # of more, it is cheaper to forget everything
PEER = "peer:"  # a scope, followed by the domain of the gateway that holds the key


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just minted, as it is kept."""

    id: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key that was handed out, and whether it is still good."""

    id: str
    digest: bytes
    agent: str | None  # name of the agent it belongs to
    scopes: frozenset[str]
    name: str | None
    expires_at: datetime | None
    ended: str | None  # "revoked_key" or "expired_key"; None while it is good


@dataclass(frozen=True, slots=True)
class NamedKey:
    """A key that an operator made, as operators see it."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None  # to the hour
    revoked_at: datetime | None


def peers_of(scopes: Iterable[str]) -> list[str]:
    """Returns the domains that a key of these scopes would prove. One is the most that a key may have."""
    return [scope.removeprefix(PEER) for scope in scopes if scope.startswith(PEER)]


@dataclass(frozen=True, slots=True)
class Changes:
    """The number of changes to agents and keys so far, and the names concerned by those since an earlier look."""

    version: int
    since: Sequence[tuple[int, str]] | None = ()  # versions and names; None: it is not known whom


async def directory_changes(database: Database, since: int | None) -> Changes:
    """Returns the changes since that version; without one, how many there were."""
    rows = await database.fetch(_CHANGES, since, CHANGES_READ_MAX + 1)
    version = rows[0]["now"]
    found = [(row["version"], row["name"]) for row in rows if row["version"] is not None]
    known = {number for number, name in found if name != EVERYBODY}
    if since is None:
        return Changes(version)
    return Changes(
        version, found if len(found) <= CHANGES_READ_MAX and len(known) == version - since else None
    )


_CHANGES = """
select v.version as now, c.version, c.name from directory_version v
left join lateral (
    select version, name from directory_changes where version > $1 order by version limit $2
) c on true
"""


async def directory_changed(connection: Any, *names: str) -> None:
    """Counts a change, in the transaction that makes it, and notes whom it concerns; without names, everybody."""
    await connection.execute(_CHANGED, names or (EVERYBODY,), CHANGES_KEPT)


# The row of the count is held until the commit, so versions are committed in their order.
_CHANGED = """
with counted as (
    update directory_version set version = version + 1 returning version
), forgotten as (
    delete from directory_changes where version <= (select version from counted) - $2
)
insert into directory_changes (version, name)
select distinct version, name from counted, unnest($1::text[]) as u (name)
"""


async def find_keys(database: Database, ids: Sequence[str]) -> tuple[int, dict[str, KnownKey]]:
    """Returns the keys with these ids, including ended ones, and the version of the directory they were read at."""
    rows = await database.fetch(
        "select v.version, k.id, k.digest, k.scopes, k.name, k.expires_at, a.name as agent,"
        " case when k.revoked_at is not null or a.state <> 'active' then 'revoked_key'"
        " when k.expires_at <= amtp_now() then 'expired_key' end as ended"
        " from directory_version v left join (keys k left join agents a on a.id = k.agent)"
        " on k.id = any($1::text[])",
        ids,
    )
    return rows[0]["version"], {row["id"]: _known(row) for row in rows if row["id"] is not None}


def _known(row: Any) -> KnownKey:
    return KnownKey(
        row["id"],
        row["digest"],
        row["agent"],
        frozenset(row["scopes"]),
        row["name"],
        row["expires_at"],
        row["ended"],
    )


async def peer_domains(database: Database) -> tuple[int, frozenset[str]]:
    """Returns the domains that a key of today proves, and the version of the directory they were read at."""
    rows = await database.fetch(
        "select v.version, k.scopes from directory_version v left join keys k"
        " on k.agent is null and k.revoked_at is null and (k.expires_at is null or k.expires_at > amtp_now())"
        " and array_to_string(k.scopes, ' ') like $1",
        f"%{PEER}%",
    )
    return rows[0]["version"], frozenset(domain for row in rows for domain in peers_of(row["scopes"] or ()))


async def add_agent_key(connection: Any, agent: int, key: NewKey) -> None:
    await connection.execute(
        "insert into keys (id, digest, agent, scopes, created_at) values ($1, $2, $3, '{agent}', amtp_now())",
        key.id,
        key.digest,
        agent,
    )


async def retire_agent_keys(connection: Any, agent: int, grace_seconds: int) -> list[str]:
    """Ends an agent's keys and returns their ids; the one in use lives on for the grace period.

    An older one, whose own grace still runs, ends now: an agent never has more than two.
    """
    ended = await connection.fetch(
        "update keys set revoked_at = amtp_now()"
        " where agent = $1 and revoked_at is null and (expires_at is not null or $2 = 0) returning id",
        agent,
        grace_seconds,
    )
    await connection.execute(
        "update keys set expires_at = amtp_now() + make_interval(secs => $2)"
        " where agent = $1 and revoked_at is null",
        agent,
        grace_seconds,
    )
    return [row["id"] for row in ended]


class NamedKeys:
    """The keys of operators and of programs they trust."""

    def __init__(self, database: Database, audit: Audit, leavings: Leavings = ()) -> None:
        self._database = database
        self._audit = audit
        self._leavings = leavings

    async def add(
        self, key: NewKey, name: str, scopes: Sequence[str], actor: str, seconds: int | None = None
    ) -> None:
        """Makes the key valid, for so long where that is said; a name belongs to one key at a time."""
        try:
            async with self._database.transaction() as connection:
                await self._insert(connection, key, name, scopes, actor, seconds)
        except asyncpg.UniqueViolationError:
            raise AMTPError(
                Code.CONFLICT, f"A key named {name} exists: revoke it first, or choose another name."
            ) from None

    async def ensure(self, key: NewKey, name: str, scopes: Sequence[str], actor: str) -> None:
        """Makes a key given from outside the valid one of this name, once: a revoked one stays revoked."""
        async with self._database.transaction() as connection:
            # Processes that start together do this one after the other.
            await connection.execute("select version from directory_version for update")
            if await connection.fetchval("select true from keys where id = $1", key.id):
                return
            await self._revoke(connection, name, actor)
            await self._insert(connection, key, name, scopes, actor)

    async def all(self) -> list[NamedKey]:
        """Returns the keys, oldest first, including revoked ones."""
        rows = await self._database.fetch(
            f"select {_NAMED} from keys where agent is null order by created_at, id limit $1",
            LISTED_MAX,
        )
        return [_named(row) for row in rows]

    async def revoke(
        self, name_or_id: str, actor: str, *, drop: bool = False
    ) -> tuple[NamedKey, Made] | None:
        """Ends the live key of this name or id, everywhere within two seconds, and with `drop` what it made.

        Returns the key and what it made; None where there is none.
        """
        async with self._database.transaction() as connection:
            named = await self._revoke(connection, name_or_id, actor)
            if named is None:
                return None
            made = await made_with(connection, self._leavings, named.id)
            if drop:
                await end(connection, self._leavings, made)
                details = {"key": named.id, **made.counts}
                await self._audit.write(connection, actor, "key.dropped", named.name, details)
            return named, made

    async def _insert(
        self,
        connection: Any,
        key: NewKey,
        name: str,
        scopes: Sequence[str],
        actor: str,
        seconds: int | None = None,
    ) -> None:
        if len(peers_of(scopes)) > 1:
            raise AMTPError(
                Code.INVALID_MESSAGE_FORMAT,
                "A key proves one domain: give it one peer: scope, and make another key for each further domain.",
                {"field": "scopes"},
            )
        await connection.execute(
            "insert into keys (id, digest, scopes, name, created_at, expires_at)"
            " values ($1, $2, $3, $4, amtp_now(), amtp_now() + make_interval(secs => $5::int))",
            key.id,
            key.digest,
            list(scopes),
            name,
            seconds,
        )
        await directory_changed(connection, key.id, NAMED_KEYS)
        await self._audit.write(connection, actor, "key.added", name, {"key": key.id, "scopes": list(scopes)})

    async def _revoke(self, connection: Any, name_or_id: str, actor: str) -> NamedKey | None:
        row = await connection.fetchrow(
            "update keys set revoked_at = amtp_now()"
            " where (name = $1 or id = $1) and agent is null and revoked_at is null"
            f" returning {_NAMED}",
            name_or_id,
        )
        if row is None:
            return None
        await directory_changed(connection, row["id"], NAMED_KEYS)
        await self._audit.write(connection, actor, "key.revoked", row["name"], {"key": row["id"]})
        return _named(row)


_NAMED = "id, name, scopes, created_at, expires_at, last_used_at, revoked_at"


def _named(row: Any) -> NamedKey:
    number, name, scopes, *times = row
    return NamedKey(number, name, tuple(scopes), *times)


@dataclass(frozen=True, slots=True)
class AgentKey:
    """A key of an agent, as operators see it."""

    id: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


async def agent_keys(database: Database, agent: int) -> list[AgentKey]:
    """Returns an agent's keys that are valid now."""
    rows = await database.fetch(
        "select id, created_at, expires_at, last_used_at from keys where agent = $1 and revoked_at is null"
        " and (expires_at is null or expires_at > amtp_now()) order by created_at, id",
        agent,
    )
    return [AgentKey(*row) for row in rows]


async def forget(database: Database, days: int) -> None:
    """Deletes agents' keys that ended so long ago that an attempt to use them need not be reported any more."""
    await database.execute(
        "delete from keys where agent is not null"
        " and least(revoked_at, expires_at) < amtp_now() - make_interval(days => $1)",
        days,
    )
