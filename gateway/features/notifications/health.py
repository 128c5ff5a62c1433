"""How subscriptions fare: those that fail for long are found, their owners warned, and in the end they rest."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.features.notifications.subscriptions import subscribers_changed
from gateway.store.database import Database

LOOKED_AT_MAX = 1000  # in one round

_RETURNED = " returning s.id, (select a.name from agents a where a.id = s.agent), s.url, s.failing_since, s.last_error"


@dataclass(frozen=True, slots=True)
class Failing:
    """A subscription as its owner is told of it."""

    id: UUID
    owner: str | None
    url: str
    since: datetime | None
    last_error: str | None


async def failing(database: Database, seconds: float, *, unwarned: bool) -> Sequence[UUID]:
    """Active ones that were told nothing for so long, although something was to be told."""
    rows = await database.fetch(
        "select id from subscriptions where status = 'active' and failing_since is not null"
        " and failing_since <= amtp_now() - make_interval(secs => $1) and (not $2 or warned_at is null)"
        " order by id limit $3",
        seconds,
        unwarned,
        LOOKED_AT_MAX,
    )
    return [row["id"] for row in rows]


async def warn(connection: Any, subscription: UUID) -> Failing | None:
    """Marks it as warned; None where somebody did so before, or it is well again."""
    row = await connection.fetchrow(
        "update subscriptions s set warned_at = amtp_now()"
        " where id = $1 and warned_at is null and failing_since is not null and status = 'active'"
        + _RETURNED,
        subscription,
    )
    return None if row is None else Failing(*row)


async def disable(connection: Any, subscription: UUID) -> Failing | None:
    """Switches it off; None where it is off already, or well again."""
    await subscribers_changed(connection)
    row = await connection.fetchrow(
        "update subscriptions s set status = 'disabled', disabled_at = amtp_now()"
        " where id = $1 and failing_since is not null and status = 'active'" + _RETURNED,
        subscription,
    )
    return None if row is None else Failing(*row)
