"""The first retries of two hundred messages at low load, on the clock on the wall: within what was promised, and spread."""

import asyncio
import itertools
import json
import time
from collections import Counter, defaultdict

from conformance.fake_peer import Exchange, receipt
from gateway.protocol.retry import SPREAD
from tests.federation import federation, loopback
from tests.world import World

MESSAGES, PER_SECOND = 200, 10
RETRIES = 3
LATE_SECONDS_MAX = 0.05
REFUSAL = b'{"error": {"code": "TEMPORARY_FAILURE", "message": "Not now."}}'


async def test_every_retry_of_two_hundred_messages_comes_in_its_time(world: World) -> None:
    tried: dict[str, list[float]] = defaultdict(list)

    async def behave(exchange: Exchange) -> None:
        (message,) = (await exchange.read_body()).messages
        moments = tried[message["message_id"]]
        moments.append(time.monotonic())
        if len(moments) <= RETRIES:
            await exchange.answer(503, REFUSAL)
        else:
            await exchange.answer(202, json.dumps(receipt(message)).encode())

    async with (
        loopback() as ground,
        federation(world, ground) as net,
        net.gateway("acme.test") as acme,
        net.peer() as peer,
    ):
        peer.will(behave)
        alice = await acme.register("alice")
        for n in range(MESSAGES):
            await alice.send("bob@peer.test", payload=n)
            await asyncio.sleep(1 / PER_SECOND)
        async with asyncio.timeout(60):
            while await acme.app.database.fetchval("select exists (select from deliveries)"):
                await asyncio.sleep(0.1)
    assert len(tried) == MESSAGES
    latest = []
    for retry in range(RETRIES):
        usual = 2.0**retry
        gaps = [list(itertools.pairwise(moments))[retry] for moments in tried.values()]
        seconds = sorted(after - before for before, after in gaps)
        latest.append(seconds[-1] - usual * (1 + SPREAD))
        told = [f"{seconds[place]:.3f}" for place in (0, MESSAGES // 4, MESSAGES // 2, 3 * MESSAGES // 4, -1)]
        print(f"retry {retry + 1} after {' '.join(told)} s (the quarters), {1000 * latest[-1]:+.0f} ms")
        assert seconds[0] >= usual * (1 - SPREAD)
        quarters = Counter(min(int((gap / usual - 1 + SPREAD) / SPREAD * 2), 3) for gap in seconds)
        assert all(quarters[quarter] >= MESSAGES / 20 for quarter in range(4)), quarters
    assert max(latest) <= LATE_SECONDS_MAX
