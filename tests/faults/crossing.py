"""Two domains, each with a database of its own and TLS between them: mail crosses while either side is broken.

The near one accepts, queues and hands over; the ledger is held against the inboxes of the far one.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Any, assert_never

import aiohttp

from conformance.fake_peer import Authority, FakePeer
from gateway.postgres.embedded import EmbeddedPostgres
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.tallies import Balance, balance
from tests.faults.drills import AFTER, BETWEEN_MAX, EXPECTED, RECIPIENTS
from tests.faults.ledger import Findings, Ledger, Load, read_all
from tests.faults.points import CLOCK, KILL, Point
from tests.faults.processes import DURABLE, Account, GatewayProcess, kill_postgres
from tests.faults.watching import PATIENCE_SECONDS, until

HERE = "127.0.0.1"
NEAR, FAR = "acme.test", "umbrella.test"
LATER_SECONDS = 120  # by then every lease lapsed, and whatever failed meanwhile is due again
FROZEN_SECONDS = 35  # longer than a lease
PARCELS_MAX = 8  # that are settled before a named point kills
NOTHING_LIVES = "select not exists (select from deliveries)"


class Blow(StrEnum):
    KILL_SENDER = "kill the sender"
    KILL_RECEIVER = "kill the receiver"
    KILL_NEAR_DATABASE = "kill the sender's database"
    KILL_FAR_DATABASE = "kill the receiver's database"
    KILL_UNRECORDED = "kill the sender when the receiver took it, and that is not recorded"
    FREEZE_SENDER = "stop the sender's clockwork for longer than its leases last"
    STOP_SENDER = "stop the sender in order"
    STOP_RECEIVER = "stop the receiver in order"


@dataclass
class House:
    """One domain."""

    postgres: EmbeddedPostgres
    gateways: list[GatewayProcess]

    @property
    def gateway(self) -> GatewayProcess:
        return self.gateways[0]

    async def balance(self) -> Balance:
        database = Database(self.postgres.dsn, clock=Clock())
        await database.open()
        try:
            return await balance(database)
        finally:
            await database.close()


@dataclass
class Crossing:
    """Both houses, a sender in the near one and readers in the far one."""

    near: House
    far: House
    session: aiohttp.ClientSession
    sender: Account
    recipients: list[Account]

    def load(self) -> Load:
        return Load([gateway.url for gateway in self.near.gateways], self.sender, self.recipients)

    async def strike(self, blow: Blow, chance: Random) -> None:
        """Whatever it hits is back afterwards."""
        match blow:
            case Blow.KILL_SENDER:
                await _restart(self.near.gateway, signal.SIGKILL)
            case Blow.KILL_RECEIVER:
                await _restart(self.far.gateway, signal.SIGKILL)
            case Blow.FREEZE_SENDER:
                gateway = chance.choice(self.near.gateways)
                gateway.signal(signal.SIGSTOP)
                await asyncio.sleep(FROZEN_SECONDS)  # the fault itself has this length
                gateway.signal(signal.SIGCONT)
            case Blow.STOP_SENDER:
                await _restart(self.near.gateway, signal.SIGTERM)
            case Blow.STOP_RECEIVER:
                await _restart(self.far.gateway, signal.SIGTERM)
            case Blow.KILL_NEAR_DATABASE:
                await kill_postgres(self.near.postgres, chance.choice((signal.SIGQUIT, signal.SIGKILL)))
            case Blow.KILL_FAR_DATABASE:
                await kill_postgres(self.far.postgres, chance.choice((signal.SIGQUIT, signal.SIGKILL)))
            case Blow.KILL_UNRECORDED:
                gateway = self.near.gateway
                await gateway.kill()
                point = f"{Point.BEFORE_SETTLE}:{chance.randint(1, PARCELS_MAX)}"
                await gateway.launch(**{KILL: point})
                assert await gateway.ended() == -signal.SIGKILL, gateway.log()
                await gateway.start()
            case _:
                assert_never(blow)

    async def arrived_later(self) -> None:
        """Until nothing waits any more, after leases and patience have ended on the turned clock."""
        for gateway in self.near.gateways:
            await gateway.kill()
        for gateway in self.near.gateways:
            await gateway.start(**{CLOCK: str(LATER_SECONDS)})
        await self.arrived(PATIENCE_SECONDS)

    async def arrived(self, patience_seconds: float) -> None:
        """Until nothing waits any more."""
        await until(self.near.postgres.dsn, NOTHING_LIVES, patience_seconds)

    async def audit(self, ledger: Ledger) -> Findings:
        """How what was acknowledged here differs from what can be read there; the books of both balance."""
        assert set(ledger.answers) <= EXPECTED, ledger.answers
        readable = await read_all(self.session, self.far.gateway.url, self.recipients)
        near, far = await self.near.balance(), await self.far.balance()
        assert (near.unaccounted, near.queued, near.held) == (0, 0, 0)
        assert (far.unaccounted, far.finished) == (0, len(readable))
        assert await read_all(self.session, self.near.gateway.url, [self.sender]) == []  # no report
        return ledger.compare(readable)


@asynccontextmanager
async def crossing(
    near: Path, far: Path, *, senders: int = 1, road: FakePeer | None = None
) -> AsyncIterator[Crossing]:
    """`near` and `far` are data folders with a cluster in them; `senders` processes share the near one.

    With a `road` the near one takes that for the far one, and it decides what becomes of each request.
    """
    authority = road.authority if road else Authority()
    certificate, key = authority.write_pair(far, HERE)
    ca_file = authority.write_ca(near)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        receiving = await stack.enter_async_context(
            house(
                far,
                FAR,
                doors=[{"roles": ["public"], "tls": True}],
                settings={"tls": {"certificate_file": str(certificate), "key_file": str(key)}},
            )
        )
        url = road.url if road else f"https://{HERE}:{receiving.gateway.ports[1]}"
        knows = {
            "peers": {FAR: {"gateway": url, "features": ["batch"]}},
            "outbound": {"allow_networks": ["127.0.0.0/8"], "ca_file": str(ca_file)},
        }
        sending = await stack.enter_async_context(house(near, NEAR, count=senders, settings=knows))
        sender = await sending.gateway.register(session, "sender")
        recipients = [await receiving.gateway.register(session, f"reader-{n}") for n in range(RECIPIENTS)]
        yield Crossing(sending, receiving, session, sender, recipients)


@asynccontextmanager
async def house(folder: Path, domain: str, *, count: int = 1, **how: Any) -> AsyncIterator[House]:
    """A domain's Postgres and gateways, killed in the end."""
    async with AsyncExitStack() as stack:
        postgres = EmbeddedPostgres(folder, settings=DURABLE)
        dsn = await postgres.start()
        stack.push_async_callback(postgres.stop)
        gateways = [GatewayProcess(dsn, folder / f"gateway-{n}", domain, **how) for n in range(count)]
        for gateway in gateways:
            stack.push_async_callback(gateway.kill)
            await gateway.start()
        yield House(postgres, gateways)


async def break_while_it_crosses(
    crossing: Crossing, blows: Sequence[Blow], seed: int, messages: int = BETWEEN_MAX
) -> Ledger:
    """One blow after the other at any moment while about so many messages are sent, or a few more."""
    chance = Random(seed)
    between_max = max(2 * messages // len(blows), 1)
    async with crossing.load() as load:
        for blow in blows:
            await load.acknowledged(chance.randint(1, between_max))
            await crossing.strike(blow, chance)
        await load.acknowledged(max(messages - len(load.ledger.acknowledged), AFTER))
    return load.ledger


async def _restart(gateway: GatewayProcess, number: signal.Signals) -> None:
    gateway.signal(number)
    ended = await gateway.ended()
    assert ended == (0 if number is signal.SIGTERM else -number), gateway.log()
    await gateway.start()
