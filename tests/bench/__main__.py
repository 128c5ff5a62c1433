"""Runs the rows and prints each floor beside its figure."""

import argparse
import asyncio
import os
import platform
import tempfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from tests.bench import accept, asking, federation, inbox, push
from tests.bench.figures import Figure, as_json, heading, line
from tests.bench.load import WRK, ring_of
from tests.bench.site import Site

AGENTS = 16
ROWS = ("accept", "inbox", "idle", "waiting", "push", "federation")


async def measure(folder: Path, options: argparse.Namespace) -> AsyncGenerator[Figure, None]:
    runs, seconds = (1, 2.0) if options.quick else (3, 5.0)
    async with Site(folder / "acme", "acme.test").open() as site:
        async with site.gateway() as gateway:
            options.facts |= await site.durability()
            agents = await site.register(gateway, [f"agent-{number}" for number in range(AGENTS)])
            letters = ring_of(agents)
            if "accept" in options.rows:
                for figure in await accept.durable(site, gateway, letters, runs=runs, seconds=seconds):
                    yield figure
                yield await accept.storage(site, gateway, letters, seconds=seconds)
                yield await accept.at_rate(site, gateway, letters, runs=runs, seconds=seconds)
            if "inbox" in options.rows:
                await accept.one_run(site, gateway, letters, accept.FLOOR_CONNECTIONS, seconds)
                yield await inbox.emptied(site, gateway, agents, seconds=seconds)
        if "accept" in options.rows:
            yield await accept.by_two(site, letters, runs=runs, seconds=seconds)
            yield await accept.one_by_one(site, letters, runs=runs, seconds=seconds)
        if "idle" in options.rows:
            for figure in await inbox.idle(site, seconds=seconds * 2):
                yield figure
        if "waiting" in options.rows:
            for figure in await asking.waiting_rows(site, runs=runs, seconds=seconds):
                yield figure
    if "push" in options.rows:
        async with aclosing(push.rows(folder, runs=runs, seconds=seconds)) as rows:
            async for figure in rows:
                yield figure
    if "federation" in options.rows:
        async with aclosing(federation.rows(folder, runs=runs, seconds=seconds, full=options.full)) as rows:
            async for figure in rows:
                yield figure


def machine() -> dict[str, str]:
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "client": "wrk" if WRK else "our own",
        "load average": " ".join(f"{each:.1f}" for each in os.getloadavg()),
    }


async def run(options: argparse.Namespace) -> int:
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="amtp-bench-") as folder:
        async with aclosing(measure(Path(folder), options)) as rows:
            async for figure in rows:
                if not figures and not options.json:
                    print(heading(options.facts), flush=True)
                figures.append(figure)
                if not options.json:
                    print(line(figure), flush=True)
    if options.json:
        print(as_json(options.facts, figures))
    return 0 if all(figure.met is not False for figure in figures) else 1


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="everything as one JSON document")
    parser.add_argument("--quick", action="store_true", help="one short run of each")
    parser.add_argument("--full", action="store_true", help="with a million queued")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, help="only these")
    options = parser.parse_args()
    options.facts = machine()
    return options


if __name__ == "__main__":
    raise SystemExit(asyncio.run(run(parsed())))
