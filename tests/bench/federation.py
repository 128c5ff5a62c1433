"""Rows about two gateways: TLS between them, a durable Postgres behind each, all on this machine."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

from conformance.fake_peer import Authority
from tests.bench.cost import cost_of, resident_bytes
from tests.bench.figures import Figure, Run
from tests.bench.load import Letter, ask, drive
from tests.bench.site import Agent, Process, Site

HERE = "127.0.0.1"
KEY = "a-key-that-proves-the-near-domain"
AGENTS, STREAMS, CONNECTIONS = 16, 4, 64
SINGLE_FLOOR, SINGLE_AIM, BATCH_FLOOR, BATCH_AIM = 3000, 5000, 5500, 10_000
RATE, P99_MS_MAX, P99_MS_AIM = 1000, 20, 10
COLD_SECONDS = 1.0
ARRIVAL_SECONDS_MAX = 300.0
QUEUED, QUEUED_DESTINATIONS = 1_000_000, 100
LOSS_PERCENT_MAX = 20
SWALLOWED, HOLE_LOSS_PERCENT_MAX = 100_000, 10
RESIDENT_MB_MAX = 1000  # 10 MB for each 10 000 queued
ACCEPTED = "select coalesce(sum(accepted), 0)::bigint from tallies"

# Messages and their deliveries to places that are not there, each due some of these intervals from now, as a long
# outage leaves them.
_QUEUE = """
with ids as (
    select (lpad(to_hex((extract(epoch from now()) * 1000)::bigint), 12, '0') || '7000' || '8000'
            || lpad(to_hex(n), 12, '0'))::uuid as id, n from generate_series(1::bigint, $1) as n
), t as (
    insert into tallies (id, at, accepted, finished) values (gen_random_uuid(), now(), $1, 0)
), m as (
    insert into messages (id, sender, proven, body, accepted_at)
    select id, 'agent-0@acme.test', true, convert_to(rpad(
        '{"version":"1.0","sender":"agent-0@acme.test","recipients":["b@gone-0.test"],"payload":"', 900, 'x'
    ) || '"}', 'UTF8'), now() from ids
)
insert into deliveries (message, recipient, address, destination, due, attempts, accepted_at, expires_at, expiry)
select id, 'b@gone-' || n % $2 || '.test', 'b@gone-' || n % $2 || '.test', 'gone-' || n % $2 || '.test',
       now() + $3::interval * (600 + n % 86400), 3, now(), now() + interval '7 days', 'horizon'
