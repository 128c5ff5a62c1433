"""`amtp agent`: runs an agent written in Python until it is stopped."""

import asyncio
import importlib
import logging
import sys
from pathlib import Path
from traceback import extract_tb
from typing import Annotated

import typer

from gateway.cli.call import REFUSED, outcome
from gateway.cli.for_agents.client import awaited
from gateway.client import agent as waiting
from gateway.client import sync
from gateway.client.work import CONCURRENCY, GRACE_SECONDS
from gateway.serve.signals import STOP

Runnable = waiting.Agent | sync.Agent

app = typer.Typer(help="Agents written in Python.", no_args_is_help=True)


@app.callback()
def _agent() -> None:
    pass


@app.command("run")
def run(
    target: Annotated[
        str, typer.Argument(metavar="MODULE:NAME", help="The agent, such as examples.echo:agent.")
    ],
    concurrency: Annotated[int, typer.Option(min=1, help="Messages handled at once.")] = CONCURRENCY,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds for running callbacks when stopped.")
    ] = GRACE_SECONDS,
) -> None:
    """Run an agent. SIGINT or SIGTERM stops it in order; AMTP_KEY and AMTP_GATEWAY give its key and gateway."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    agent = load(target)
    typer.echo(f"{agent.address} is at work. Ctrl-C ends it.")
    with outcome(as_json=False):
        try:
            awaited(_at_work(agent, concurrency, grace))
        except asyncio.CancelledError:  # a second signal
            raise typer.Exit(REFUSED) from None


def load(target: str) -> Runnable:
    """Imports the agent that `target` names, from the current folder first."""
    module_name, colon, name = target.partition(":")
    if not colon or not module_name or not name:
        raise typer.BadParameter("write MODULE:NAME, such as examples.echo:agent", param_hint="MODULE:NAME")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except Exception as failure:  # noqa: BLE001 - an author's module may fail in any way
        where = extract_tb(failure.__traceback__)[-1]
        raise typer.BadParameter(
            f"{module_name} can't be imported: {type(failure).__name__}: {failure} ({where.filename}:{where.lineno})",
            param_hint="MODULE:NAME",
        ) from None
    agent = getattr(module, name, None)
    if not isinstance(agent, Runnable):
        raise typer.BadParameter(f"{module_name} has no agent named {name}", param_hint="MODULE:NAME")
    return agent


async def _at_work(agent: Runnable, concurrency: int, grace_seconds: float) -> None:
    """Runs the agent; the first signal lets it finish, the second cancels it."""
    task = asyncio.current_task()
    assert task is not None
    told = False

    def tell() -> None:
        nonlocal told
        task.cancel() if told else agent.stop()
        told = True

    for number in STOP:
        asyncio.get_running_loop().add_signal_handler(number, tell)
    if isinstance(agent, sync.Agent):
        await asyncio.to_thread(agent.run, concurrency=concurrency, grace_seconds=grace_seconds)
    else:
        await agent.run(concurrency=concurrency, grace_seconds=grace_seconds)
