"""The worker: what is due goes out, whatever breaks on the way, and a stop loses no lease."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from conformance.fake_peer import Authority, Exchange, FakePeer, accepts
from gateway import worker
from gateway.clock import Clock
from gateway.config import Config, complete
from gateway.config_sections import Outbound, Peer, Queue
from gateway.journal import Journal
from gateway.mint import Mint
from gateway.parts import Parts
from gateway.store.database import Database
from tests.store.house import House

PATIENCE_SECONDS = 10.0
DOMAINS = ("a.test", "b.test", "c.test")


async def until(look: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if await look():
                return
            await asyncio.sleep(0.01)


class Shop:
    """A worker at work on a queue, and peers to deliver to."""

    def __init__(self, parts: Parts, house: House, peers: dict[str, FakePeer], log: io.StringIO) -> None:
        self.parts, self.house, self.peers, self.log = parts, house, peers, log
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(part.run()) for part in (self.parts.worker, self.parts.settle)]

    async def stop(self) -> None:
        """As a gateway stops: first the worker, then who writes for it."""
        tasks, self._tasks = self._tasks, []
        for stop, task in zip((self.parts.worker.stop, self.parts.settle.stop), tasks, strict=False):
            stop()
            await task

    async def rows(self) -> list[Any]:
        return await self.house.database.fetch("select recipient, token, attempts from deliveries")

    async def emptied(self) -> bool:
        return not await self.rows()


@pytest.fixture
async def shop(
    database: Database, mint: Mint, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Shop]:
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.05)
    authority = Authority()
    async with AsyncExitStack() as stack:
        peers = {
            domain: await stack.enter_async_context(FakePeer(authority, domain, "127.0.0.1").listening())
            for domain in DOMAINS
        }
        config = replace(
            Config(),
            domains=("acme.test",),
            data=tmp_path,
            peers={domain: Peer(peer.url) for domain, peer in peers.items()},
            outbound=Outbound(
                allow_networks=(ip_network("127.0.0.0/8"),), ca_file=authority.write_ca(tmp_path)
            ),
            queue=Queue(concurrency=2, per_destination_window_max=1),
        )
        log = io.StringIO()
        parts = Parts(complete(config), database, clock, Journal(log, form="text"), ())
        stack.push_async_callback(parts.outbound.close)
        stack.push_async_callback(parts.directory.close)
        stack.callback(parts.parsing.close)
        built = Shop(parts, House(database, mint, clock), peers, log)
        yield built
        await built.stop()


async def test_every_destination_gets_its_turn_however_few_couriers_there_are(shop: Shop) -> None:
    for domain in DOMAINS:
        await shop.house.send(*(f"b{n}@{domain}" for n in range(5)))
        for n in range(10):
            await shop.house.send(f"c{n}@{domain}")
    shop.start()
    await until(shop.emptied)
    assert [len(peer.posts) for peer in shop.peers.values()] == [11, 11, 11]
    assert shop.parts.lanes.held == 0
    assert await shop.house.balance() == (45, 45, 0)


async def test_a_stop_waits_for_who_is_on_the_way_and_hands_back_the_rest_uncounted(shop: Shop) -> None:
    opened, arrived = asyncio.Event(), asyncio.Event()

    async def slowly(exchange: Exchange) -> None:
        arrived.set()
        await opened.wait()
        await accepts(exchange)

    shop.peers["a.test"].will(slowly)
    for n in range(6):
        await shop.house.send(f"b{n}@a.test")
    shop.start()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await arrived.wait()
    stopping = asyncio.create_task(shop.stop())
    opened.set()
    await stopping
    left = await shop.rows()
    assert len(left) == 6 - len(shop.peers["a.test"].posts) >= 1
    assert {(row["token"], row["attempts"]) for row in left} == {(None, 0)}
    assert shop.parts.lanes.held == 0


async def test_a_message_that_can_not_be_read_stops_nobody_else(shop: Shop) -> None:
    lost = await shop.house.send("bob@a.test")
    await shop.house.database.execute("delete from messages where id = $1", lost)
    shop.start()

    async def noticed() -> bool:
        shop.parts.journal.flush()
        return "delivery to a.test" in shop.log.getvalue()

    await until(noticed)
    await shop.house.send("bob@a.test", "bob@b.test")

    async def others_arrived() -> bool:
        return len(await shop.rows()) == 1

    await until(others_arrived)
    assert len(shop.peers["a.test"].posts) == len(shop.peers["b.test"].posts) == 1


async def test_a_database_that_went_away_is_waited_for(shop: Shop) -> None:
    shop.start()
    await shop.house.send("bob@a.test")
    await until(shop.emptied)
    await shop.house.database.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )
    await shop.house.send("carol@a.test")
    await until(shop.emptied)
    assert await shop.house.balance() == (2, 2, 0)
