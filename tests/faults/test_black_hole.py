"""One destination swallows everything and answers nothing: whoever writes to another does not notice."""

from tests.faults.black_hole import deliver_beside
from tests.federation import federation, loopback
from tests.world import World


async def test_thousands_that_wait_for_a_black_hole_delay_nobody_else(world: World) -> None:
    async with loopback() as ground, federation(world, ground) as net, net.gateway("acme.test") as acme:
        await deliver_beside(net, acme, queued=3000, messages=100)
