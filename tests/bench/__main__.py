"""Runs the rows and prints each floor beside its figure."""

import argparse
import asyncio
import os
import platform
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench import accept, asking, federation, inbox, push
from tests.bench.against import Pair, checked_out, lines, paired
from tests.bench.figures import Figure, heading, line, rendered
from tests.bench.load import WRK, ring_of
from tests.bench.site import ROOT, Site

AGENTS = 16
ROWS = ("accept", "inbox", "idle", "waiting", "push", "federation")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, how often and how long."""

    rows: Sequence[str]
    runs: int
    seconds: float
    full: bool
    facts: dict[str, str]


async def measure(folder: Path, tree: Path, plan: Plan) -> AsyncGenerator[Figure, None]:
    """Measures the gateway whose source is in `tree`."""
    runs, seconds = plan.runs, plan.seconds
    async with Site(folder / "acme", "acme.test", tree).open() as site:
        async with site.gateway() as gateway:
            plan.facts.update(await site.durability())
            agents = await site.register(gateway, [f"agent-{number}" for number in range(AGENTS)])
            letters = ring_of(agents)
            if "accept" in plan.rows:
                for figure in await accept.durable(site, gateway, letters, runs=runs, seconds=seconds):
                    yield figure
                yield await accept.storage(site, gateway, letters, seconds=seconds)
                yield await accept.at_rate(site, gateway, letters, runs=runs, seconds=seconds)
            if "inbox" in plan.rows:
                await accept.one_run(site, gateway, letters, accept.FLOOR_CONNECTIONS, seconds)
                yield await inbox.emptied(site, gateway, agents, seconds=seconds)
        if "accept" in plan.rows:
            yield await accept.by_two(site, letters, runs=runs, seconds=seconds)
            yield await accept.one_by_one(site, letters, runs=runs, seconds=seconds)
        if "idle" in plan.rows:
            for figure in await inbox.idle(site, seconds=seconds * 2):
                yield figure
        if "waiting" in plan.rows:
            for figure in await asking.waiting_rows(site, runs=runs, seconds=seconds):
                yield figure
    if "push" in plan.rows:
        async with aclosing(push.rows(folder, tree, runs=runs, seconds=seconds)) as rows:
            async for figure in rows:
                yield figure
    if "federation" in plan.rows:
        async with aclosing(
            federation.rows(folder, tree, runs=runs, seconds=seconds, full=plan.full)
        ) as rows:
            async for figure in rows:
                yield figure


def machine() -> dict[str, str]:
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "client": "wrk" if WRK else "our own",
        "load average": " ".join(f"{each:.1f}" for each in os.getloadavg()),
    }


async def run(plan: Plan, as_json: bool) -> bool:
    """Measures this tree; returns whether every floor was met."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="amtp-bench-") as folder:
        async with aclosing(measure(Path(folder), ROOT, plan)) as rows:
            async for figure in rows:
                if not figures and not as_json:
                    print(heading(plan.facts), flush=True)
                figures.append(figure)
                if not as_json:
                    print(line(figure), flush=True)
    if as_json:
        print(rendered(plan.facts, [figure.record() for figure in figures]))
    return all(figure.met is not False for figure in figures)


async def compare(plan: Plan, commit: str, as_json: bool) -> bool:
    """Measures this tree and that commit by turns; returns whether no row costs more than it may."""
    pairs: list[Pair] = []
    with checked_out(commit) as other:
        for row in plan.rows:
            once = replace(plan, rows=[row], runs=1)
            rounds = [[await _measured(tree, once) for tree in (ROOT, other)] for _ in range(plan.runs)]
            if not pairs and not as_json:
                print(heading(plan.facts), flush=True)
            here, there = zip(*rounds, strict=True)
            for pair in paired(here, there):
                pairs.append(pair)
                if not as_json:
                    print(lines(pair, commit), flush=True)
    if as_json:
        print(rendered(plan.facts, [pair.record() for pair in pairs]))
    return not any(pair.costly for pair in pairs)


async def _measured(tree: Path, plan: Plan) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="amtp-bench-") as folder:
        return [figure async for figure in measure(Path(folder), tree, plan)]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="everything as one JSON document")
    parser.add_argument("--quick", action="store_true", help="one short run of each")
    parser.add_argument("--full", action="store_true", help="with a million queued")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, help="only these")
    parser.add_argument(
        "--against", metavar="COMMIT", help="that commit by turns with this tree: ratios of CPU"
    )
    return parser.parse_args()


def main() -> int:
    options = parsed()
    runs, seconds = (1, 2.0) if options.quick else (3, 5.0)
    plan = Plan(options.rows, runs, seconds, options.full, machine())
    work = compare(plan, options.against, options.json) if options.against else run(plan, options.json)
    return 0 if asyncio.run(work) else 1


if __name__ == "__main__":
    raise SystemExit(main())
