"""The health of subscriptions: finds those that fail for long, marks them as warned, and disables them."""

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
    """A failing subscription, with the facts its owner is told."""

    id: UUID
    owner: str | None
    url: str
    since: datetime | None
    last_error: str | None


async def failing(database: Database, seconds: float, *, unwarned: bool) -> Sequence[UUID]:
    """Returns active subscriptions that took nothing for so long, although there were notices for them."""
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
    """Marks it as warned; None where it was warned before, or works again."""
    row = await connection.fetchrow(
        "update subscriptions s set warned_at = amtp_now()"
        " where id = $1 and warned_at is null and failing_since is not null and status = 'active'"
        + _RETURNED,
        subscription,
    )
    return None if row is None else Failing(*row)


async def disable(connection: Any, subscription: UUID) -> Failing | None:
    """Disables it; None where it is disabled already, or works again."""
    await subscribers_changed(connection)
    row = await connection.fetchrow(
        "update subscriptions s set status = 'disabled', disabled_at = amtp_now()"
        " where id = $1 and failing_since is not null and status = 'active'" + _RETURNED,
        subscription,
    )
    return None if row is None else Failing(*row)
