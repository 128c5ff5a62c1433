"""What operators do to destinations, as workers come to know it."""

from datetime import timedelta

import pytest

from gateway.features.operations.destinations import DestinationState, Traffic, destination, destinations
from gateway.store.audit import Audit
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.queue.destinations import note_failure, troubled
from gateway.store.row_ids import Mint
from tests.store.house import House


@pytest.fixture
def house(database: Database, mint: Mint, clock: Clock) -> House:
    return House(database, mint, clock)


@pytest.fixture
def traffic(database: Database, mint: Mint) -> Traffic:
    return Traffic(database, Audit(mint()))


async def test_a_pause_is_known_to_workers_until_it_ends(house: House, traffic: Traffic) -> None:
    await traffic.pause("p.test", actor="ops", reason="they asked", seconds=60)
    assert (await troubled(house.database))["p.test"].paused
    shown = await destination(house.database, "p.test")
    assert (shown.paused_by, shown.pause_reason, shown.queued) == ("ops", "they asked", 0)
    house.turn(61)
    assert await troubled(house.database) == {}
    shown = await destination(house.database, "p.test")
    assert shown.paused_at is None


async def test_a_pause_without_an_end_lasts_until_somebody_resumes(house: House, traffic: Traffic) -> None:
    await traffic.pause("p.test", actor="ops", reason="they asked", seconds=None)
    house.turn(30 * 86400)
    assert (await troubled(house.database))["p.test"].paused
    await traffic.resume("p.test", actor="ops")
    assert await troubled(house.database) == {}


async def test_a_reset_closes_the_breaker_and_keeps_the_pause(house: House, traffic: Traffic) -> None:
    until = house.clock.now() + timedelta(minutes=1)
    await note_failure(house.database, "p.test", 7, until, "No route.")
    await traffic.pause("p.test", actor="ops", reason="they asked", seconds=None)
    await traffic.reset("p.test", actor="ops")
    known = (await troubled(house.database))["p.test"]
    assert (known.paused, known.failures, known.open_until) == (True, 0, None)


async def test_a_flush_makes_due_what_failed_there_and_nothing_else(house: House, traffic: Traffic) -> None:
    row = await house.send("x@p.test", "y@p.test", "x@q.test")
    await house.lease()
    for recipient in ("x@p.test", "y@p.test", "x@q.test"):
        due = house.clock.now() + timedelta(hours=1)
        await house.end(row, recipient, due=due, code="TEMPORARY_FAILURE", error="Later.")
    await house.database.execute("update deliveries set state = 'held' where recipient = 'y@p.test'")
    await house.send("later@p.test", due=3600)
    assert await traffic.flush("p.test", actor="ops") == 1
    shown = await destination(house.database, "p.test")
    assert (shown.queued, shown.held, shown.due, shown.scheduled) == (2, 1, 1, 1)
    assert shown.last_error == "Later."
    rows = await house.database.fetch("select actor, act, subject from audit")
    assert [tuple(row) for row in rows] == [("ops", "destination.flush", "p.test")]


async def test_a_flush_tries_now_what_waits_behind_the_breaker_and_says_how_much(
    house: House, traffic: Traffic
) -> None:
    await house.send("x@p.test", "y@p.test")
    until = house.clock.now() + timedelta(minutes=1)
    await note_failure(house.database, "p.test", 9, until, "No route.", unreachable=True)
    assert await traffic.flush("p.test", actor="ops") == 2
    open_until = (await troubled(house.database))["p.test"].open_until
    assert open_until is not None
    assert open_until <= house.clock.now()  # half open: one goes ahead


async def test_the_list_names_where_something_waits_and_of_what_something_is_known(
    house: House, traffic: Traffic
) -> None:
    await house.send("x@b.test", "x@c.test")
    await traffic.pause("a.test", actor="ops", reason="they asked", seconds=None)
    found = await destinations(house.database, after="", limit=10)
    assert [(one.name, one.queued) for one in found] == [("a.test", 0), ("b.test", 1), ("c.test", 1)]
    assert [one.name for one in await destinations(house.database, after="a.test", limit=1)] == ["b.test"]
    assert await destination(house.database, "nowhere.test") == DestinationState("nowhere.test")
