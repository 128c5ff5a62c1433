"""Lists of messages, newest first, a page at a time.

1. Each question is answered from the index that narrows it most; what else is asked is looked up row by row.
2. A page looks at a bounded number of messages. Where few of them are meant it may be short, even empty; its
   cursor leads on.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from gateway.store.database import Database
from gateway.store.messages.messages import FoundMessage

SCANNED_MAX = 10_000  # messages one page looks at
FIRST = datetime(2000, 1, 1, tzinfo=UTC)  # before any message
LAST = UUID(int=2**128 - 1)  # behind every row


@dataclass(frozen=True, slots=True)
class Wanted:
    """Conditions on messages; all that are given must hold."""

    sender: str | None = None
    recipient: str | None = None
    alone: bool = False  # the status is that of the recipient alone, not of the whole message
    status: str | None = None  # as status_of_message tells it
    since: datetime | None = None
    before: UUID | None = None  # the cursor of the page before
    offset: int = 0
    limit: int = 100


@dataclass(frozen=True, slots=True)
class MessagePage:
    messages: tuple[FoundMessage, ...]
    cursor: UUID | None  # None: there are no more


# Parameters: $1 rows before, $2 since, $3 sender, $4 recipient. An id is a little older than its commit.
_RANGE = "{id} < $1 and {id} >= amtp_first_id($2::timestamptz - interval '5 minutes')"
_AGENT = "(select id from agents where name = $4 order by id desc limit 1)"


def _rows(table: str, column: str, condition: str = "") -> str:
    return (
        f"select {column} as id from {table} where {_RANGE.format(id=column)}{condition}"
        f" order by {column} desc limit {SCANNED_MAX}"
    )


_ALL = _rows("messages", "id")
_OF_SENDER = _rows("messages", "id", " and sender = $3")
_QUEUED = _rows("(select distinct message from deliveries) live", "message")
# Within the index of a table's key the recipient is compared without a look at the rows.
_TO_RECIPIENT = (
    "select distinct id from ("
    f"({_rows('entries', 'message', f' and agent = {_AGENT}')})"
    f" union all ({_rows('deliveries', 'message', ' and recipient = $4')})"
    f" union all ({_rows('settled', 'message', ' and recipient = $4')})"
    f") received order by id desc limit {SCANNED_MAX}"
)


def _source(wanted: Wanted) -> str:
    if wanted.status == "queued":
        return _QUEUED
    if wanted.sender is not None:
        return _OF_SENDER
    return _ALL if wanted.recipient is None else _TO_RECIPIENT


def _is_recipient() -> str:
    return " or ".join(
        [
            _exists("entries", f"x.agent = {_AGENT}"),
            _exists("deliveries", "x.recipient = $4"),
            _exists("settled", "x.recipient = $4"),
        ]
    )


def _has_status(status: str, *, alone: bool) -> str:
    """Returns the SQL condition that a message, or the one recipient asked for, has the status."""
    agent, recipient = (f"x.agent = {_AGENT}", "x.recipient = $4") if alone else ("true", "true")
    live = _exists("deliveries", recipient)
    lost = _exists("settled", f"{recipient} and x.status <> 'delivered'")
    settled = _exists("settled", f"{recipient} and x.status = 'delivered'")
    done = f"({_exists('entries', agent)} or {settled})"
    return {
        "queued": live,
        "delivered": f"not {live} and {done} and not {lost}",
        "failed": f"not {live} and {lost} and not {done}",
        "partial": f"not {live} and {lost} and {done}",
    }[status]


def _exists(table: str, condition: str) -> str:
    return f"exists (select from {table} x where x.message = s.id and {condition})"


def _condition(wanted: Wanted) -> str:
    condition = (
        "m.accepted_at >= $2 and ($3::text is null or m.sender = $3)"
        f" and ($4::text is null or {_is_recipient()})"
    )
    if wanted.status is not None:
        condition += f" and {_has_status(wanted.status, alone=wanted.alone)}"
    return condition


async def listing(database: Database, wanted: Wanted) -> MessagePage:
    source = _source(wanted)
    parameters = (wanted.before or LAST, max(wanted.since or FIRST, FIRST), wanted.sender, wanted.recipient)
    rows = await database.fetch(
        "select m.id, coalesce(m.public_id, m.id::text), m.sender, m.proven, m.accepted_at"
        f" from ({source}) s cross join lateral ("
        "  select id, public_id, sender, proven, accepted_at from messages where id = s.id offset 0"
        f" ) m where {_condition(wanted)} order by s.id desc offset $5 limit $6",
        *parameters,
        wanted.offset,
        wanted.limit + 1,
    )
    found = tuple(FoundMessage(*row) for row in rows[: wanted.limit])
    if len(rows) > wanted.limit:
        return MessagePage(found, found[-1].row)
    return MessagePage(found, await _end_of(database, source, parameters))


async def _end_of(database: Database, source: str, parameters: tuple[object, ...]) -> UUID | None:
    """Returns the last message that a full page looked at; None when it reached the end."""
    end: UUID | None = await database.fetchval(
        f"select id from ({source}) s where num_nulls($3::text, $4::text) >= 0"  # a source need not name both
        " order by id desc offset $5 limit 1",
        *parameters,
        SCANNED_MAX - 1,
    )
    return end
