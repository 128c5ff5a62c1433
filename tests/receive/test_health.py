"""Alive, ready, and how it fares: asked on the listeners of strangers and of operators."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import asyncpg
import pytest

from gateway import __version__
from gateway.http.roles import Role
from gateway.journal.metrics import Metrics
from gateway.receive.health import DatabaseLook, HealthDoor, Look, disk_look, draining_look
from gateway.store.clock import Clock
from gateway.store.database import Database
from tests.conftest import Server
from tests.receive.doorway import Doorway, doorway, get

ADMIN = frozenset({Role.ADMIN})
RENAMES_MAX = 4
STRANGERS = frozenset({Role.PUBLIC, Role.AGENTS})


@asynccontextmanager
async def opened(looks: Sequence[Look] = (), roles: frozenset[Role] = ADMIN) -> AsyncIterator[Doorway]:
    door = HealthDoor(looks=looks, metrics=Metrics(), clock=Clock())
    async with doorway(door.routes(), roles=roles) as entrance:
        yield entrance
        assert not entrance.diary.failed


async def ailing() -> None:
    raise AssertionError("health never looks")


async def test_a_process_that_lives_says_so_with_its_version_whatever_else_is_wrong() -> None:
    async with opened([ailing], STRANGERS) as doorway:
        reply = await doorway.ask(get("/health"))
    assert reply.status == 200
    assert reply.json["healthy"] is True
    assert (reply.json["version"], reply.json["protocol"]) == (__version__, "1.0")


async def test_it_is_ready_while_the_database_is_well(database: Database) -> None:
    async with opened([DatabaseLook(database)], STRANGERS) as doorway:
        reply = await doorway.ask(get("/ready"))
    assert (reply.status, reply.json) == (200, {"status": "ready", "ready": True})


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        ("alter database {} set default_transaction_read_only = on", "database_read_only"),
        ("delete from migrations", "schema_behind"),
    ],
)
async def test_what_is_wrong_with_the_database_is_told(
    dsn: str, database: Database, spoil: str, cause: str
) -> None:
    name = await database.fetchval("select current_database()")
    await database.execute(spoil.format(name))
    fresh = Database(dsn, clock=Clock())
    await fresh.open()
    async with opened([DatabaseLook(fresh)]) as doorway:
        reply = await doorway.ask(get("/ready"))
    await fresh.close()
    assert (reply.status, reply.code) == (503, "TEMPORARY_FAILURE")
    assert reply.json["error"]["details"] == {"causes": [cause]}
    assert "retry-after" in reply.headers


async def test_a_database_that_is_away_makes_it_unready_until_it_is_back(
    database: Database, server: Server
) -> None:
    name = await database.fetchval("select current_database()")
    operator = await asyncpg.connect(server.dsn_of("postgres"))
    async with opened([DatabaseLook(database, remembered_seconds=0)]) as doorway:
        await take_away(operator, name)
        reply = await doorway.ask(get("/ready"))
        assert not doorway.diary.failed
        assert reply.json["error"]["details"] == {"causes": ["database_away"]}
        assert (await doorway.ask(get("/health"))).status == 200
        await operator.execute(f"alter database {name}_away rename to {name}")
        assert (await doorway.ask(get("/ready"))).status == 200
    await operator.close()


async def take_away(operator: asyncpg.Connection, name: str) -> None:
    """Renames the database as soon as nobody is connected; whoever comes in between is sent away too."""
    for _ in range(RENAMES_MAX):
        await operator.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", name
        )
        with suppress(asyncpg.ObjectInUseError):  # Postgres waited for five seconds
            await operator.execute(f"alter database {name} rename to {name}_away")
            return
    raise AssertionError("somebody stays connected")


async def test_the_database_is_not_asked_for_everyone_who_asks(database: Database) -> None:
    look = DatabaseLook(database, remembered_seconds=60)
    assert await look() is None
    await database.execute("delete from migrations")
    assert await look() is None
    assert await DatabaseLook(database)() is not None


@pytest.mark.parametrize(
    ("look", "cause"),
    [
        (disk_look(lambda: 10 << 20, 256 << 20), "disk_nearly_full"),
        (draining_look(lambda: True), "draining"),
    ],
)
async def test_why_it_is_not_ready_is_for_operators_to_see(look: Look, cause: str) -> None:
    async with opened([look]) as doorway:
        told = (await doorway.ask(get("/ready"))).json["error"]
    async with opened([look], STRANGERS) as doorway:
        untold = (await doorway.ask(get("/ready"))).json["error"]
    assert told["details"] == {"causes": [cause]}
    assert untold["message"] == "The gateway is not ready."
    assert "details" not in untold


async def test_enough_room_and_no_drain_are_no_cause() -> None:
    assert await disk_look(lambda: 256 << 20, 256 << 20)() is None
    assert await draining_look(lambda: False)() is None


async def test_metrics_are_on_listeners_for_operators_alone() -> None:
    async with opened() as doorway:
        reply = await doorway.ask(get("/metrics"))
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"# TYPE amtp_messages_accepted_total counter" in reply.body
    async with opened(roles=STRANGERS) as doorway:
        assert (await doorway.ask(get("/metrics"))).code == "NOT_FOUND"
