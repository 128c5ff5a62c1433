"""The worker: what is due goes out, whatever breaks on the way, and a stop loses no lease."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from conformance.fake_peer import Authority, Exchange, FakePeer, accepts, receipt, refuses
from gateway.config.sections import OutboundSettings, PeerSettings, QueueSettings
from gateway.config.settings import Config, complete
from gateway.features.operations.destinations import Traffic
from gateway.flow import worker
from gateway.journal.journal import Journal
from gateway.protocol.errors import AMTPError, Code
from gateway.store.audit import Audit
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.queue import destinations
from gateway.store.row_ids import Mint
from gateway.wiring.core import Parts
from tests import telling
from tests.store.house import House

PATIENCE_SECONDS = 10.0
DOMAINS = ("a.test", "b.test", "c.test")

until = partial(telling.until, patience_seconds=PATIENCE_SECONDS, look_seconds=0.01)


class Counted(Database):
    """Counts how often the database is asked."""

    asked = 0
    away = False

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        self.asked += 1
        if self.away:
            raise AMTPError(Code.TEMPORARY_FAILURE, "The message store is not available.")
        async with super().connection() as connection:
            yield connection


@pytest.fixture
async def database(dsn: str, clock: Clock) -> AsyncIterator[Database]:
    opened = Counted(dsn, clock=clock)
    await opened.open()
    yield opened
    await opened.close()


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

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Hears what other processes do."""
        hearing = asyncio.create_task(self.parts.bell.run())
        try:
            yield
        finally:
            hearing.cancel()
            with suppress(asyncio.CancelledError):
                await hearing


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
            peers={domain: PeerSettings(peer.url) for domain, peer in peers.items()},
            outbound=OutboundSettings(
                allow_networks=(ip_network("127.0.0.0/8"),), ca_file=authority.write_ca(tmp_path)
            ),
            queue=QueueSettings(concurrency=2, per_destination_window_max=1),
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


async def test_a_database_that_is_away_is_not_asked_all_the_time_for_what_is_due(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.peers["a.test"].will(refuses(503, "TEMPORARY_FAILURE", "Not now."))
    await shop.house.send("bob@a.test")
    shop.start()
    await until(lambda: shop.house.database.fetchval("select exists (select from attempts)"))
    monkeypatch.setattr(worker, "POLL_SECONDS", 60.0)
    database = shop.house.database
    assert isinstance(database, Counted)
    database.away = True
    await asyncio.sleep(0.2)
    before = database.asked
    shop.house.turn(10)  # the next attempt is due
    await asyncio.sleep(2.0)
    assert database.asked - before <= 6  # once a second
    database.away = False
    await until(
        lambda: shop.house.database.fetchval("select exists (select from attempts where attempt = 2)")
    )


@pytest.fixture
def by_itself(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A worker that finds nothing by looking for it now and then."""
    monkeypatch.setattr(worker, "POLL_SECONDS", 60.0)
    monkeypatch.setattr(worker, "BUSY_SECONDS", 60.0)
    return shop


LATE_SECONDS_MAX = 0.15  # three times what is promised at low load
# The bell listens, and what it ran last is that.
_LISTENS = "select exists (select from pg_stat_activity where query ilike 'listen%' and datname = current_database())"


async def test_retries_start_when_they_are_due_and_not_when_somebody_looks(by_itself: Shop) -> None:
    late: dict[str, float] = {}
    dues: dict[str, datetime] = {}

    async def once_more(exchange: Exchange) -> None:
        (message,) = (await exchange.read_body()).messages
        now, name = by_itself.house.clock.now(), message["recipients"][0]
        if name in dues:
            late[name] = (now - dues[name]).total_seconds()
            await exchange.answer(202, json.dumps(receipt(message)).encode())
        else:
            await exchange.answer(503, b'{"error": {"code": "TEMPORARY_FAILURE", "message": "Not now."}}')

    by_itself.peers["a.test"].will(once_more)
    for n in range(10):
        await by_itself.house.send(f"b{n}@a.test")
    by_itself.start()

    async def all_decided() -> bool:
        rows = await by_itself.house.database.fetch("select recipient, due, token, attempts from deliveries")
        dues.update(
            (row["recipient"], row["due"]) for row in rows if row["attempts"] == 1 and not row["token"]
        )
        return await by_itself.emptied()

    await until(all_decided)
    print("late by ms:", sorted(round(1000 * seconds) for seconds in late.values()))
    assert len(late) == 10
    assert max(late.values()) <= LATE_SECONDS_MAX


async def test_what_was_left_for_later_by_a_process_that_is_gone_starts_when_it_is_due(
    by_itself: Shop,
) -> None:
    came: list[datetime] = []

    async def note(exchange: Exchange) -> None:
        came.append(by_itself.house.clock.now())
        await accepts(exchange)

    by_itself.peers["a.test"].will(note)
    due = by_itself.house.clock.now() + timedelta(seconds=1.2)
    await by_itself.house.send("bob@a.test", due=1.2)
    by_itself.start()
    await until(by_itself.emptied)
    assert 0 <= (came[0] - due).total_seconds() <= LATE_SECONDS_MAX


async def test_what_another_process_makes_due_wakes_a_worker_that_sleeps(by_itself: Shop, mint: Mint) -> None:
    await by_itself.house.send("bob@a.test", due=3600)
    await by_itself.house.database.execute("update deliveries set attempts = 1")
    by_itself.start()
    async with by_itself.listening():
        await until(lambda: by_itself.house.database.fetchval(_LISTENS))
        await Traffic(by_itself.house.database, Audit(mint())).flush("a.test", actor="ops")
        await until(by_itself.emptied)


async def test_an_idle_worker_asks_for_nothing_while_everything_waits_for_later(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # as in earnest
    database = shop.house.database
    assert isinstance(database, Counted)
    for _ in range(50):
        await shop.house.send("bob@a.test", "bob@b.test", due=86_400)
    shop.start()
    await asyncio.sleep(0.5)
    before = database.asked
    await asyncio.sleep(worker.POLL_SECONDS + 0.5)
    assert database.asked - before <= 4  # once in five seconds: breakers, and what is due


async def test_a_destination_that_nothing_waits_for_is_not_probed(shop: Shop) -> None:
    peer = shop.peers["a.test"]
    now = shop.house.clock.now()
    for domain in ("a.test", "b.test"):
        await destinations.note_failure(shop.house.database, domain, 9, now, "It is down.", unreachable=True)
    await shop.house.send("bob@b.test", due=3600)
    shop.start()
    await until(lambda: _later(bool(shop.peers["b.test"].requests)))
    assert not peer.requests


async def _later(seen: bool) -> bool:
    return seen


async def test_when_a_peer_is_back_what_it_made_wait_follows_the_first_success(by_itself: Shop) -> None:
    """Mail whose own next attempt is a quarter of an hour away."""
    by_itself.peers["a.test"].will(refuses(503, "TEMPORARY_FAILURE", "Not now."))
    await by_itself.house.send("first@a.test")
    by_itself.start()

    async def refused() -> bool:
        return bool(by_itself.peers["a.test"].posts) and (await by_itself.rows())[0]["token"] is None

    await until(refused)
    for n in range(40):
        await by_itself.house.send(f"b{n}@a.test", due=1000)
    await by_itself.house.database.execute(
        "update deliveries set attempts = 11, last_attempt = amtp_now(), last_code = 'TEMPORARY_FAILURE'"
        " where attempts = 0"
    )
    by_itself.peers["a.test"].will(accepts)
    by_itself.house.turn(200)
    await until(by_itself.emptied)
