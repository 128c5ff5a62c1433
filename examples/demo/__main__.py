"""`make demo`: two domains, one gateway killed in the middle, and proof that nothing was lost.

Two gateways with a database each, a DNS server and a certificate authority, all on loopback. Their agents write to
each other; when half is acknowledged, one gateway is killed with -9 and started again. In the end every
acknowledged message must lie in its inbox exactly once. Exit status: 0 when that is so, 1 when not.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import trustme

from examples.demo.dns_server import DnsServer
from examples.demo.house import Broken, House
from examples.demo.screen import Screen
from examples.demo.traffic import Agent, Books, count, send, watch

DOMAINS = ("north.test", "south.test")
NAMES = ("ann", "ben", "cleo")
SENDING_SECONDS = 4.0  # over which the messages are spread, so that a person sees something
DOWN_SECONDS = 1.0
SHOW_SECONDS = 0.1
FAULTS_SHOWN = 5
REQUEST_SECONDS_MAX = 10.0


def arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--messages", type=int, default=300, help="how many are sent (default: 300)")
    parser.add_argument(
        "--seconds", type=float, default=90, help="patience until all have arrived (default: 90)"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep databases and logs in this new folder"
    )
    return parser.parse_args(given)


async def demo(messages: int, patience_seconds: float, folder: Path) -> list[str]:
    """Runs it all; returns what contradicts the promise."""
    books = Books(messages)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS_MAX))
        )
        houses = [House(domain, folder / domain, session) for domain in DOMAINS]
        screen = stack.enter_context(Screen(houses, books))
        screen.tell("Starting a DNS server, a certificate authority and two gateways.")
        agents = await _settle_in(houses, stack)
        screen.tell(f"{len(agents)} agents send each other {messages} messages.")
        watching = [asyncio.create_task(watch(agent, books)) for agent in agents]
        stack.callback(lambda: [task.cancel() for task in watching])
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(_send_all(agents, books))
            group.create_task(_strike(houses[1], books, screen))
            group.create_task(_draw(screen, books, started + patience_seconds))
        for agent in agents:
            await count(agent, books)
    return books.faults() + [f"{house.domain} was never killed" for house in houses[1:] if not house.deaths]


async def _settle_in(houses: Sequence[House], stack: AsyncExitStack) -> list[Agent]:
    names = DnsServer()
    await names.start()
    stack.callback(names.close)
    authority = trustme.CA()
    for house in houses:
        house.prepare(authority, names)
        stack.push_async_callback(house.stop)
    await asyncio.gather(*(house.start() for house in houses))
    await asyncio.gather(*(house.open_books() for house in houses))
    return [
        Agent(f"{name}@{house.domain}", await house.register(name), house)
        for house in houses
        for name in NAMES
    ]


async def _send_all(agents: Sequence[Agent], books: Books) -> None:
    """Every message crosses from one domain to the other, and is sent until it is acknowledged."""
    async with asyncio.TaskGroup() as group:
        for number in range(books.count):
            sender = agents[number % len(agents)]
            others = [agent for agent in agents if agent.house is not sender.house]
            group.create_task(send(sender, random.choice(others), number, books))
            await asyncio.sleep(SENDING_SECONDS / books.count)


async def _strike(house: House, books: Books, screen: Screen) -> None:
    """Kills the gateway when half of the messages are acknowledged, and starts it again."""
    await books.half.wait()
    await house.kill()
    screen.tell(f"kill -9: the gateway of {house.domain} is gone.")
    await asyncio.sleep(DOWN_SECONDS)
    await house.start()
    screen.tell(f"The gateway of {house.domain} is back.")


async def _draw(screen: Screen, books: Books, until: float) -> None:
    while not books.complete() and time.monotonic() < until:
        screen.show()
        await asyncio.sleep(SHOW_SECONDS)


def main(given: Sequence[str]) -> int:
    options = arguments(given)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="amtp-demo-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        faults: list[str] = []
        try:
            faults = asyncio.run(demo(options.messages, options.seconds, folder))
        except* Broken as group:
            faults = [str(broken) for broken in group.exceptions]
    if faults:
        print(
            f"NOT PROVED. Faults: {len(faults)}, such as:", *faults[:FAULTS_SHOWN], sep="\n", file=sys.stderr
        )
        return 1
    print(
        f"Proved in {time.monotonic() - started:.0f} s: each of the {options.messages} acknowledged messages"
        " lies in its inbox exactly once, though a gateway was killed in the middle."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
