"""Rows about inboxes: how fast they are emptied, and what it costs that agents wait before empty ones."""

import asyncio
import json
from collections.abc import Sequence
from time import monotonic

from tests.bench.cost import resident_bytes
from tests.bench.exchange import Connection, rendered
from tests.bench.figures import Figure, Run
from tests.bench.load import Letter, waiting
from tests.bench.site import Agent, Process, Site

AT_ONCE, CONSUMERS, FLOOR = 100, 4, 15_000
WAITERS, WAIT_SECONDS = 1000, 60  # the longest wait that is allowed: what an idle agent asks for
CPU_PERCENT_MAX, RESIDENT_MB_MAX = 5, 60
SETTLE_SECONDS = 5.0


async def emptied(site: Site, gateway: Process, agents: Sequence[Agent], *, seconds: float) -> Figure:
    """Fetch a hundred, acknowledge a hundred, by several agents at once."""
    await site.rest()
    ends, before, started = monotonic() + seconds, site.cost(gateway), monotonic()

    async def consume(agent: Agent) -> int:
        connection, done = await Connection.open(gateway.port), 0
        path = f"/v1/inbox/{agent.address}"
        while monotonic() < ends:
            _, page = await connection.exchange(rendered("GET", f"{path}?limit={AT_ONCE}", agent.key))
            ids = [message["message_id"] for message in json.loads(page)["messages"]]
            if not ids:
                break
            body = json.dumps({"message_ids": ids}).encode()
            status, answer = await connection.exchange(rendered("POST", f"{path}/ack", agent.key, body))
            if status != 200 or json.loads(answer)["acknowledged"] != len(ids):
                raise SystemExit(f"not acknowledged: {answer!r}")
            done += len(ids)
        connection.close()
        return done

    done = sum(await asyncio.gather(*map(consume, agents[:CONSUMERS])))
    elapsed, spent = monotonic() - started, site.cost(gateway).since(before)
    run = Run(done / elapsed, spent.microseconds_each(done), spent.shares(elapsed))
    return Figure(f"fetch and acknowledge in hundreds, {CONSUMERS} agents", "msg/s", [run], floor=FLOOR)


async def idle(site: Site, *, seconds: float) -> list[Figure]:
    """A thousand agents wait, each before its own empty inbox."""
    async with site.gateway() as gateway:
        agents = await site.register(gateway, [f"idle-{number}" for number in range(WAITERS)])
        await site.rest()
        await asyncio.sleep(1)
        empty, base = resident_bytes(gateway.pid), await _percent(site, gateway, SETTLE_SECONDS)
        letters = [Letter(each.address, each.key, each.address) for each in agents]
        async with waiting(kind="idle", port=gateway.port, agents=letters, wait_seconds=WAIT_SECONDS):
            await asyncio.sleep(SETTLE_SECONDS)
            busy = await _percent(site, gateway, seconds)
            full = resident_bytes(gateway.pid)
    shares = {name: round(busy[name] - base[name], 1) for name in busy}
    return [
        Figure(
            f"CPU of {WAITERS} idle long-pollers more than none",
            "%",
            [Run(sum(shares.values()), shares=shares)],
            floor=CPU_PERCENT_MAX,
            small=True,
            note=f"waits of {WAIT_SECONDS} s",
        ),
        Figure(
            f"gateway memory for {WAITERS} idle long-pollers",
            "MB",
            [Run((full - empty) / 1e6)],
            floor=RESIDENT_MB_MAX,
            small=True,
        ),
    ]


async def _percent(site: Site, gateway: Process, seconds: float) -> dict[str, float]:
    before, started = site.cost(gateway), monotonic()
    await asyncio.sleep(seconds)
    shares = site.cost(gateway).since(before).shares(monotonic() - started)
    del shares["client"]
    return shares
