"""Agents: who lives here, how mail reaches them, and what the world may know of them.

Registering, changing, retiring and removing each take one transaction: the row, its keys, the count that
tells all processes to look again, and the audit.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg

from gateway.protocol.errors import AMTPError, Code
from gateway.store.agents import leftovers
from gateway.store.agents.keys import (
    AgentKey,
    NewKey,
    add_agent_key,
    agent_keys,
    directory_changed,
    retire_agent_keys,
)
from gateway.store.agents.leaving import Leavings
from gateway.store.agents.leftovers import BroughtBack, Made
from gateway.store.audit import Audit
from gateway.store.database import Database

POSTMASTER = "postmaster"
REMOVED = "removed:"  # followed by a name: a destination without an agent, even if the name is taken again


@dataclass(frozen=True, slots=True)
class Resident:
    """The columns of an agent that a message on its way in needs."""

    id: int
    name: str
    delivery_mode: str  # "pull" or "push"
    state: str  # "active" or "retired"
    push_url: str | None = field(default=None, repr=False)
    push_secrets: bytes | None = field(default=None, repr=False)  # sealed

    @property
    def pushed(self) -> bool:
        """Returns whether its mail is posted to its URL; a retired agent keeps its inbox and nothing else."""
        return self.delivery_mode == "push" and self.state == "active"


@dataclass(frozen=True, slots=True)
class Agent:
    id: int
    name: str
    domain: str
    state: str
    delivery_mode: str
    push_url: str | None
    push_secured: bool  # whether a secret to sign with is kept
    details: Mapping[str, Any]
    created_at: datetime
    retired_at: datetime | None
    last_active_at: datetime | None
    brought_back: BroughtBack | None = None  # where a registration found it retired


@dataclass(frozen=True, slots=True)
class Profile:
    """The settings of an agent that an operator gives; None leaves a setting unchanged."""

    delivery_mode: str | None = None
    push_url: str | None = None
    push_secrets: bytes | None = None  # sealed, one a line
    details: Mapping[str, Any] = field(default_factory=dict)  # a None in it takes that detail away


@dataclass(frozen=True, slots=True)
class Search:
    """Conditions on agents; an agent matches when all that are given hold."""

    domain: str | None = None
    state: str | None = None
    delivery_mode: str | None = None
    schema: str | None = None  # one it supports
    text: str | None = None  # in its name or description
    active_within: timedelta | None = None
    hidden: bool = True  # whether hidden ones count


async def find_residents(database: Database, names: Sequence[str]) -> tuple[int, dict[str, Resident]]:
    """Returns the agents among these names, and the version of the directory they were read at."""
    rows = await database.fetch(
        "select v.version, a.id, a.name, a.delivery_mode, a.state,"
        " case when a.delivery_mode = 'push' then a.push_url end as push_url,"
        " case when a.delivery_mode = 'push' then a.push_secrets end as push_secrets from directory_version v"
        " left join agents a on a.name = any($1::text[]) and a.state <> 'removed'",
        names,
    )
    return rows[0]["version"], {row["name"]: Resident(*row[1:]) for row in rows if row["id"] is not None}


class Agents:
    """The register of agents."""

    def __init__(self, database: Database, audit: Audit, leavings: Leavings = ()) -> None:
        self._database = database
        self._audit = audit
        self._leavings = leavings

    async def register(self, local: str, domain: str, profile: Profile, key: NewKey, actor: str) -> Agent:
        """Registers an agent, or reactivates a retired one with its inbox; CONFLICT where the name is in use."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                "insert into agents"
                " (local, domain, delivery_mode, push_url, push_secrets, details, created_at)"
                " values ($1, $2, coalesce($3, 'pull'), $4, $5, jsonb_strip_nulls($6), amtp_now())"
                " on conflict (name) where state <> 'removed' do update set state = 'active',"
                " delivery_mode = excluded.delivery_mode, push_url = excluded.push_url,"
                " push_secrets = excluded.push_secrets, details = excluded.details, retired_at = null"
                " where agents.state = 'retired' returning *, xmax <> 0 as revived",
                local,
                domain,
                *_columns(profile),
            )
            if row is None:
                raise AMTPError(
                    Code.CONFLICT,
                    f"{local}@{domain} is registered already: change it with PATCH, or rotate its key.",
                    {"field": "address"},
                )
            await add_agent_key(connection, row["id"], key)
            back = (
                await leftovers.bring_back(connection, self._leavings, row["id"]) if row["revived"] else None
            )
            details = {"key": key.id, "delivery_mode": row["delivery_mode"]}
            await self._changed(connection, actor, "agent.registered", row["name"], details)
            return replace(_agent(row), brought_back=back)

    async def ensure_postmasters(self, domains: Sequence[str]) -> None:
        """Creates each domain's postmaster inbox, which operators read. It has no key."""
        async with self._database.transaction() as connection:
            added = await connection.fetch(
                "insert into agents (local, domain, details, created_at)"
                " select $1, domain, '{\"hidden\": true}', amtp_now() from unnest($2::text[]) as u (domain)"
                " on conflict (name) where state <> 'removed' do nothing returning name",
                POSTMASTER,
                sorted(domains),
            )
            if added:
                await directory_changed(connection, *(row["name"] for row in added))

    async def get(self, name: str) -> Agent:
        async with self._database.connection() as connection:
            return _agent(await _require(connection, name))

    async def keys(self, agent: Agent) -> list[AgentKey]:
        """Returns the agent's keys that are valid now."""
        return await agent_keys(self._database, agent.id)

    async def find(self, search: Search, after: str, limit: int) -> list[Agent]:
        """Returns agents ordered by name, beginning behind `after`."""
        rows = await self._database.fetch(
            "select * from agents where state <> 'removed' and name > $1"
            " and ($2::text is null or domain = $2) and ($3::text is null or state = $3)"
            " and ($4::text is null or delivery_mode = $4)"
            " and ($5::text is null or details->'supported_schemas' ? $5)"
            " and ($6::text is null or"
            " strpos(lower(name || ' ' || coalesce(details->>'description', '')), lower($6)) > 0)"
            " and ($7::interval is null or coalesce(last_active_at, created_at) > amtp_now() - $7::interval)"
            " and ($8 or details->'hidden' is distinct from 'true'::jsonb)"
            " order by name limit $9",
            after,
            search.domain,
            search.state,
            search.delivery_mode,
            search.schema,
            search.text,
            search.active_within,
            search.hidden,
            limit,
        )
        return [_agent(row) for row in rows]

    async def update(self, name: str, profile: Profile, actor: str) -> Agent:
        """Changes what the profile names."""
        try:
            async with self._database.transaction() as connection:
                await _require_active(connection, name)
                row = await connection.fetchrow(
                    "update agents set delivery_mode = coalesce($2, delivery_mode),"
                    " push_url = coalesce($3, push_url), push_secrets = coalesce($4, push_secrets),"
                    " details = jsonb_strip_nulls(details || $5)"
                    " where name = $1 and state = 'active' returning *",
                    name,
                    *_columns(profile),
                )
                await self._changed(connection, actor, "agent.changed", name, _told(profile))
                return _agent(row)
        except asyncpg.CheckViolationError:
            raise AMTPError(
                Code.INVALID_MESSAGE_FORMAT,
                "push_target is missing: delivery_mode push needs an https URL to post to.",
                {"field": "push_target"},
            ) from None

    async def rotate_key(
        self, name: str, key: NewKey, grace_seconds: int, actor: str, *, drop: UUID | None = None
    ) -> tuple[Agent, Made]:
        """Issues a new key; the one in use stays valid for the grace period. Returns what the earlier keys made.

        With `drop`, the id of a batch, all of that ends too.
        """
        async with self._database.transaction() as connection:
            row = await _require_active(connection, name)
            made = await leftovers.made_by(connection, self._leavings, row["id"], name)
            if drop is not None:
                await leftovers.drop(connection, self._leavings, made, name, actor, drop)
            await retire_agent_keys(connection, row["id"], grace_seconds)
            await add_agent_key(connection, row["id"], key)
            dropped = {} if drop is None else {"dropped": dict(made.counts)}
            details = {"key": key.id, "grace_seconds": grace_seconds, **dropped}
            await self._changed(connection, actor, "agent.key_rotated", name, details)
            return _agent(row), made

    async def replace_push_secrets(
        self, name: str, change: Callable[[bytes | None], bytes], details: Mapping[str, Any], actor: str
    ) -> Agent:
        """Replaces the signing secrets by what `change` makes of the sealed ones; CONFLICT where mail is not pushed."""
        async with self._database.transaction() as connection:
            row = await _require_active(connection, name)
            if row["push_url"] is None:
                raise AMTPError(Code.CONFLICT, f"{name} has no push_target, and so no secret to rotate.")
            row = await connection.fetchrow(
                "update agents set push_secrets = $2 where id = $1 returning *",
                row["id"],
                change(row["push_secrets"]),
            )
            await self._changed(connection, actor, "agent.push_secret_rotated", name, details)
            return _agent(row)

    async def retire(self, name: str, actor: str) -> Agent:
        """Revokes its keys and hides it; its inbox stays and still accepts mail. Repeating it changes nothing."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                "update agents set state = 'retired', retired_at = amtp_now()"
                " where name = $1 and state = 'active' returning *",
                name,
            )
            if row is None:
                return _agent(await _require(connection, name))
            await retire_agent_keys(connection, row["id"], 0)
            for leaving in self._leavings:
                await leaving.retire(connection, row["id"])
            await self._changed(connection, actor, "agent.retired", name)
            return _agent(row)

    async def remove(self, name: str, mail: str, actor: str) -> Agent:
        """Removes the agent for good: AGENT_UNKNOWN from now on. A chore returns or drops its open mail (`removal`)."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                "update agents set state = 'removed', mail = $2, push_secrets = null,"
                " retired_at = coalesce(retired_at, amtp_now())"
                " where name = $1 and state <> 'removed' returning *",
                name,
                mail,
            )
            if row is None:
                raise _unknown(name)
            await connection.execute(
                "update deliveries set destination = $1 || destination"
                " where destination = $2 and state = 'queued'",
                REMOVED,
                name,
            )
            await retire_agent_keys(connection, row["id"], 0)
            for leaving in self._leavings:
                await leaving.remove(connection, row["id"])
            await self._changed(connection, actor, "agent.removed", name, {"mail": mail})
            return _agent(row)

    async def _changed(
        self, connection: Any, actor: str, act: str, name: str, details: Mapping[str, Any] | None = None
    ) -> None:
        await directory_changed(connection, name)
        await self._audit.write(connection, actor, act, name, details)


