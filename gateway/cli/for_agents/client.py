"""Calls of the Python client from commands: its failures get the texts and exit codes of other commands."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import typer

from gateway.cli.call import REFUSED, CallRefused, Unreachable
from gateway.cli.printable import plain
from gateway.client import errors

T = TypeVar("T")


def awaited(work: Coroutine[Any, Any, T]) -> T:
    """Runs a client's call and returns its result; raises Refused or Unreachable like `Remote.call`."""
    try:
        return asyncio.run(work)
    except errors.Refused as refusal:
        said = {"code": refusal.code, "message": refusal.message, "request_id": refusal.request_id}
        raise CallRefused(
            {"error": {**said, **({"details": refusal.details} if refusal.details else {})}}
        ) from None
    except errors.Unreachable as silence:
        raise Unreachable(str(silence)) from None
    except (errors.NoReply, errors.Undelivered) as failure:
        typer.echo(f"amtp: {plain(str(failure))}", err=True)
        raise typer.Exit(REFUSED) from None
