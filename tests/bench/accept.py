"""Rows about the acknowledgement: how many messages are durable each second, how soon, and what they take on disk."""

from collections.abc import Sequence
from time import monotonic

from tests.bench.figures import Figure, Run
from tests.bench.load import BODY_BYTES, Letter, ask, drive
from tests.bench.site import Process, Site

FLOOR, AIM, FLOOR_CONNECTIONS = 12_000, 20_000, 64
TWO_FLOOR = 14_000
CONNECTIONS = (1, 16, 64, 256)
OPEN_RATE, OPEN_CONNECTIONS, P99_MS_MAX = 1000, 64, 8
OVERHEAD_BYTES_MAX = 1024
STORED = "select count(*) from messages"


async def one_run(
    site: Site, gateway: Process, letters: Sequence[Letter], connections: int, seconds: float
) -> Run:
    """Messages a second; every answered one is looked for in the database."""
    before, stored = site.cost(gateway), await site.query(STORED)
    started = monotonic()
    result = await drive(gateway.port, letters, connections, seconds, site.folder)
    elapsed = monotonic() - started
    spent = site.cost(gateway).since(before)
    gained = await site.query(STORED) - stored
    if result["refused"] or gained < result["answered"]:
        raise SystemExit(f"{result} answered, but {gained} stored")
    return Run(
        result["answered"] / result["seconds"],
        spent.microseconds_each(result["answered"]),
        spent.shares(elapsed),
    )


async def durable(
    site: Site, gateway: Process, letters: Sequence[Letter], *, runs: int, seconds: float
) -> list[Figure]:
    figures = []
    for connections in CONNECTIONS:
        await site.rest()
        measured = [await one_run(site, gateway, letters, connections, seconds) for _ in range(runs)]
        at_floor = connections == FLOOR_CONNECTIONS
        figures.append(
            Figure(
                f"durable accept, {connections} connections",
                "msg/s",
                measured,
                floor=FLOOR if at_floor else None,
                aim=AIM if at_floor else None,
            )
        )
    return figures


async def by_two(site: Site, letters: Sequence[Letter], *, runs: int, seconds: float) -> Figure:
    """The same by `amtp serve --workers 2`: both cores for the gateway, as far as the others leave them."""
    await site.rest()
    async with site.served(workers=2) as gateway:
        measured = [await one_run(site, gateway, letters, FLOOR_CONNECTIONS, seconds) for _ in range(runs)]
    name = f"durable accept, {FLOOR_CONNECTIONS} connections, two processes"
    return Figure(name, "msg/s", measured, floor=TWO_FLOOR)


async def one_by_one(site: Site, letters: Sequence[Letter], *, runs: int, seconds: float) -> Figure:
    """The same load where every request opens a transaction of its own."""
    await site.rest()
    async with site.gateway("--one-by-one", database={"pool_size": 16}) as gateway:
        measured = [await one_run(site, gateway, letters, FLOOR_CONNECTIONS, seconds) for _ in range(runs)]
    name = f"... one transaction per request, pool of 16, {FLOOR_CONNECTIONS} connections"
    return Figure(name, "msg/s", measured, note="the naive baseline")


async def storage(site: Site, gateway: Process, letters: Sequence[Letter], *, seconds: float) -> Figure:
    """What a message takes in the database beside its own bytes, indexes included."""
    size, stored = await site.query("select pg_database_size(current_database())"), await site.query(STORED)
    await drive(gateway.port, letters, FLOOR_CONNECTIONS, seconds, site.folder)
    grown = await site.query("select pg_database_size(current_database())") - size
    count = await site.query(STORED) - stored
    overhead = grown / count - BODY_BYTES
    return Figure(
        "storage beside the body, each message",
        "bytes",
        [Run(overhead)],
        floor=OVERHEAD_BYTES_MAX,
        small=True,
        note=f"{count} messages",
    )


async def at_rate(
    site: Site, gateway: Process, letters: Sequence[Letter], *, runs: int, seconds: float
) -> Figure:
    measured = []
    await site.rest()
    for _ in range(runs):
        before, started = site.cost(gateway), monotonic()
        result = await ask(
            kind="open",
            port=gateway.port,
            agents=letters,
            rate=OPEN_RATE,
            connections=OPEN_CONNECTIONS,
            seconds=seconds,
        )
        spent = site.cost(gateway).since(before)
        each = spent.microseconds_each(result["answered"])
        measured.append(Run(result["accept_p99_ms"], each, spent.shares(monotonic() - started)))
    name = f"accept p99, open loop at {OPEN_RATE}/s"
    return Figure(name, "ms", measured, floor=P99_MS_MAX, small=True)
