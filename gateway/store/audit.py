"""The audit log of what operators and agents did: written in the transaction of the act, hash-chained row to row.

Each process has a chain of its own, so none waits for another. A link is the SHA-256 over the link before
and the row; a row that is changed, removed or moved breaks the chain there. A chain whose last rows were cut off
still verifies: an operator who needs to detect that keeps the last link elsewhere.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID

from gateway.store.database import Database

GENESIS = bytes(32)  # what the first row of a chain is linked to
ROWS_AT_ONCE = 1000

Details = Mapping[
    str, Any
]  # text, whole numbers, booleans and lists of them: what JSON brings back unchanged


class Audit:
    """The chain of one process."""

    def __init__(self, process: UUID) -> None:
        self._process = process

    async def write(
        self, connection: Any, actor: str, act: str, subject: str, details: Details | None = None
    ) -> None:
        """Appends a row in the caller's open transaction, as its last act: other writers of this process wait meanwhile."""
        # The lock ends with the transaction, so the next writer reads a committed row.
        await connection.execute(
            "select pg_advisory_xact_lock(hashtextextended('amtp audit ' || $1, 0))", str(self._process)
        )
        last = await connection.fetchrow(
            "select amtp_now() as at, number, link from (select 1) one left join lateral"
            " (select number, link from audit where process = $1 order by number desc limit 1) chain on true",
            self._process,
        )
        number, before = (1, GENESIS) if last["number"] is None else (last["number"] + 1, last["link"])
        row = [self._process, number, last["at"], actor, act, subject, details]
        await connection.execute(
            "insert into audit (process, number, at, actor, act, subject, details, link)"
            " values ($1, $2, $3, $4, $5, $6, $7, $8)",
            *row[:-1],
            None if details is None else json.dumps(details),
            link_of(before, row),
        )


def link_of(before: bytes, row: Sequence[Any]) -> bytes:
    """Returns the link of a row: the hash over the link before it and the row."""
    text = json.dumps(row, default=str, sort_keys=True, separators=(",", ":"))
    return sha256(before + text.encode()).digest()


@dataclass(frozen=True, slots=True)
class Break:
    """A row that does not follow from the one before it."""

    process: UUID
    number: int
    reason: str


async def verify(database: Database) -> list[Break]:
    """Returns the first break of each chain; none means that no row still present was changed.

    A chain may begin later than with its first row: old rows are dropped when their time is over.
    """
    found: dict[UUID, Break] = {}
    previous: Any = None
    async for row in _rows(database):
        begins = previous is None or previous["process"] != row["process"]
        if row["process"] not in found:
            reason = _fault(row, None if begins else previous)
            if reason is not None:
                found[row["process"]] = Break(row["process"], row["number"], reason)
        previous = row
    return list(found.values())


def _fault(row: Any, previous: Any) -> str | None:
    if previous is None and row["number"] > 1:
        return None  # what it was linked to is no longer kept
    if previous is not None and row["number"] != previous["number"] + 1:
        return "rows before this one are missing"
    details = None if row["details"] is None else json.loads(row["details"])
    before = GENESIS if previous is None else previous["link"]
    columns = [row[name] for name in ("process", "number", "at", "actor", "act", "subject")]
    if link_of(before, [*columns, details]) != row["link"]:
        return "this row, or the one before it, was changed"
    return None


async def _rows(database: Database) -> AsyncIterator[Any]:
    """Yields every row, chain by chain, fetching a bounded number at a time."""
    process, number = UUID(int=0), 0
    while True:
        rows = await database.fetch(
            "select * from audit where (process, number) > ($1, $2) order by process, number limit $3",
            process,
            number,
            ROWS_AT_ONCE,
        )
        for row in rows:
            yield row
        if len(rows) < ROWS_AT_ONCE:
            return
        process, number = rows[-1]["process"], rows[-1]["number"]
