"""The bell: whoever waits is woken by a commit, here or elsewhere, and by nothing missed in between."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from gateway.journal.journal import Journal
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.row_ids import Mint
from gateway.store.wakeups import bell as bells
from gateway.store.wakeups.bell import Bell, Ear
from gateway.store.wakeups.topics import heard_in
from tests.conftest import Server
from tests.store.inbox.test_inbox import Box, box_of
from tests.telling import until

NEVER_SECONDS = 60.0  # a test that waits this long has failed
PATIENCE_SECONDS = 20.0


@asynccontextmanager
async def running(database: Database) -> AsyncIterator[Bell]:
    bell = Bell(database, Journal(io.StringIO()))
    task = asyncio.create_task(bell.run())
    try:
        yield bell
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def listeners(database: Database) -> int:
    count: int = await database.fetchval(
        "select count(*) from pg_stat_activity where query ilike 'listen%' and datname = current_database()"
    )
    return count


async def until_listening(database: Database) -> None:
    await until(lambda: listeners(database), PATIENCE_SECONDS, 0.01)


@pytest.fixture
def rare_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what wakes is a notice."""
    monkeypatch.setattr(bells, "POLL_SECONDS", NEVER_SECONDS)


@pytest.fixture
async def box(database: Database, mint: Mint, clock: Clock) -> Box:
    return await box_of(database, mint, clock, "alice")


async def test_what_rings_before_the_wait_is_heard_by_it() -> None:
    ear = Ear()
    ear.ring()
    assert await ear.rung(NEVER_SECONDS)


async def test_a_ring_is_heard_once() -> None:
    ear = Ear()
    ear.ring()
    assert await ear.rung(0)
    assert not await ear.rung(0)


async def test_a_ring_ends_the_wait() -> None:
    ear = Ear()
    asyncio.get_running_loop().call_soon(ear.ring)
    assert await ear.rung(NEVER_SECONDS)


async def test_silence_ends_with_the_time() -> None:
    assert not await Ear().rung(0.01)


async def test_a_hushed_ear_waits_no_more() -> None:
    ear = Ear()
    asyncio.get_running_loop().call_soon(ear.hush)
    assert not await ear.rung(NEVER_SECONDS)
    ear.ring()
    assert not await ear.rung(NEVER_SECONDS)


async def test_only_those_who_wait_for_the_topic_are_woken(database: Database) -> None:
    bell = Bell(database, Journal(io.StringIO()))
    with bell.ear(1) as mine, bell.ear(1) as also_mine, bell.ear(2) as other, bell.ear("reply:1") as text:
        bell.ring([1, 3])
        assert [await ear.rung(0) for ear in (mine, also_mine, other, text)] == [True, True, False, False]
        bell.ring(["reply:1"])
        assert [await ear.rung(0) for ear in (mine, also_mine, other, text)] == [False, False, False, True]


async def test_an_ear_that_is_gone_leaves_nothing_behind(database: Database) -> None:
    bell = Bell(database, Journal(io.StringIO()))
    for _ in range(3):
        with bell.ear(1), bell.ear(1):
            pass
    assert not bell._ears


def test_a_notice_names_inboxes_by_number_and_other_topics_by_text() -> None:
    assert heard_in("12,reply:a,7") == [12, "reply:a", 7]
    assert heard_in("") == []


@pytest.mark.usefixtures("rare_polls")
@pytest.mark.parametrize(("topic", "notice"), [(5, "4,5"), ("reply:a", "reply:a"), (5, "*")])
async def test_a_notice_of_another_process_wakes(database: Database, topic: int | str, notice: str) -> None:
    async with running(database) as bell:
        await until_listening(database)
        with bell.ear(topic) as ear:
            await database.execute("select pg_notify('amtp_inbox', $1)", notice)
            assert await ear.rung(NEVER_SECONDS)


@pytest.mark.usefixtures("rare_polls")
async def test_a_lost_line_is_replaced_and_wakes_everybody(database: Database) -> None:
    async with running(database) as bell:
        await until_listening(database)
        with bell.ear(5) as ear:
            await database.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where query ilike 'listen%' and datname = current_database()"
            )
            assert await ear.rung(NEVER_SECONDS)
            await until_listening(database)
            await database.execute("select pg_notify('amtp_inbox', '5')")
            assert await ear.rung(NEVER_SECONDS)


async def still(*ears: Ear) -> None:
    """Until they hear no more of what rang as the bell began to listen; polls alone don't ring."""
    for ear in ears:
        await ear.rung(0.2)
    for ear in ears:
        assert not await ear.rung(0.2)


async def test_a_poll_finds_what_no_notice_told(
    database: Database, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bells, "POLL_SECONDS", 0.05)
    async with running(database) as bell:
        await until_listening(database)
        with bell.ear(box.agent) as ear, bell.ear(box.agent + 1) as other:
            await still(ear, other)
            await box.put()
            assert await ear.rung(NEVER_SECONDS)
            assert not await other.rung(0)


async def test_a_poll_finds_the_inbox_whose_lease_ended(
    database: Database, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bells, "POLL_SECONDS", 0.05)
    await box.put()
    await box.take(seconds=30)
    async with running(database) as bell:
        await until_listening(database)
        with bell.ear(box.agent) as ear:
            await still(ear)
            box.turn(31)
            assert await ear.rung(NEVER_SECONDS)


async def test_where_nothing_can_listen_polls_are_enough(
    dsn: str, clock: Clock, mint: Mint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bells, "POLL_SECONDS_DEAF", 0.05)
    pooled = Database(dsn, clock=clock, pooled=True)
    await pooled.open()
    box = await box_of(pooled, mint, clock, "alice")
    async with running(pooled) as bell:
        with bell.ear(box.agent) as ear:
            assert not await ear.rung(0.2)
            await box.put()
            assert await ear.rung(NEVER_SECONDS)
        assert await listeners(pooled) == 0
    await pooled.close()


async def test_it_survives_a_database_that_is_away(
    dsn: str, server: Server, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bells, "POLL_SECONDS_DEAF", 0.02)
    name = dsn.split("///")[1].split("?")[0]
    journal = Journal(io.StringIO())
    bell = Bell(database, journal)
    elsewhere = await asyncpg.connect(server.dsn_of("postgres"))
    await elsewhere.execute(f"alter database {name} allow_connections false")
    task = asyncio.create_task(bell.run())

    async def noticed() -> bool:
        return bool(journal.metrics.database_losses._value.get() > 0)

    with bell.ear("reply:a") as ear:
        await until(noticed, PATIENCE_SECONDS, 0.01)
        await elsewhere.execute(f"alter database {name} allow_connections true")
        await until_listening(database)
        assert await ear.rung(NEVER_SECONDS)
    await elsewhere.close()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.usefixtures("rare_polls")
async def test_a_notice_of_a_writer_that_rings_itself_wakes_nobody_again(database: Database) -> None:
    async with running(database) as bell:
        await until_listening(database)
        writer = await database.line(rings=True)
        with bell.ear(5) as ear, bell.ear(6) as other:
            await still(ear, other)
            await writer.execute("select pg_notify('amtp_inbox', '5')")
            await database.execute("select pg_notify('amtp_inbox', '6')")
            assert await other.rung(NEVER_SECONDS)
            assert not await ear.rung(0)
            await writer.close()
            await database.execute("select pg_notify('amtp_inbox', '5')")
            assert await ear.rung(NEVER_SECONDS)