from ids
"""


@dataclass(frozen=True, slots=True)
class Road:
    """From one house to the other."""

    sender: Site
    receiver: Site
    near: Process
    far: Process
    letters: Sequence[Letter]
    watched: Sequence[Letter]  # to the listeners
    listeners: Sequence[Agent]

    def pids(self) -> dict[str, int]:
        assert self.sender.postgres.pid is not None
        assert self.receiver.postgres.pid is not None
        return {
            "sender": self.near.pid,
            "postgres here": self.sender.postgres.pid,
            "receiver": self.far.pid,
            "postgres there": self.receiver.postgres.pid,
        }

    async def rest(self) -> None:
        await self.sender.rest()
        await self.receiver.rest()


async def rows(
    folder: Path, tree: Path, *, runs: int, seconds: float, full: bool
) -> AsyncGenerator[Figure, None]:
    async with (
        Site(folder / "near", "acme.test", tree).open() as near,
        Site(folder / "far", "umbrella.test", tree).open() as far,
    ):
        async with road(near, far, features=[]) as single:
            yield await _throughput("one message a request", single, runs, seconds, SINGLE_FLOOR, SINGLE_AIM)
        async with road(near, far, features=["batch", "ids"]) as batched:
            yield await _throughput("batches", batched, runs, seconds, BATCH_FLOOR, BATCH_AIM)
            yield await _end_to_end(batched, runs, seconds)
        yield await _black_hole(near, far, runs, seconds)
        if full:
            for figure in await _million(near, far, runs, seconds):
                yield figure


@asynccontextmanager
async def road(
    near: Site, far: Site, *, features: Sequence[str], peers: Mapping[str, Any] | None = None
) -> AsyncIterator[Road]:
    """Two gateways, the near one knowing the far one and other `peers` by configuration."""
    authority = Authority()
    certificate, key = authority.write_pair(far.folder, HERE)
    ca_file = authority.write_ca(near.folder)
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(
            far.gateway(
                peers={near.domain: {"gateway": f"https://{HERE}:9", "proving_key": KEY}},
                tls={"certificate_file": str(certificate), "key_file": str(key)},
                listen=[
                    {"address": f"{HERE}:0", "roles": ["all"]},
                    {"address": f"{HERE}:0", "roles": ["public"], "tls": True},
                ],
            )
        )
        url = f"https://{HERE}:{receiver.ports[1]}"
        sender = await stack.enter_async_context(
            near.gateway(
                peers={
                    far.domain: {"gateway": url, "features": list(features), "bearer": KEY},
                    **(peers or {}),
                },
                outbound={"allow_networks": ["127.0.0.0/8"], "ca_file": str(ca_file)},
            )
        )
        names = [f"agent-{monotonic():.0f}-{number}" for number in range(AGENTS + STREAMS)]
        writers, readers = await near.register(sender, names), await far.register(receiver, names)
        letters = [
            Letter(writer.address, writer.key, reader.address)
            for writer, reader in zip(writers, readers, strict=True)
        ]
        yield Road(near, far, sender, receiver, letters[:AGENTS], letters[AGENTS:], readers[AGENTS:])


async def _throughput(name: str, road: Road, runs: int, seconds: float, floor: float, aim: float) -> Figure:
    await road.rest()
    measured = [await _one_run(road, seconds) for _ in range(runs)]
    return Figure(f"gateway to gateway over TLS, {name}", "msg/s", measured, floor=floor, aim=aim)


async def _one_run(road: Road, seconds: float) -> Run:
    """Accepted here until arrived there: what is left in the queue when the load ends counts too."""
    arrived = await road.receiver.query(ACCEPTED)
    before, started = cost_of(**road.pids()), monotonic()
    result = await drive(road.near.port, road.letters, CONNECTIONS, seconds, road.sender.folder)
    expected = arrived + result["answered"]
    await _until_arrived(road, expected)
    elapsed, spent = monotonic() - started, cost_of(**road.pids()).since(before)
    return Run(
        result["answered"] / elapsed, spent.microseconds_each(result["answered"]), spent.shares(elapsed)
    )


async def _until_arrived(road: Road, expected: int) -> None:
    async with asyncio.timeout(ARRIVAL_SECONDS_MAX):
        while await road.receiver.query(ACCEPTED) < expected:
            await asyncio.sleep(0.05)


async def _end_to_end(road: Road, runs: int, seconds: float) -> Figure:
    """At a steady rate, the floods before being digested. The first second, with the first connections and nothing
    remembered, is told beside it."""
    await road.rest()
    cold, measured = await _posted_and_read(road, COLD_SECONDS), []
    for _ in range(runs):
        before, started = cost_of(**road.pids()), monotonic()
        result = await _posted_and_read(road, seconds)
        if result["arrived"] < result["answered"]:
            raise SystemExit(f"not everything arrived: {result}")
        spent = cost_of(**road.pids()).since(before)
        each = spent.microseconds_each(result["answered"])
        measured.append(Run(result["arrival_p99_ms"], each, spent.shares(monotonic() - started)))
    name = f"posted here until read from a stream there, p99 at {RATE}/s"
    note = f"the first second: {cold['arrival_p99_ms']:.0f} ms"
    return Figure(name, "ms", measured, floor=P99_MS_MAX, aim=P99_MS_AIM, small=True, note=note)


async def _posted_and_read(road: Road, seconds: float) -> Any:
    return await ask(
        kind="open",
        port=road.near.port,
        listen_port=road.far.port,
        agents=road.watched,
        listen=[asdict(agent) for agent in road.listeners],
        rate=RATE,
        connections=CONNECTIONS,
        seconds=seconds,
    )


async def _black_hole(near: Site, far: Site, runs: int, seconds: float) -> Figure:
    """What others lose by much mail, all of it due, for one that takes connections and never says a word."""

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            pass
        writer.close()

    async with await asyncio.start_server(swallow, HERE, 0) as hole:
        url = f"https://{HERE}:{hole.sockets[0].getsockname()[1]}"
        async with road(
            near, far, features=["batch", "ids"], peers={"gone-0.test": {"gateway": url}}
        ) as beside:
            await beside.rest()
            before = [await _one_run(beside, seconds) for _ in range(runs)]
            await _fill(near, SWALLOWED, 1, timedelta(0))
            after = [await _one_run(beside, seconds) for _ in range(runs)]
    await near.query("truncate deliveries")
    return _lost(f"with {SWALLOWED:,} waiting for a black hole", before, after, HOLE_LOSS_PERCENT_MAX)


async def _fill(site: Site, count: int, destinations: int, interval: timedelta) -> None:
    await site.query(_QUEUE, count, destinations, interval)
    await site.rest()


def _lost(when: str, before: Sequence[Run], after: Sequence[Run], percent_max: float) -> Figure:
    rate = Figure("", "", before).value
    lost = [Run((1 - run.value / rate) * 100, run.microseconds, run.shares) for run in after]
    costs = Figure("", "", before).middle.microseconds
    note = f"before: {rate:,.0f} msg/s, " + " ".join(f"{name} {cost} µs" for name, cost in costs.items())
    return Figure(f"throughput lost {when}", "%", lost, floor=percent_max, small=True, note=note)


async def _million(near: Site, far: Site, runs: int, seconds: float) -> list[Figure]:
    """What is lost where a million wait for destinations that are away."""
    async with road(near, far, features=["batch", "ids"]) as empty:
        await empty.rest()
        before = [await _one_run(empty, seconds) for _ in range(runs)]
        light = resident_bytes(empty.near.pid)
    await _fill(near, QUEUED, QUEUED_DESTINATIONS, timedelta(seconds=1))
    async with road(near, far, features=["batch", "ids"]) as crowded:
        after = [await _one_run(crowded, seconds) for _ in range(runs)]
        heavy = resident_bytes(crowded.near.pid)
    return [
        _lost(f"with {QUEUED:,} queued", before, after, LOSS_PERCENT_MAX),
        Figure(
            f"gateway memory for {QUEUED:,} queued",
            "MB",
            [Run((heavy - light) / 1e6)],
            floor=RESIDENT_MB_MAX,
            small=True,
        ),
    ]
