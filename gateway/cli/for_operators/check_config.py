"""`amtp check-config`: shows all faults of a configuration at once, or the effective values."""

import os
from pathlib import Path
from typing import Annotated

import msgspec
import typer
import yaml

from gateway.config.file import find_file
from gateway.config.settings import Config, ConfigError, load
from gateway.config.show import effective, example


def check_config(
    file: Annotated[
        Path | None, typer.Argument(help="The file; default: $AMTP_CONFIG, else ./amtp.yaml if it exists.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the effective values, secrets masked.")] = False,
    show_example: Annotated[bool, typer.Option("--example", help="Print a commented example file.")] = False,
) -> None:
    """Check a configuration file and the AMTP_ variables together."""
    if show_example:
        typer.echo(example(), nl=False)
        return
    path = find_file(file, os.environ)
    try:
        config = load(path, os.environ)
    except ConfigError as error:
        _tell_faults(path, error.faults, as_json)
        raise typer.Exit(1) from None
    _tell_good(path, config, as_json, show)


def _tell_faults(path: Path | None, faults: list[str], as_json: bool) -> None:
    if as_json:
        _print_json({"ok": False, "file": _name(path), "faults": faults})
        return
    for fault in faults:
        typer.echo(fault, err=True)
    typer.echo(f"{_source(path)}: {len(faults)} fault{'s' if len(faults) != 1 else ''}.", err=True)


def _tell_good(path: Path | None, config: Config, as_json: bool, show: bool) -> None:
    if as_json:
        shown = {"config": effective(config)} if show else {}
        _print_json({"ok": True, "file": _name(path), "faults": []} | shown)
    elif show:
        typer.echo(yaml.safe_dump(effective(config), sort_keys=False, allow_unicode=True), nl=False)
    else:
        typer.echo(f"{_source(path)}: good, for {', '.join(config.domains)}.")


def _print_json(answer: object) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(answer)).decode())


def _name(path: Path | None) -> str | None:
    return str(path) if path else None


def _source(path: Path | None) -> str:
    return str(path) if path else "environment"
