"""Brings a database to this release's schema: numbered files, forward only, one process at a time."""

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from gateway.store import partitions
from gateway.store.database import Database

SERVER_VERSIONS = range(15, 19)
LEDGER = (
    "create table if not exists migrations"
    " (number integer primary key, name text not null, at timestamptz not null)"
)
LOCK_SECONDS_MAX = 600.0  # for another process to finish its migration
MIGRATION_SECONDS_MAX = 3600.0


class SchemaError(Exception):
    """The database can't be used by this release; the text says why and what helps."""


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    statements: str


def migrations() -> list[Migration]:
    found = [
        Migration(int(file.name[:4]), file.name.removesuffix(".sql"), file.read_text())
        for file in files("gateway.store").joinpath("migrations").iterdir()
        if file.name.endswith(".sql")
    ]
    return sorted(found, key=lambda migration: migration.number)


async def pending(database: Database) -> list[str]:
    """Names of the migrations this database still lacks."""
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
        done = await _done(connection)
        _refuse_newer_schema(done)
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
            "insert into migrations (number, name, at) values ($1, $2, now())",
            migration.number,
            migration.name,
        )


async def _done(connection: Any) -> set[int]:
    """The numbers of those applied; looking changes nothing."""
    if await connection.fetchval("select to_regclass('migrations')") is None:
        return set()
    return {row["number"] for row in await connection.fetch("select number from migrations")}


def _refuse_unknown_server(connection: Any) -> None:
    major = connection.get_server_version().major
    if major not in SERVER_VERSIONS:
        raise SchemaError(
            f"Postgres {major} is not supported: use {SERVER_VERSIONS[0]} to {SERVER_VERSIONS[-1]}."
        )


def _refuse_newer_schema(done: set[int]) -> None:
    newest = max((migration.number for migration in migrations()), default=0)
    if done and max(done) > newest + 1:
        # Migrations expand before they contract, so one release back still works; further back does not.
        raise SchemaError(
            f"The database is at schema {max(done)}, this release knows {newest}: install a newer release."
        )
