"""Direct access to the database for commands: the configured one, or that of a data folder."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from gateway.config.file import find_file
from gateway.config.settings import Config, load
from gateway.postgres.embedded import EmbeddedPostgres
from gateway.protocol.errors import AMTPError
from gateway.serve import pid_file
from gateway.serve.expected import StartError, explained
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.migrate import migrate

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="Default: $AMTP_CONFIG, else ./amtp.yaml if it exists.")
]
DataFolder = Annotated[
    Path | None, typer.Option("--data", help="Data folder of a gateway without a configuration file.")
]


def settings(config_file: Path | None, data: Path | None) -> Config:
    """Returns the configuration, or defaults with the given data folder."""
    if data:
        return replace(Config(), data=data)
    return load(find_file(config_file, os.environ), os.environ)


@asynccontextmanager
async def opened(config_file: Path | None, data: Path | None) -> AsyncIterator[Database]:
    """Opens the database of that configuration, after migrating it."""
    async with reached(settings(config_file, data)) as database:
        await migrate(database)
        yield database


@asynccontextmanager
async def reached(config: Config) -> AsyncIterator[Database]:
    """Opens the database without migrating it; starts an embedded one if no gateway runs it."""
    try:
        async with AsyncExitStack() as stack:
            dsn = config.database.url or await _embedded(config.data, stack)
            database = Database(dsn, clock=Clock(), pool_size=1, pooled=config.database.pgbouncer == "on")
            await database.open()
            stack.push_async_callback(database.close)
            yield database
    except AMTPError as failure:
        raise explained(failure, config) from failure.__cause__


async def _embedded(data: Path, stack: AsyncExitStack) -> str:
    """Returns the DSN of the data folder's server; starts it for as long as the stack if no gateway runs it."""
    server = EmbeddedPostgres(data)
    running = Database(server.dsn, clock=Clock(), pool_size=1)
    try:
        await running.open()
        await running.close()
    except AMTPError:
        if (gateway := pid_file.holder(data)) is not None:
            raise StartError(
                f"The Postgres of the gateway that serves from {data} (process {gateway}) doesn't answer. The gateway"
                " starts it again by itself; its log has the last words of Postgres."
            ) from None
        stack.push_async_callback(server.stop)
        await server.start()
    return server.dsn
