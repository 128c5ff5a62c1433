"""The composition root: builds every part once, starts them in order and stops them in the opposite one."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from gateway import __version__
from gateway.admit.authenticate import Authenticator
from gateway.admit.directory import DirectoryWatch
from gateway.admit.residents import Residents
from gateway.clock import Clock
from gateway.config import Config
from gateway.deliver.peer import COURIER_SECONDS, PeerCourier
from gateway.embedded import FREE_BYTES_MIN, free_bytes
from gateway.flow import Flow
from gateway.housekeeping import Chore, Housekeeping
from gateway.journal import Journal
from gateway.lanes import Lanes
from gateway.mint import Mint
from gateway.outbound import Outbound
from gateway.placing import Placing
from gateway.receive.agents import AgentDoor
from gateway.receive.capabilities import CapabilityDoor
from gateway.receive.dead_letters import DeadLetterDoor
from gateway.receive.health import DatabaseLook, HealthDoor, Look, disk_look, draining_look
from gateway.receive.http import Door
from gateway.receive.inbox import InboxDoor
from gateway.receive.limits import Manners, Slots
from gateway.receive.messages import MessageDoor
from gateway.receive.openapi import OpenApiDoor
from gateway.receive.parsing import Parsing
from gateway.receive.queue import QueueDoor
from gateway.receive.routing import Route, roles_of
from gateway.receive.status import StatusDoor
from gateway.receive.traffic import TrafficDoor
from gateway.route.configured import nameservers_of, plain_domains, published, static_peers
from gateway.route.directory import Directory
from gateway.route.dns import Dns
from gateway.route.memories import StoredMemories
from gateway.route.router import Router
from gateway.store import destinations, keys, migrate, partitions, poison, removal, retention, tallies
from gateway.store.activity import Activity
from gateway.store.agents import Agents
from gateway.store.audit import Audit
from gateway.store.bell import Bell
from gateway.store.cancellation import Cancellations
from gateway.store.database import Database
from gateway.store.dead_letters import DeadLetters
from gateway.store.intake import Intake
from gateway.store.queue import Queue
from gateway.store.sealed import Sealer
from gateway.store.settle import Settle
from gateway.store.traffic import Traffic
from gateway.tls import client_context
from gateway.worker import Worker

GRACE_SECONDS = 25.0  # for requests under way when the gateway stops
POSTMASTER_ENTRIES_MAX = 10_000  # unread mail that nobody reads goes, oldest first


@dataclass(frozen=True, slots=True)
class App:
    """A running gateway, as whoever started it sees it."""

    config: Config
    clock: Clock
    mint: Mint
    journal: Journal
    database: Database
    audit: Audit
    flow: Flow
    intake: Intake
    directory: Directory
    housekeeping: Housekeeping
    door: Door
    ports: tuple[int, ...]  # of the listeners, in the order of the configuration


@asynccontextmanager
async def running(
    config: Config,
    dsn: str,
    *,
    clock: Clock,
    journal: Journal,
    tls: ssl.SSLContext | None = None,
    reuse_port: bool = False,
) -> AsyncIterator[App]:
    """A gateway that takes messages while the block lasts, and loses none when it ends."""
    async with AsyncExitStack() as stack:
        database = Database(
            dsn,
            clock=clock,
            pool_size=config.database.pool_size,
            statement_timeout_seconds=config.database.statement_timeout_seconds,
            pooled={"on": True, "off": False, "auto": None}[config.database.pgbouncer],
        )
        await database.open()
        stack.push_async_callback(database.close)
        await migrate.migrate(database)
        config.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        parts = Parts(config, database, clock, journal)
        stack.callback(parts.parsing.close)
        stack.push_async_callback(parts.outbound.close)
        stack.push_async_callback(parts.directory.close)
        await parts.agents.ensure_postmasters(config.domains)
        await stack.enter_async_context(_at_work(parts))
        door = parts.door()
        ports = await _open(door, config, tls, reuse_port)
        journal.started(__version__, [str(listener.address) for listener in config.listen])
        try:
            yield App(
                config=config,
                clock=clock,
                mint=parts.mint,
                journal=journal,
                database=database,
                audit=parts.audit,
                flow=parts.flow,
                intake=parts.intake,
                directory=parts.directory,
                housekeeping=parts.housekeeping,
                door=door,
                ports=ports,
            )
        finally:
            parts.draining = True
            await door.close(GRACE_SECONDS)
            journal.stopped()


class Parts:
    """Everything a gateway is made of, put together."""

    def __init__(self, config: Config, database: Database, clock: Clock, journal: Journal) -> None:
        self.config, self.database, self.clock, self.journal = config, database, clock, journal
        self.mint = mint = Mint(clock)
        self.audit = Audit(mint())
        self.bell = Bell(database, journal)
        self.watch = DirectoryWatch(lambda: keys.directory_version(database))
        self.authenticator = Authenticator(
            database, self.watch, clock, development=config.development, peers=_proving_keys(config)
        )
        self.residents = Residents(database, self.watch)
        self.agents = Agents(database, self.audit)
        self.activity = Activity(database)
        self.sealer = Sealer.of(config.data)
        self.intake = Intake(database, mint, journal, committed=self.bell.ring, limits=config.limits)
        self.settle = Settle(database, mint, journal, committed=self.bell.ring)
        self.lanes = Lanes(
            clock,
            lease_seconds=config.queue.lease_seconds,
            courier_seconds=COURIER_SECONDS,
            window_max=config.queue.per_destination_window_max,
        )
        self.directory = _directory(config, database, clock)
        self.outbound = Outbound(
            self.directory.resolve_host,
            client_context(config.outbound.ca_file),
            agent=f"AMTP/1.0 (amtp-gateway/{__version__})",
            allow=config.outbound.allow_networks,
            connect_seconds=config.outbound.connect_seconds,
        )
        self.peer = PeerCourier(self.outbound, config)
        self.flow = Flow(
            domains=config.domains,
            database=database,
            intake=self.intake,
            settle=self.settle,
            router=Router(self.residents, self.directory),
            peer=self.peer,
            placing=Placing(config.domains, self.residents, clock, timedelta(days=config.queue.horizon_days)),
            lanes=self.lanes,
            committed=self.bell.ring,
            clock=clock,
            mint=mint,
            journal=journal,
            attempts_max=config.queue.attempts_max,
        )
        self.worker = Worker(
            database=database,
            lanes=self.lanes,
            flow=self.flow,
            journal=journal,
            clock=clock,
            lease_seconds=config.queue.lease_seconds,
            concurrency=config.queue.concurrency,
        )
        self.parsing = Parsing()
        self.slots = Slots(config.limits.requests_in_admission, "The gateway is busy; try again shortly.")
        self.draining = False
        self.housekeeping = Housekeeping(self._chores(), journal)

    def _chores(self) -> list[Chore]:
        database, config = self.database, self.config
        return [
            Chore("expiry", 5, self.worker.expire),
            Chore("late mail", 60, lambda: self.flow.tell_delays(config.queue.delay_report_hours)),
            Chore(
                "poison",
                5,
                lambda: poison.bury(database, self.journal, lapses_max=config.inbox.poison_lapses),
            ),
            Chore("activity", 30, self.activity.write),
            Chore("removed agents", 30, lambda: removal.clear_removed(database, self.mint)),
            Chore(
                "postmasters",
                600,
                lambda: removal.bound_postmasters(database, self.mint, POSTMASTER_ENTRIES_MAX),
            ),
            Chore("conservation", 15, self._measure),
            Chore("tallies", 3600, lambda: tallies.compact(database)),
            Chore("partitions", 3600, lambda: partitions.keep_ahead(database)),
            Chore("retention", 600, lambda: retention.forget(database, config.retention)),
            Chore("pauses", 60, lambda: destinations.forget_quiet(database)),
        ]

    async def _measure(self) -> None:
        counted = await tallies.balance(self.database)
        live = {"queued": counted.queued, "held": counted.held}
        self.journal.measured(live, counted.oldest_seconds, counted.unaccounted)

    def routes(self) -> list[Route]:
        database, authenticator, clock, config = self.database, self.authenticator, self.clock, self.config
        doors: tuple[HasRoutes, ...] = (
            MessageDoor(
                flow=self.flow,
                authenticator=authenticator,
                parsing=self.parsing,
                slots=self.slots,
                clock=clock,
                mint=self.mint,
                hostname=config.hostname,
                body_bytes_max=config.limits.body_bytes,
                room=self._disk_has_room,
            ),
            StatusDoor(
                database=database,
                authenticator=authenticator,
                cancellations=Cancellations(database, self.mint, self.audit),
                journal=self.journal,
            ),
            InboxDoor(
                database=database,
                authenticator=authenticator,
                residents=self.residents,
                bell=self.bell,
                activity=self.activity,
                journal=self.journal,
                clock=clock,
                rules=config.inbox,
            ),
            AgentDoor(
                agents=self.agents,
                authenticator=authenticator,
                watch=self.watch,
                sealer=self.sealer,
                clock=clock,
                domains=config.domains,
            ),
            CapabilityDoor(
                directory=self.directory,
                authenticator=authenticator,
                domains=config.domains,
                published=published(config),
            ),
            HealthDoor(looks=self._looks(), metrics=self.journal.metrics, clock=clock),
        )
        routes = [route for door in (*doors, *self._operators_doors()) for route in door.routes()]
        return [*routes, *OpenApiDoor(routes).routes()]

    def _operators_doors(self) -> tuple["HasRoutes", ...]:
        database = self.database
        return (
            QueueDoor(
                database=database,
                authenticator=self.authenticator,
                queue=Queue(database, self.mint, self.audit),
                flow=self.flow,
                journal=self.journal,
            ),
            TrafficDoor(
                database=database,
                authenticator=self.authenticator,
                traffic=Traffic(database, self.audit),
                lanes=self.lanes,
                directory=self.directory,
            ),
            DeadLetterDoor(
                database=database,
                authenticator=self.authenticator,
                dead_letters=DeadLetters(
                    database,
                    self.mint,
                    self.audit,
                    domains=self.config.domains,
                    horizon=timedelta(days=self.config.queue.horizon_days),
                ),
            ),
        )

    def _looks(self) -> list[Look]:
        looks: list[Look] = [DatabaseLook(self.database), draining_look(lambda: self.draining)]
        if not self.config.database.url:
            looks.append(disk_look(lambda: free_bytes(self.config.data), FREE_BYTES_MIN))
        return looks

    def _disk_has_room(self) -> bool:
        """New mail is refused before the embedded Postgres stops for want of room."""
        return bool(self.config.database.url) or free_bytes(self.config.data) >= FREE_BYTES_MIN

    def door(self) -> Door:
        return Door(
            routes=self.routes(),
            limits=self.config.limits,
            manners=Manners(),
            watch=DoorWatch(self.journal),
            clock=self.clock,
            trusted=self.config.proxy.trusted,
        )


class HasRoutes(Protocol):
    def routes(self) -> list[Route]: ...


class DoorWatch:
    """What happens at the doors, told to the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def request_answered(self, method: str, path: str, status: int, seconds: float) -> None:
        self._journal.request(f"{method} {path}", status, seconds)

    def request_failed(self, request_id: str, path: str, error: Exception) -> None:
        self._journal.broke(f"request {request_id} at {path}", error)

    def connection_refused(self, address: str) -> None:
        self._journal.noted("warning", f"Too many connections: one from {address} was turned away.")


