"""`amtp serve`: runs the gateway; with `--local`, for this machine only and without a configuration."""

import asyncio
import json
import os
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from gateway.cli import descriptors
from gateway.cli.for_operators.first_steps import greeting, keep_admin_key
from gateway.cli.for_operators.local_store import ConfigFile
from gateway.config.file import find_file
from gateway.config.sections import ListenerSettings
from gateway.config.settings import DEVELOPMENT_LISTEN, Config
from gateway.config.values import HostPort
from gateway.postgres.embedded import EmbeddedPostgres
from gateway.serve import pid_file, process, workers
from gateway.serve.ports import check_free, first_free, reserve
from gateway.serve.process import Start, journal_of
from gateway.serve.signals import Signals

WORKERS_MAX = 64


def serve(
    config: ConfigFile = None,
    data: Annotated[Path | None, typer.Option("--data", help="The data folder.")] = None,
    worker_count: Annotated[
        int, typer.Option("--workers", min=1, max=WORKERS_MAX, help="Processes that share the ports.")
    ] = 1,
    local: Annotated[
        bool, typer.Option("--local", help="For this machine only: domain localhost, no configuration.")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65_535, help="With --local; default: 8080 or the next free one."),
    ] = None,
) -> None:
    """Run the gateway until SIGTERM or Ctrl-C; SIGHUP reloads the configuration."""
    if local and config:
        raise typer.BadParameter("--local goes without a configuration; leave out --config")
    if port is not None and not local:
        raise typer.BadParameter("--port goes with --local; otherwise say it in `listen`")
    start = _local(data, port) if local else _configured(config, data)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(start, worker_count, local))
    except asyncio.CancelledError:
        typer.echo("amtp: stopped before it was ready", err=True)


def _configured(file: Path | None, data: Path | None) -> Start:
    variables = {"AMTP_DATA": str(data)} if data else {}
    return _loaded(Start(Config(), find_file(file, os.environ), variables))


def _local(data: Path | None, port: int | None) -> Start:
    variables = {"AMTP_DEVELOPMENT": "true"}
    if data:
        variables["AMTP_DATA"] = str(data)
    if port is not None or "AMTP_LISTEN" not in os.environ:
        address = DEVELOPMENT_LISTEN[0].address
        address = first_free(address) if port is None else replace(address, port=port)
        variables["AMTP_LISTEN"] = json.dumps([{"address": str(address), "roles": ["all"]}])
    return _loaded(Start(Config(), None, variables))


def _loaded(start: Start) -> Start:
    return replace(start, config=start.load())


async def _serve(start: Start, worker_count: int, local: bool) -> None:
    signals = Signals()
    config = start.config
    async with AsyncExitStack() as stack:
        held = stack.enter_context(ExitStack())
        for listener in config.listen:
            check_free(listener.address)
        if worker_count > 1:
            config = replace(config, listen=reserve(config.listen, held))
        journal = journal_of(config)
        if (other := pid_file.claim(config.data, held)) is not None:
            journal.noted(
                "warning", f"Process {other} serves from this folder too: amtp drain means that one."
            )
        if short := descriptors.shortage(config, descriptors.raise_limit()):
            journal.noted("warning", f"{short}; {descriptors.REMEDY}.")
        dsn = str(config.database.url or await _embedded(config.data, stack))
        start = replace(start, config=config, dsn=dsn, processes=worker_count)

        async def ready(ports: tuple[int, ...]) -> None:
            if local:
                key = await keep_admin_key(config.data, dsn)
                url = _url(config.listen[0], ports[0])
                typer.echo(greeting(url, key.text, config.data, config.domains[0]))

        try:
            if worker_count > 1:
                await workers.run(start, worker_count, signals, journal, ready)
            else:
                await process.run(start, signals, journal, ready)
        finally:
            journal.flush()


async def _embedded(data: Path, stack: AsyncExitStack) -> str:
    server = EmbeddedPostgres(data)
    stack.push_async_callback(server.stop)
    return await server.start()


def _url(listener: ListenerSettings, port: int) -> str:
    scheme = "https" if listener.tls else "http"
    return f"{scheme}://{HostPort(listener.address.host, port)}"
