"""`amtp admin-keys`: the keys of operators and of programs they trust; works on the database directly."""

import asyncio
import getpass
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from gateway.admit.api_key import mint_key
from gateway.admit.caller import ADMIN, SUBMIT
from gateway.cli.call import REFUSED, print_fields, print_json, print_table
from gateway.cli.for_operators.agents import tell_made
from gateway.cli.for_operators.local_store import ConfigFile, DataFolder, opened
from gateway.cli.options import AsJson
from gateway.cli.spans import seconds_of
from gateway.protocol.address import parse_address, parse_domain
from gateway.protocol.errors import AMTPError
from gateway.protocol.timestamp import render_timestamp
from gateway.receive.agent_profile import render_made
from gateway.store.agents.keys import PEER, NamedKey, NamedKeys, NewKey, peers_of
from gateway.store.audit import Audit
from gateway.store.clock import Clock
from gateway.store.row_ids import Mint
from gateway.wiring.features import LEAVINGS

app = typer.Typer(help="Keys of operators and of programs they trust.", no_args_is_help=True)

NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,62}")
SCOPES_HELP = f"{ADMIN}; {SUBMIT} or {SUBMIT}:ADDRESS to send for agents here; {PEER}DOMAIN. May be repeated."
COLUMNS = {
    "id": "ID",
    "name": "NAME",
    "scopes": "SCOPES",
    "created_at": "CREATED",
    "expires_at": "ENDS",
    "last_used_at": "LAST USED",
    "revoked_at": "REVOKED",
}
FIELDS = {"name": "Name", "id": "Id", "scopes": "Scopes", "key": "Key"}

Answer = TypeVar("Answer")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Its owner's name, shown in the audit.")],
    scope: Annotated[list[str] | None, typer.Option("--scope", help=SCOPES_HELP)] = None,
    life: Annotated[
        int | None,
        typer.Option(
            "--for", parser=seconds_of, metavar="SPAN", help="Expires after: 12h, 90d; default: never."
        ),
    ] = None,
    config: ConfigFile = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Make a key, and print it; it is shown only now."""
    if NAME.fullmatch(name) is None:
        raise typer.BadParameter("NAME must be letters, digits, dots, dashes or underscores, a letter first")
    scopes = parse_scopes(scope or [ADMIN])
    key = mint_key()
    new = NewKey(key.id, key.digest)
    _with_keys(config, data, lambda keys: keys.add(new, name, scopes, _actor(), life))
    made = {"id": key.id, "name": name, "scopes": scopes, "key": key.text}
    if as_json:
        print_json(made)
        return
    print_fields(FIELDS, made)
    typer.echo("\nKeep the key: it is not shown again.")


@app.command("list")
def list_(config: ConfigFile = None, data: DataFolder = None, as_json: AsJson = False) -> None:
    """List keys, with revoked ones."""
    rows = [_shown(key) for key in _with_keys(config, data, lambda keys: keys.all())]
    if as_json:
        print_json({"keys": rows})
    else:
        print_table(COLUMNS, rows)


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME|ID")],
    drop: Annotated[
        bool, typer.Option("--drop", help="Also end the webhooks and schedules it made.")
    ] = False,
    config: ConfigFile = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a key; all processes of the gateway refuse it within two seconds."""
    ended = _with_keys(config, data, lambda keys: keys.revoke(name, _actor(), drop=drop))
    if ended is None:
        typer.echo(f"amtp: no key {name} is in force; `amtp admin-keys list` shows them.", err=True)
        raise typer.Exit(REFUSED)
    revoked, made = ended
    if as_json:
        print_json({**_shown(revoked), "made": render_made(made, dropped=drop)})
        return
    typer.echo(f"Key {revoked.name} ({revoked.id}) is revoked.")
    tell_made(
        render_made(made, dropped=drop),
        "still at work; look at `amtp webhooks list` and `amtp schedules list`",
    )


def parse_scopes(texts: Sequence[str]) -> list[str]:
    """Returns the scopes in their canonical form."""
    scopes = [_parse_scope(text) for text in texts]
    if len(peers_of(scopes)) > 1:
        raise typer.BadParameter(
            f"a key proves one domain: give one --scope {PEER}DOMAIN, and make a key for each domain"
        )
    return scopes


def _parse_scope(text: str) -> str:
    if text in (ADMIN, SUBMIT):
        return text
    kind, _, value = text.partition(":")
    try:
        if kind == SUBMIT:
            return f"{SUBMIT}:{parse_address(value, 'the address').name}"
        if f"{kind}:" == PEER:
            return f"{PEER}{parse_domain(value, 'the domain')}"
    except AMTPError as fault:
        raise typer.BadParameter(f"--scope {text}: {fault.message}") from None
    raise typer.BadParameter(f"--scope {text} is unknown; there are {SCOPES_HELP}")


def _with_keys(
    config: Path | None, data: Path | None, do: Callable[[NamedKeys], Awaitable[Answer]]
) -> Answer:
    async def work() -> Answer:
        async with opened(config, data) as database:
            return await do(NamedKeys(database, Audit(Mint(Clock())()), LEAVINGS))

    return asyncio.run(work())


def _actor() -> str:
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a user without a name, as in many containers
        return "cli"


def _shown(key: NamedKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": list(key.scopes),
        "created_at": render_timestamp(key.created_at),
        "expires_at": render_timestamp(key.expires_at) if key.expires_at else None,
        "last_used_at": render_timestamp(key.last_used_at) if key.last_used_at else None,
        "revoked_at": render_timestamp(key.revoked_at) if key.revoked_at else None,
    }
