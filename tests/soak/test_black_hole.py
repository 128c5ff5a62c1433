"""A hundred thousand wait for one that never answers, and two thousand pass them by."""

from tests.faults.black_hole import deliver_beside
from tests.federation import federation, loopback
from tests.world import World


async def test_a_hundred_thousand_that_wait_for_a_black_hole_delay_nobody_else(world: World) -> None:
    async with loopback() as ground, federation(world, ground) as net, net.gateway("acme.test") as acme:
        await deliver_beside(net, acme, queued=100_000, messages=2000)
