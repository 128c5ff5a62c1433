"""`amtp migrate`: migrates the database to this release's schema, or lists pending migrations."""

import asyncio
from typing import Annotated

import typer

from gateway.cli.call import REFUSED, print_json
from gateway.cli.for_operators.local_store import ConfigFile, DataFolder, reached, settings
from gateway.cli.options import AsJson
from gateway.config.settings import Config
from gateway.store import migrate as store
from gateway.store import sealed


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 if migrations are pending.")
    ] = False,
    accept_key: Annotated[
        bool,
        typer.Option(
            "--accept-key", help="Use this secrets.key from now on; secrets sealed with another are lost."
        ),
    ] = False,
    config: ConfigFile = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Migrate the database to this release's schema. `amtp serve` does so, too."""
    if check and accept_key:
        raise typer.BadParameter("--check changes nothing; leave out --accept-key")
    names = asyncio.run(_work(settings(config, data), check, accept_key))
    if as_json:
        print_json({"pending" if check else "applied": names})
    elif check:
        typer.echo(f"The database lacks {', '.join(names)}: run amtp migrate." if names else UP_TO_DATE)
    else:
        typer.echo(f"Applied {', '.join(names)}." if names else UP_TO_DATE)
    if check and names:
        raise typer.Exit(REFUSED)


UP_TO_DATE = "The schema is up to date."


async def _work(config: Config, check: bool, accept_key: bool) -> list[str]:
    async with reached(config) as database:
        if check:
            return await store.pending(database)
        names = await store.migrate(database)
        if accept_key:
            await sealed.accept(database, sealed.Sealer.of(config.data))
        return names
