"""Whatever goes wrong on the way between two gateways: what was acknowledged is there in the end, once."""

import asyncio
from itertools import chain

from conformance.fake_peer import Exchange, FakePeer
from tests.faults.bad_road import faults_of, passes_on
from tests.faults.crossing import Crossing

PATIENCE_SECONDS = 60.0


async def test_whatever_becomes_of_a_request_its_messages_arrive_once(
    bad_road: tuple[FakePeer, Crossing],
) -> None:
    road, across = bad_road
    well, over = passes_on(across), asyncio.Event()

    async def well_from_now_on(exchange: Exchange) -> None:
        over.set()
        await well(exchange)

    faults = faults_of(across).values()
    road.will(*chain.from_iterable((fault, well) for fault in faults), well_from_now_on)
    async with across.load() as load:
        await asyncio.wait_for(over.wait(), PATIENCE_SECONDS)
    await across.arrived_later()
    assert (await across.audit(load.ledger)).clean
