"""The drills: something is broken again and again under load, then the ledger is held against the inboxes.

Each comes in a short form in tests/faults and a long one in tests/soak.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import aiohttp
import asyncpg

from gateway.clock import Clock
from gateway.embedded import EmbeddedPostgres
from gateway.store.database import Database
from gateway.store.tallies import balance
from tests.faults.ledger import Findings, Load, read_all
from tests.faults.points import KILL, Point
from tests.faults.processes import DURABLE, Account, GatewayProcess, kill_postgres

BETWEEN_MAX = 200  # acknowledgements between two blows
BATCHES_MAX = 8  # that pass a named point before it kills
AFTER = 50  # acknowledgements that show that the house recovered
RECIPIENTS = 3
EXPECTED = {202, 503}  # a client is told yes, or to come back


@dataclass
class Site:
    """A Postgres, gateways on it, and agents of theirs."""

    postgres: EmbeddedPostgres
    gateways: list[GatewayProcess]
    session: aiohttp.ClientSession
    sender: Account
    recipients: list[Account]

    @property
    def dsn(self) -> str:
        return self.postgres.dsn

    def load(self) -> Load:
        return Load([gateway.url for gateway in self.gateways], self.sender, self.recipients)

    async def audit(self, load: Load) -> Findings:
        """How what was acknowledged differs from what can be read; the books of the store balance too."""
        assert set(load.answers) <= EXPECTED, load.answers
        readable = await read_all(self.session, self.gateways[0].url, self.recipients)
        database = Database(self.dsn, clock=Clock())
        await database.open()
        counted = await balance(database)
        await database.close()
        assert counted.unaccounted == 0
        assert counted.finished == len(readable)
        return load.ledger.compare(readable)


@asynccontextmanager
async def site(folder: Path, gateways: int = 1) -> AsyncIterator[Site]:
    """`folder` is a data folder with a cluster in it, or will be one."""
    async with AsyncExitStack() as stack:
        postgres = EmbeddedPostgres(folder, settings=DURABLE)
        dsn = await postgres.start()
        stack.push_async_callback(postgres.stop)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        started = [GatewayProcess(dsn, folder / f"gateway-{number}") for number in range(gateways)]
        for gateway in started:
            stack.push_async_callback(gateway.kill)
            await gateway.start()
        sender = await started[0].register(session, "sender")
        recipients = [await started[0].register(session, f"reader-{n}") for n in range(RECIPIENTS)]
        yield Site(postgres, started, session, sender, recipients)


async def kill_gateways(site: Site, kills: int, seed: int) -> Findings:
    """Any of the gateways, at any moment."""
    chance = Random(seed)
    async with site.load() as load:
        for _ in range(kills):
            await load.acknowledged(chance.randint(1, BETWEEN_MAX))
            victim = chance.choice(site.gateways)
            await victim.kill()
            await victim.start()
        await load.acknowledged(AFTER)
    return await site.audit(load)


async def kill_at(site: Site, points: Iterable[Point], seed: int) -> Findings:
    """The first gateway, where it hurts."""
    chance = Random(seed)
    gateway = site.gateways[0]
    await gateway.kill()
    async with site.load() as load:
        for point in points:
            await gateway.start(**{KILL: f"{point}:{chance.randint(1, BATCHES_MAX)}"})
            assert await gateway.ended() == -signal.SIGKILL
        await gateway.start()
        await load.acknowledged(AFTER)
    return await site.audit(load)


async def kill_databases(site: Site, blows: Iterable[signal.Signals], seed: int) -> Findings:
    """Postgres, without a warning."""
    chance = Random(seed)
    async with site.load() as load:
        for blow in blows:
            await load.acknowledged(chance.randint(1, BETWEEN_MAX))
            await kill_postgres(site.postgres, blow)
        await load.acknowledged(AFTER)
    return await site.audit(load)


async def cut_lines(site: Site, rounds: int, every_seconds: float) -> Findings:
    """Every connection to the database, again and again."""
    async with site.load() as load:
        connection = await asyncpg.connect(site.dsn)
        for _ in range(rounds):
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'amtp'"
            )
            await asyncio.sleep(every_seconds)  # the fault itself has this beat
        await connection.close()
        await load.acknowledged(AFTER)
    return await site.audit(load)
