"""`amtp migrate`: brings the database to this release's schema, or says what it lacks."""

import asyncio
from typing import Annotated

import typer

from gateway.cli.call import REFUSED, AsJson, print_json
from gateway.cli.local_store import ConfigFile, DataFolder, reached, settings
from gateway.config import Config
from gateway.store import migrate as store


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 if something lacks.")
    ] = False,
    config: ConfigFile = None,
    data: DataFolder = None,
    as_json: AsJson = False,
) -> None:
    """Bring the database to this release's schema. `amtp serve` does so too."""
    names = asyncio.run(_work(settings(config, data), check))
    if as_json:
        print_json({"pending" if check else "applied": names})
    elif check:
        typer.echo(f"The database lacks {', '.join(names)}: run amtp migrate." if names else UP_TO_DATE)
    else:
        typer.echo(f"Applied {', '.join(names)}." if names else UP_TO_DATE)
    if check and names:
        raise typer.Exit(REFUSED)


UP_TO_DATE = "The schema is up to date."


async def _work(config: Config, check: bool) -> list[str]:
    async with reached(config) as database:
        return await (store.pending(database) if check else store.migrate(database))