@asynccontextmanager
async def _at_work(parts: Parts) -> AsyncIterator[None]:
    """The parts that work on their own, stopped from the outside in: nothing that was taken is left undone."""
    async with asyncio.TaskGroup() as group:
        intake = group.create_task(parts.intake.run())
        settle = group.create_task(parts.settle.run())
        worker = group.create_task(parts.worker.run())
        until_the_end = [
            group.create_task(work)
            for work in (parts.watch.run(), parts.bell.run(), parts.housekeeping.run())
        ]
        try:
            yield
        finally:
            parts.intake.stop()
            await asyncio.wait({intake})
            parts.worker.stop()
            await asyncio.wait({worker})
            parts.settle.stop()
            await asyncio.wait({settle})
            for task in until_the_end:
                task.cancel()


def _directory(config: Config, database: Database, clock: Clock) -> Directory:
    return Directory(
        Dns(nameservers_of(config), question_seconds=config.dns.timeout_seconds),
        clock,
        StoredMemories(database),
        peers=static_peers(config),
        plain_domains=plain_domains(config),
    )


def _proving_keys(config: Config) -> dict[str, str]:
    return {domain: peer.proving_key for domain, peer in config.peers.items() if peer.proving_key}


async def _open(door: Door, config: Config, tls: ssl.SSLContext | None, reuse_port: bool) -> tuple[int, ...]:
    ports = []
    for listener in config.listen:
        address, context = listener.address, tls if listener.tls else None
        ports.append(
            await door.open(
                address.host, address.port, roles_of(listener.roles), context, reuse_port=reuse_port
            )
        )
    return tuple(ports)
