"""`amtp attach`: uploads a file to attach it to a message."""

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.call import outcome
from gateway.cli.for_agents.client import awaited
from gateway.cli.options import GATEWAY_DEFAULT, AgentKey, GatewayUrl
from gateway.cli.printable import plain_json
from gateway.client.attaching import upload
from gateway.client.message import Attachment
from gateway.client.wire import Wire

PATIENCE_SECONDS = 0.0  # no retries: a person sees the failure and can repeat it


def attach(
    file: Annotated[Path, typer.Argument(help="The file.", exists=True, dir_okay=False, readable=True)],
    filename: Annotated[str | None, typer.Option(help="Its name for the recipient.")] = None,
    content_type: Annotated[
        str | None, typer.Option("--type", help="Its media type; default: by its name.")
    ] = None,
    gateway: GatewayUrl = GATEWAY_DEFAULT,
    key: AgentKey = None,
) -> None:
    """Upload a file, and print the JSON by which a message lists it in its attachments."""
    with outcome(as_json=False):
        attachment = awaited(uploaded(gateway, key, file, filename, content_type))
    typer.echo(plain_json(shown(attachment)))


async def uploaded(
    gateway: str, key: str | None, file: Path, filename: str | None = None, content_type: str | None = None
) -> Attachment:
    try:
        wire = Wire(gateway, key, PATIENCE_SECONDS)
    except ValueError as fault:
        raise typer.BadParameter(str(fault), param_hint="--gateway") from None
    try:
        return await upload(wire, file, filename, content_type)
    finally:
        await wire.close()


def shown(attachment: Attachment) -> dict[str, object]:
    return {name: getattr(attachment, name) for name in attachment.__struct_fields__}