async def _require(connection: Any, name: str) -> Any:
    row = await connection.fetchrow("select * from agents where name = $1 and state <> 'removed'", name)
    if row is None:
        raise _unknown(name)
    return row


async def _require_active(connection: Any, name: str) -> Any:
    """Returns the agent's row, locked until the transaction ends."""
    row = await connection.fetchrow(
        "select * from agents where name = $1 and state <> 'removed' for update", name
    )
    if row is None:
        raise _unknown(name)
    if row["state"] != "active":
        raise AMTPError(Code.CONFLICT, f"{name} is retired: register it again to bring it back.")
    return row


def _unknown(name: str) -> AMTPError:
    return AMTPError(Code.AGENT_UNKNOWN, f"No agent {name} is registered here.")


def _columns(profile: Profile) -> tuple[object, ...]:
    return profile.delivery_mode, profile.push_url, profile.push_secrets, json.dumps(dict(profile.details))


def _told(profile: Profile) -> dict[str, Any]:
    """Returns a change as the audit shows it: no secrets, and only the host of a URL, which may contain one."""
    host = urlsplit(profile.push_url).hostname if profile.push_url else None
    told = {"delivery_mode": profile.delivery_mode, "push_host": host, **profile.details}
    return {name: value for name, value in told.items() if value is not None or name in profile.details}


def _agent(row: Any) -> Agent:
    return Agent(
        id=row["id"],
        name=row["name"],
        domain=row["domain"],
        state=row["state"],
        delivery_mode=row["delivery_mode"],
        push_url=row["push_url"],
        push_secured=row["push_secrets"] is not None,
        details=json.loads(row["details"]),
        created_at=row["created_at"],
        retired_at=row["retired_at"],
        last_active_at=row["last_active_at"],
    )
