"""Rows about those who wait for the answer with the request that asks: what the gateway adds to the agent's time."""

import asyncio
from dataclasses import asdict
from time import monotonic

from tests.bench.cost import resident_bytes
from tests.bench.figures import Figure, Run
from tests.bench.load import Letter, ask, waiting
from tests.bench.site import Process, Site

RATE, CONNECTIONS = 100, 200
WAITERS = 2000
P95_MS_MAX = 500
SETTLE_SECONDS = 5.0


async def waiting_rows(site: Site, *, runs: int, seconds: float) -> list[Figure]:
    """Questions at a fixed rate, alone, and beside two thousand whose replies never come."""
    async with site.gateway() as gateway:
        asker, answerer, silent = await site.register(gateway, ["asker", "answerer", "silent"])
        await site.rest()
        letter = Letter(asker.address, asker.key, answerer.address)
        alone = [await _answered(site, gateway, letter, answerer.key, seconds) for _ in range(runs)]
        empty = resident_bytes(gateway.pid)
        patient = waiting(
            kind="patient", port=gateway.port, agents=[letter], silent=silent.address, connections=WAITERS
        )
        async with patient:
            await asyncio.sleep(SETTLE_SECONDS)
            grown = (resident_bytes(gateway.pid) - empty) / 1e6
            beside = [await _answered(site, gateway, letter, answerer.key, seconds) for _ in range(runs)]
    name = f"p95 of a reply beyond its agent's time, {RATE}/s"
    return [
        Figure(name, "ms", alone, floor=P95_MS_MAX, small=True),
        Figure(
            f"... while {WAITERS} others wait",
            "ms",
            beside,
            floor=P95_MS_MAX,
            small=True,
            note=f"they take {grown:.0f} MB of the gateway's memory",
        ),
    ]


async def _answered(site: Site, gateway: Process, letter: Letter, key: str, seconds: float) -> Run:
    before, started = site.cost(gateway), monotonic()
    result = await ask(
        kind="asking",
        port=gateway.port,
        agents=[letter],
        answerer=asdict(Letter(letter.recipient, key, letter.address)),
        rate=RATE,
        connections=CONNECTIONS,
        seconds=seconds,
    )
    if result["missed"]:
        raise SystemExit(f"{result['missed']} questions had no answer")
    spent = site.cost(gateway).since(before)
    each = spent.microseconds_each(result["answered"])
    return Run(result["p95_ms"], each, spent.shares(monotonic() - started))
