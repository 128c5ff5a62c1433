"""The entry point of the command: its subcommands, and errors without a traceback."""

import sys
from typing import Annotated

import typer

from gateway import __version__
from gateway.cli.for_agents import agent, schedules
from gateway.cli.for_agents.attach import attach
from gateway.cli.for_agents.inbox import inbox
from gateway.cli.for_agents.send import send
from gateway.cli.for_agents.status import status
from gateway.cli.for_operators import admin_keys, agents, dead, domain, peers, queue, webhooks
from gateway.cli.for_operators.check_config import check_config
from gateway.cli.for_operators.doctor import doctor
from gateway.cli.for_operators.drain import drain
from gateway.cli.for_operators.migrate import migrate
from gateway.cli.for_operators.serve import serve
from gateway.serve.expected import tell

app = typer.Typer(
    name="amtp",
    help="A mail server for AI agents.",
    epilog="Exit codes: 0 done, 1 refused or something is wrong, 2 misused, 3 no gateway answered.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve)
app.command("check-config")(check_config)
app.command("doctor")(doctor)
app.command("drain")(drain)
app.command("migrate")(migrate)
app.command("send")(send)
app.command("inbox")(inbox)
app.command("attach")(attach)
app.command("status")(status)
app.add_typer(agent.app, name="agent")
app.add_typer(agents.app, name="agents")
app.add_typer(admin_keys.app, name="admin-keys")
app.add_typer(domain.app, name="domain")
app.add_typer(peers.app, name="peers")
app.add_typer(queue.app, name="queue")
app.add_typer(dead.app, name="dead")
app.add_typer(schedules.app, name="schedules")
app.add_typer(webhooks.app, name="webhooks")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"amtp {__version__}")
        raise typer.Exit


@app.callback()
def _amtp(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    try:
        app()
    except Exception as failure:  # noqa: BLE001 - the edge of the process: beyond it is a traceback
        tell(failure)
        sys.exit(1)
