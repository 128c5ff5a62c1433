"""Five thousand messages on a road where every fourth request goes wrong, each time in another way."""

from random import Random

import pytest

from conformance.fake_peer import Exchange, FakePeer, hangs
from tests.faults.bad_road import faults_of, passes_on
from tests.faults.crossing import Crossing

MESSAGES = 5000
WRONG = 0.25
RESCUE_SECONDS = 300.0


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_becomes_of_a_request_its_messages_arrive_once(
    bad_road: tuple[FakePeer, Crossing], seed: int
) -> None:
    road, across = bad_road
    chance = Random(seed)
    well, wrong = passes_on(across), [*faults_of(across).values(), hangs]

    async def any_fate(exchange: Exchange) -> None:
        await (chance.choice(wrong) if chance.random() < WRONG else well)(exchange)

    road.will(any_fate)
    async with across.load() as load:
        await load.acknowledged(MESSAGES)
    road.will(well)
    await across.arrived(RESCUE_SECONDS)
    assert (await across.audit(load.ledger)).clean
