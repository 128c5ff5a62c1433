"""The drills: something is broken again and again under load, then the ledger is held against the inboxes.

Each comes in a short form in tests/faults and a long one in tests/soak.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import aiohttp
import asyncpg

from gateway.postgres.embedded import EmbeddedPostgres
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.tallies import balance, unaccounted_entries
from tests.faults.ledger import Findings, Ledger, Line, Load, read_all
from tests.faults.listening import listening
from tests.faults.points import CLOCK, KILL, Point
from tests.faults.processes import DURABLE, Account, GatewayProcess, kill_postgres
from tests.faults.taken import Taken, nobody_listens
from tests.faults.watching import until

BETWEEN_MAX = 200  # acknowledgements between two blows
BATCHES_MAX = 8  # that pass a named point before it kills
AFTER = 50  # acknowledgements that show that the house recovered
RECIPIENTS = 3
TAKEN = 20  # requests under way when the gateway is told to stop
SCHEDULED = 10  # messages that fall due together
HOUR = 3600
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

    async def audit(self, ledger: Ledger) -> Findings:
        """How what was acknowledged differs from what can be read; the books of the store balance too."""
        assert set(ledger.answers) <= EXPECTED, ledger.answers
        readable = await read_all(self.session, self.gateways[0].url, self.recipients)
        database = Database(self.dsn, clock=Clock())
        await database.open()
        counted, entries = await balance(database), await unaccounted_entries(database)
        await database.close()
        assert (counted.unaccounted, entries) == (0, 0)
        assert counted.finished == len(readable)
        return ledger.compare(readable)


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
            await kill_any(site, chance)
        await load.acknowledged(AFTER)
    return await site.audit(load.ledger)


async def kill_any(site: Site, chance: Random) -> None:
    """One of the gateways dies, and is started again."""
    victim = chance.choice(site.gateways)
    await victim.kill()
    await victim.start()


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
    return await site.audit(load.ledger)


async def kill_databases(site: Site, blows: Iterable[signal.Signals], seed: int) -> Findings:
    """Postgres, without a warning."""
    chance = Random(seed)
    async with site.load() as load:
        for blow in blows:
            await load.acknowledged(chance.randint(1, BETWEEN_MAX))
            await kill_postgres(site.postgres, blow)
        await load.acknowledged(AFTER)
    return await site.audit(load.ledger)


async def cut_lines(site: Site, rounds: int, every_seconds: float) -> Findings:
    """Every connection to the database, again and again."""
    async with site.load() as load:
        for _ in range(rounds):
            await cut_once(site)
            await asyncio.sleep(every_seconds)  # the fault itself has this beat
        await load.acknowledged(AFTER)
    return await site.audit(load.ledger)


async def cut_once(site: Site) -> None:
    connection = await asyncpg.connect(site.dsn)
    await connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'amtp'"
    )
    await connection.close()


async def stop_in_order(site: Site, stops: int) -> Findings:
    """SIGTERM under load: requests that were taken are answered, those that come later find nobody."""
    gateway = site.gateways[0]
    async with site.load() as load:
        for stop in range(stops):
            await load.acknowledged(AFTER)
            serials = range(-TAKEN * (stop + 1), -TAKEN * stop)  # none of the load's
            taken = [await Taken.by(gateway.port, site.sender, site.recipients[0], s) for s in serials]
            gateway.signal(signal.SIGTERM)
            await nobody_listens(gateway.port)
            load.ledger.acknowledged += [await request.finish() for request in taken]
            assert await gateway.ended() == 0, gateway.log()
            await gateway.start()
        await load.acknowledged(AFTER)
    return await site.audit(load.ledger)


async def listen_through(site: Site, rounds: int, seed: int) -> Findings:
    """Gateways and databases die, lines are cut, while recipients listen: each hears all that was acknowledged."""
    chance = Random(seed)
    urls = [gateway.url for gateway in site.gateways]
    async with listening(site.session, urls, site.recipients) as ears:
        async with site.load() as load:
            for _ in range(rounds):
                await load.acknowledged(chance.randint(1, BETWEEN_MAX))
                await kill_any(site, chance)
                await load.acknowledged(chance.randint(1, BETWEEN_MAX))
                await kill_postgres(site.postgres, signal.SIGQUIT)
                await load.acknowledged(chance.randint(1, BETWEEN_MAX))
                await cut_once(site)
            await load.acknowledged(AFTER)
        await ears.until_heard(load.ledger.acknowledged)
        assert ears.times > len(site.recipients) * rounds
    return await site.audit(load.ledger)


async def kill_around_settling(site: Site, points: Iterable[Point]) -> Findings:
    """The gateway dies when deliveries were made, and when that was recorded; it is back after its leases ended."""
    gateway = site.gateways[0]
    ledger = Ledger()
    hours = 0
    for point in points:
        for serial in range(SCHEDULED):
            ledger.acknowledged.append(await post_for_later(site, hours * SCHEDULED + serial, hours + 0.5))
        await gateway.kill()
        await gateway.launch(**{CLOCK: str((hours + 1) * HOUR), KILL: point})
        assert await gateway.ended() == -signal.SIGKILL
        hours += 2
        await gateway.start(**{CLOCK: str(hours * HOUR)})
        await until(site.dsn, "select not exists (select from deliveries)")
    return await site.audit(ledger)


async def post_for_later(site: Site, serial: int, hours: float) -> Line:
    """One message that waits in the queue until then, though its recipient has an inbox here."""
    due = datetime.now(UTC) + timedelta(hours=hours)
    recipient = site.recipients[0].address
    message = {
        "sender": site.sender.address,
        "recipients": [recipient],
        "payload": {"serial": serial},
        "headers": {"deliver-after": due.isoformat().replace("+00:00", "Z")},
    }
    url = f"{site.gateways[0].url}/v1/messages"
    async with site.session.post(url, json=message, headers=site.sender.headers) as response:
        answer = await response.json()
        assert answer["status"] == "queued", answer
        return Line(recipient, answer["message_id"], serial)
