"""Chores are done on their beat, and one that fails harms no other."""

import asyncio
import io

import pytest

from gateway.flow.housekeeping import Chore, Housekeeping
from gateway.journal.journal import Journal
from gateway.protocol.errors import AMTPError, Code
from tests.world import World

PATIENCE_SECONDS = 5.0


async def test_a_chore_that_fails_is_done_again_and_the_others_go_on() -> None:
    done: dict[str, int] = {"away": 0, "broken": 0, "well": 0}
    enough = asyncio.Event()

    def count(name: str) -> None:
        done[name] += 1
        if min(done.values()) >= 3:
            enough.set()

    async def away() -> None:
        count("away")
        raise AMTPError(Code.TEMPORARY_FAILURE, "The database is away.")

    async def broken() -> None:
        count("broken")
        raise ValueError("a secret value")

    async def well() -> None:
        count("well")

    log = io.StringIO()
    journal = Journal(log, form="text")
    chores = [Chore("away", 0.001, away), Chore("broken", 0.001, broken), Chore("well", 0.001, well)]
    running = asyncio.create_task(Housekeeping(chores, journal).run())
    async with asyncio.timeout(PATIENCE_SECONDS):
        await enough.wait()
    running.cancel()
    await asyncio.wait({running})
    journal.flush()
    assert "housekeeping: broken" in log.getvalue()
    assert "housekeeping: away" not in log.getvalue()
    assert "secret" not in log.getvalue()


async def test_all_chores_can_be_done_at_once_in_their_order() -> None:
    done: list[str] = []

    def chore(name: str) -> Chore:
        async def do() -> None:
            done.append(name)

        return Chore(name, 3600, do)

    await Housekeeping([chore("first"), chore("second")], Journal(io.StringIO())).once()
    assert done == ["first", "second"]


async def test_a_nearly_full_disk_is_told_when_it_begins_and_when_it_ends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.gateway() as gateway:
        for needed in (2**60, 2**60, 1, 1):
            monkeypatch.setattr("gateway.wiring.core.FREE_BYTES_MIN", needed)
            await gateway.app.housekeeping.once()
        gateway.app.journal.flush()
        metrics = (await gateway.call("GET", "/metrics")).text

    told = [line for line in gateway.log.getvalue().splitlines() if " free_bytes=" in line]
    assert [event in line for event, line in zip(("disk_nearly_full", "disk_has_room"), told, strict=True)]
    (free,) = [line for line in metrics.splitlines() if line.startswith("amtp_disk_free_bytes ")]
    assert float(free.split()[1]) > 0


async def test_a_database_that_is_back_is_told_of_though_nobody_sends(world: World) -> None:
    async with world.gateway() as gateway:
        gateway.app.journal.database_lost(OSError("a line was cut"))
        assert "amtp_database_up 0.0" in (await gateway.call("GET", "/metrics")).text
        await gateway.app.housekeeping.once()
        assert "amtp_database_up 1.0" in (await gateway.call("GET", "/metrics")).text


async def test_a_chore_that_is_being_done_is_waited_for_and_never_done_twice_at_a_time() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    done: list[str] = []

    async def slow() -> None:
        begun.set()
        await go_on.wait()
        done.append("slow")

    house = Housekeeping([Chore("slow", 3600, slow)], Journal(io.StringIO()))
    running = asyncio.create_task(house.run())
    await begun.wait()
    asked = asyncio.create_task(house.once())
    await asyncio.sleep(0)
    assert not asked.done()
    go_on.set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asked
    assert done == ["slow", "slow"]
    running.cancel()
    await asyncio.wait({running})
