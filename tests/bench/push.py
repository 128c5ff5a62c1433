"""Rows about push: signed requests over TLS to webhooks that take everything, from the commit to the settlement."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from conformance.fake_peer import Authority
from tests.bench.cost import cost_of
from tests.bench.figures import Figure, Run
from tests.bench.load import Letter, drive
from tests.bench.site import ROOT, STOP_SECONDS, Agent, Process, Site

HERE = "127.0.0.1"
SENDERS, CONNECTIONS = 16, 64
MANY = 64  # agents, each with a URL of its own
FLOOR = 3000
EMPTY_SECONDS_MAX = 300.0


@dataclass(frozen=True, slots=True)
class Hooks:
    """Where everything is taken."""

    pid: int
    port: int

    def url(self, number: int) -> str:
        return f"https://{HERE}:{self.port}/{number}"


async def rows(folder: Path, tree: Path, *, runs: int, seconds: float) -> AsyncGenerator[Figure, None]:
    async with Site(folder / "push", "acme.test", tree).open() as site:
        authority = Authority()
        reachable = {"allow_networks": ["127.0.0.0/8"], "ca_file": str(authority.write_ca(site.folder))}
        async with hooks(authority, site.folder) as there, site.gateway(outbound=reachable) as gateway:
            senders = await site.register(gateway, [f"sender-{number}" for number in range(SENDERS)])
            pushed = await site.register(
                gateway,
                [f"pushed-{number}" for number in range(MANY)],
                [{"delivery_mode": "push", "push_target": there.url(number)} for number in range(MANY)],
            )
            for name, agents in (("one webhook", pushed[:1]), (f"{MANY} webhooks", pushed)):
                letters = _letters(senders, agents)
                await site.rest()
                measured = [await _one_run(site, gateway, there, letters, seconds) for _ in range(runs)]
                yield Figure(f"posted here until pushed over TLS, {name}", "msg/s", measured, floor=FLOOR)


@asynccontextmanager
async def hooks(authority: Authority, folder: Path) -> AsyncIterator[Hooks]:
    certificate, key = authority.write_pair(folder, HERE)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.receiver_process", str(certificate), str(key)),
        cwd=ROOT,
        stdout=PIPE,
    )
    assert process.stdout is not None
    try:
        said = json.loads(await process.stdout.readline())
        yield Hooks(process.pid, said["port"])
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), STOP_SECONDS)


def _letters(senders: Sequence[Agent], pushed: Sequence[Agent]) -> list[Letter]:
    """Every agent that is pushed to is written to as often as any other."""
    return [
        Letter(senders[number % SENDERS].address, senders[number % SENDERS].key, recipient.address)
        for number, recipient in enumerate(list(pushed) * (SENDERS if len(pushed) == 1 else 1))
    ]


async def _one_run(
    site: Site, gateway: Process, there: Hooks, letters: Sequence[Letter], seconds: float
) -> Run:
    """What is left in the queue when the load ends counts too."""
    assert site.postgres.pid is not None
    pids = {"gateway": gateway.pid, "postgres": site.postgres.pid, "webhook": there.pid}
    before, started = cost_of(**pids), monotonic()
    result = await drive(gateway.port, letters, CONNECTIONS, seconds, site.folder)
    async with asyncio.timeout(EMPTY_SECONDS_MAX):
        while await site.query("select exists (select from deliveries)"):
            await asyncio.sleep(0.05)
    elapsed, spent = monotonic() - started, cost_of(**pids).since(before)
    return Run(
        result["answered"] / elapsed, spent.microseconds_each(result["answered"]), spent.shares(elapsed)
    )
