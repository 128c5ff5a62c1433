"""Migrations to this release's schema: numbered files, forward only, one process at a time."""

import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from gateway import __version__
from gateway.store import partitions
from gateway.store.database import Database

SERVER_VERSIONS = range(15, 19)
LEDGER = (
    "create table if not exists migrations"
    " (number integer primary key, name text not null, at timestamptz not null)"
)
# Looked up before the table is altered, which would wait for its readers.
HAS_OLDEST = (
    "select exists (select from pg_attribute where attrelid = 'migrations'::regclass and attname = 'oldest')"
)
ADD_OLDEST = "alter table migrations add column oldest text not null default '0.1.0'"
DECLARED = re.compile(r"-- oldest: ([0-9.]+)\n")
LOCK_SECONDS_MAX = 600.0  # for another process to finish its migration


class SchemaError(Exception):
    """A database that this release can't use; the text names the reason and the remedy."""


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    statements: str

    @property
    def oldest(self) -> str:
        """Returns the oldest release that can live with it, as its first line declares."""
        declared = DECLARED.match(self.statements)
        if declared is None:
            raise SchemaError(
                f"{self.name}.sql doesn't begin with a line such as `-- oldest: {__version__}`."
            )
        return declared[1]


def migrations() -> list[Migration]:
    found = [
        Migration(int(file.name[:4]), file.name.removesuffix(".sql"), file.read_text())
        for file in files("gateway.store").joinpath("migrations").iterdir()
        if file.name.endswith(".sql")
    ]
    return sorted(found, key=lambda migration: migration.number)


async def pending(database: Database) -> list[str]:
    """Returns the names of the migrations this database still lacks."""
    async with database.connection() as connection:
        done = await _done(connection)
    return [migration.name for migration in migrations() if migration.number not in done]


async def migrate(database: Database) -> list[str]:
    """Applies what is missing, all of it or nothing, and returns the names."""
    applied = []
    async with database.transaction() as connection:
        _refuse_unknown_server(connection)
        await connection.execute("set local statement_timeout = 0")
        # Held to the end of the transaction, which a transaction pooler lets pass, too.
        await connection.execute(
            "select pg_advisory_xact_lock($1)", partitions.LOCK, timeout=LOCK_SECONDS_MAX
        )
        await connection.execute(LEDGER)
        if not await connection.fetchval(HAS_OLDEST):
            await connection.execute(ADD_OLDEST)
        done = await _done(connection)
        await _refuse_newer_schema(connection)
        for migration in migrations():
            if migration.number not in done:
                await _apply(connection, migration)
                applied.append(migration.name)
        await partitions.prepare(connection)
    return applied


async def _apply(connection: Any, migration: Migration) -> None:
    async with connection.transaction():
        await connection.execute(migration.statements, timeout=3600)
        await connection.execute(
            "insert into migrations (number, name, at, oldest) values ($1, $2, now(), $3)",
            migration.number,
            migration.name,
            migration.oldest,
        )


async def _done(connection: Any) -> set[int]:
    """Returns the numbers of applied migrations; changes nothing."""
    if await connection.fetchval("select to_regclass('migrations')") is None:
        return set()
    return {row["number"] for row in await connection.fetch("select number from migrations")}


def _refuse_unknown_server(connection: Any) -> None:
    major = connection.get_server_version().major
    if major not in SERVER_VERSIONS:
        raise SchemaError(
            f"Postgres {major} is not supported: use {SERVER_VERSIONS[0]} to {SERVER_VERSIONS[-1]}."
        )


async def _refuse_newer_schema(connection: Any) -> None:
    """Raises where migrations of a newer release, by their own declaration, rule out this one."""
    unknown = await connection.fetch(
        "select name, oldest from migrations where number <> all($1::int[]) order by number",
        [migration.number for migration in migrations()],
    )
    for row in unknown:
        if _release(row["oldest"]) > _release(__version__):
            raise SchemaError(
                f"The database was migrated by a newer release ({row['name']}), and this one ({__version__}) can't"
                f" work with it: install {row['oldest']} or newer."
            )


def _release(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
