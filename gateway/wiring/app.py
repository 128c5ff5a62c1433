"""The gateway as a whole: starts its parts in order, and stops them in reverse order."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from gateway import __version__
from gateway.config.settings import Config
from gateway.features.feature import Plug
from gateway.flow.accept import Accept
from gateway.flow.housekeeping import Housekeeping
from gateway.http.roles import roles_of
from gateway.http.server import HttpServer
from gateway.journal.journal import Journal
from gateway.journal.stalls import Stalls
from gateway.route.directory import Directory
from gateway.store import migrate, sealed
from gateway.store.audit import Audit
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.intake.intake import Intake
from gateway.store.row_ids import Mint
from gateway.store.wakeups.replies import Replies
from gateway.wiring.core import Parts
from gateway.wiring.core_doors import door_of
from gateway.wiring.features import FEATURES

GRACE_SECONDS = 25.0  # for requests under way when the gateway stops


@dataclass(frozen=True, slots=True)
class App:
    """A running gateway, as its starter sees it."""

    config: Config
    clock: Clock
    mint: Mint
    journal: Journal
    database: Database
    audit: Audit
    accept: Accept
    intake: Intake
    directory: Directory
    replies: Replies
    housekeeping: Housekeeping
    door: HttpServer
    adopt: Callable[[Config], None]  # applies the reloadable part of a configuration
    ports: tuple[int, ...]  # of the listeners, in the order of the configuration


@asynccontextmanager
async def running(
    config: Config,
    dsn: str,
    *,
    clock: Clock,
    journal: Journal,
    tls: ssl.SSLContext | None = None,
    processes: int = 1,
    features: Sequence[Plug] = FEATURES,
) -> AsyncIterator[App]:
    """Runs a gateway for as long as the block lasts; at its end no accepted message is lost."""
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
        parts = Parts(config, database, clock, journal, features, processes=processes)
        await sealed.agree(database, parts.sealer, config.data)
        journal.key_files([config.data / sealed.KEY_FILE, config.tls.key_file])
        stack.callback(parts.parsing.close)
        stack.push_async_callback(parts.outbound.close)
        stack.push_async_callback(parts.directory.close)
        await parts.agents.ensure_postmasters(config.domains)
        for faces in parts.faces:
            if faces.prepare is not None:
                await faces.prepare()
        await stack.enter_async_context(_at_work(parts))
        door = door_of(parts)
        ports = await _open(door, config, tls, reuse_port=processes > 1)
        journal.started(__version__, [str(listener.address) for listener in config.listen])
        try:
            yield App(
                config=config,
                clock=clock,
                mint=parts.mint,
                journal=journal,
                database=database,
                audit=parts.audit,
                accept=parts.accept,
                intake=parts.intake,
                directory=parts.directory,
                replies=parts.replies,
                housekeeping=parts.housekeeping,
                door=door,
                adopt=partial(_adopt, parts, door),
                ports=ports,
            )
        finally:
            parts.draining = True
            await door.close(GRACE_SECONDS)
            journal.stopped()


def _adopt(parts: Parts, door: HttpServer, config: Config) -> None:
    parts.adopt(config)
    door.adopt(config.limits, config.proxy.trusted)
    parts.journal.adopt(config.log.format, config.log.level)


@asynccontextmanager
async def _at_work(parts: Parts) -> AsyncIterator[None]:
    """Runs the background tasks; stops intake first and settling last, so that accepted work is finished."""
    async with asyncio.TaskGroup() as group:
        intake = group.create_task(parts.intake.run())
        settle = group.create_task(parts.settle.run())
        workers = [parts.worker, *(worker for faces in parts.faces for worker in faces.workers)]
        working = {group.create_task(worker.run()) for worker in workers}
        until_the_end = [
            group.create_task(work)
            for work in (
                parts.watch.run(),
                parts.bell.run(),
                parts.straight.run(),
                parts.replies.run(),
                parts.housekeeping.run(),
                *(watch() for faces in parts.faces for watch in faces.watches),
                Stalls(parts.journal).run(),
                parts.journal.metrics.run(),
            )
        ]
        try:
            yield
        finally:
            parts.intake.stop()
            await asyncio.wait({intake})
            for worker in workers:
                worker.stop()
            await asyncio.wait(working)
            parts.settle.stop()
            await asyncio.wait({settle})
            for task in until_the_end:
                task.cancel()


async def _open(
    door: HttpServer, config: Config, tls: ssl.SSLContext | None, *, reuse_port: bool
) -> tuple[int, ...]:
    ports = []
    for listener in config.listen:
        address, context = listener.address, tls if listener.tls else None
        ports.append(
            await door.open(
                address.host, address.port, roles_of(listener.roles), context, reuse_port=reuse_port
            )
        )
    return tuple(ports)
