"""Ten kills of each kind, each time with the same question: is everything there that was acknowledged, once?"""

import signal

import pytest

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
from tests.faults.points import Point

POINTS = (Point.IN_BATCH, Point.BEFORE_COMMIT, Point.AFTER_COMMIT)
BLOWS = (signal.SIGQUIT, signal.SIGKILL)


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_lost_or_doubled_when_the_gateway_is_killed_at_any_moment(
    one_gateway: Site, seed: int
) -> None:
    assert (await kill_gateways(one_gateway, kills=10, seed=seed)).clean


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_lost_or_doubled_when_the_gateway_is_killed_around_its_commit(
    one_gateway: Site, seed: int
) -> None:
    assert (await kill_at(one_gateway, POINTS * 4, seed)).clean


@pytest.mark.parametrize("seed", range(2))
async def test_nothing_is_lost_or_doubled_when_postgres_is_killed(one_gateway: Site, seed: int) -> None:
    assert (await kill_databases(one_gateway, BLOWS * 5, seed)).clean


async def test_nothing_is_lost_or_doubled_when_every_connection_is_cut_each_second(one_gateway: Site) -> None:
    assert (await cut_lines(one_gateway, rounds=60, every_seconds=1)).clean


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_lost_or_doubled_when_any_of_two_gateways_is_killed(
    two_gateways: Site, seed: int
) -> None:
    assert (await kill_gateways(two_gateways, kills=10, seed=seed)).clean


@pytest.mark.parametrize("seed", range(2))
async def test_whoever_listens_hears_all_that_was_acknowledged_whatever_is_killed(
    two_gateways: Site, seed: int
) -> None:
    assert (await listen_through(two_gateways, rounds=5, seed=seed)).clean


async def test_nothing_is_lost_or_doubled_when_the_gateway_is_killed_around_its_record_of_a_delivery(
    one_gateway: Site,
) -> None:
    points = (Point.BEFORE_SETTLE, Point.AFTER_SETTLE)
    assert (await kill_around_settling(one_gateway, points * 5)).clean


async def test_a_gateway_that_is_told_to_stop_answers_every_request_it_took(one_gateway: Site) -> None:
    assert (await stop_in_order(one_gateway, stops=10)).clean
