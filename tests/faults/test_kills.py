"""Whatever is killed: what was acknowledged is there, once. And the ledger would notice if it were not."""

import signal

from tests.faults.drills import (
    Site,
    cut_lines,
    kill_around_settling,
    kill_at,
    kill_databases,
    kill_gateways,
    listen_through,
    stop_in_order,
)
from tests.faults.ledger import Findings, Ledger, Line
from tests.faults.points import HASTY, KILL, Point

ONE = Line("reader@acme.test", "id-1", 1)
TWO = Line("reader@acme.test", "id-2", 2)


def test_the_ledger_sees_what_is_missing_what_is_there_twice_and_what_came_under_two_ids() -> None:
    again = Line(TWO.recipient, "id-3", TWO.serial)
    assert Ledger([ONE, TWO]).compare([ONE, TWO]).clean
    assert Ledger([ONE, TWO]).compare([TWO, TWO, again]) == Findings(
        missing=frozenset({ONE}), repeated=frozenset({TWO}), doubled=frozenset({2})
    )


async def test_the_ledger_reports_the_loss_of_a_gateway_that_answers_before_commit(one_gateway: Site) -> None:
    (gateway,) = one_gateway.gateways
    await gateway.kill()
    async with one_gateway.load() as load:
        await gateway.start(**{HASTY: "1", KILL: f"{Point.BEFORE_COMMIT}:5"})
        assert await gateway.ended() == -signal.SIGKILL
        await gateway.start()
    findings = await one_gateway.audit(load.ledger)
    assert findings.missing
    assert not findings.repeated


async def test_nothing_is_lost_or_doubled_when_the_gateway_is_killed_at_any_moment(one_gateway: Site) -> None:
    assert (await kill_gateways(one_gateway, kills=2, seed=1)).clean


async def test_nothing_is_lost_or_doubled_when_the_gateway_is_killed_around_its_commit(
    one_gateway: Site,
) -> None:
    points = (Point.IN_BATCH, Point.BEFORE_COMMIT, Point.AFTER_COMMIT)
    assert (await kill_at(one_gateway, points, seed=2)).clean


async def test_nothing_is_lost_or_doubled_when_postgres_is_killed(one_gateway: Site) -> None:
    blows = (signal.SIGQUIT, signal.SIGKILL)
    assert (await kill_databases(one_gateway, blows, seed=3)).clean


async def test_nothing_is_lost_or_doubled_when_every_connection_is_cut_each_second(one_gateway: Site) -> None:
    assert (await cut_lines(one_gateway, rounds=3, every_seconds=1)).clean


async def test_nothing_is_lost_or_doubled_when_one_of_two_gateways_is_killed(two_gateways: Site) -> None:
    assert (await kill_gateways(two_gateways, kills=2, seed=4)).clean


async def test_nothing_is_lost_or_doubled_when_the_gateway_is_killed_around_its_record_of_a_delivery(
    one_gateway: Site,
) -> None:
    points = (Point.BEFORE_SETTLE, Point.AFTER_SETTLE)
    assert (await kill_around_settling(one_gateway, points)).clean


async def test_whoever_listens_hears_all_that_was_acknowledged_whatever_is_killed(two_gateways: Site) -> None:
    assert (await listen_through(two_gateways, rounds=1, seed=5)).clean


async def test_a_gateway_that_is_told_to_stop_answers_every_request_it_took(one_gateway: Site) -> None:
    assert (await stop_in_order(one_gateway, stops=1)).clean
