"""`amtp drain`: stops the gateway of a data folder, and waits until it has finished its requests."""

import os
import select
import signal
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.call import REFUSED, print_json
from gateway.cli.for_operators.local_store import ConfigFile, DataFolder, settings
from gateway.cli.options import AsJson
from gateway.serve import pid_file

TELL_SECONDS = 5  # between two progress messages


def drain(
    config: ConfigFile = None,
    data: DataFolder = None,
    seconds: Annotated[int, typer.Option("--wait", min=1, help="Seconds to wait at most.")] = 120,
    as_json: AsJson = False,
) -> None:
    """Stop the gateway on this machine: it accepts nothing more, finishes its requests, and ends."""
    folder = settings(config, data).data
    process, descriptor = _serving(folder)
    if process is None:
        _end(as_json, REFUSED, None, "none", f"No gateway serves from {folder}.")
    with os.fdopen(descriptor, "rb") as ending:
        signal.pidfd_send_signal(ending.fileno(), signal.SIGTERM)
        typer.echo(f"Gateway {process} takes nothing more; waiting for what it has.", err=True)
        if not _ended(ending.fileno(), seconds):
            text = (
                f"Gateway {process} is not done after {seconds} s; it goes on. Call amtp drain again to wait."
            )
            _end(as_json, REFUSED, process, "draining", text)
    _end(as_json, 0, process, "ended", f"Gateway {process} has ended.")


def _serving(folder: Path) -> tuple[int | None, int]:
    """Returns the pid, and a pidfd that can't come to mean another process."""
    process = pid_file.holder(folder)
    if process is None:
        return None, -1
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return None, -1
    if pid_file.holder(folder) == process:
        return process, descriptor
    os.close(descriptor)
    return None, -1


def _ended(descriptor: int, seconds: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    for waited in range(0, seconds, TELL_SECONDS):
        if poll.poll(min(TELL_SECONDS, seconds - waited) * 1000):
            return True
        typer.echo(
            f"Still waiting, for requests and deliveries under way ({waited + TELL_SECONDS} s).", err=True
        )
    return False


def _end(as_json: bool, code: int, process: int | None, state: str, text: str) -> None:
    if as_json:
        print_json({"process": process, "state": state})
    else:
        typer.echo(text, err=code != 0)
    raise typer.Exit(code)
