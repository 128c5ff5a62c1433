"""`amtp send`: sends one message from a terminal or a script."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from gateway.cli.call import REFUSED, Remote
from gateway.cli.for_agents.attach import shown, uploaded
from gateway.cli.for_agents.client import awaited
from gateway.cli.options import as_agent, calls
from gateway.cli.printable import plain, plain_json
from gateway.client.agent import Agent
from gateway.client.message import Message
from gateway.protocol.members import encode, render

PATH = "/v1/messages"
PAYLOAD_BYTES_MAX = 100 * 1024 * 1024  # more than any gateway takes


@calls(as_agent)
def send(
    there: Remote,
    sender: Annotated[str, typer.Option("--from", help="The sender's address.")],
    recipients: Annotated[list[str], typer.Option("--to", help="A recipient; may be repeated.")],
    subject: Annotated[str | None, typer.Option(help="One line for people.")] = None,
    payload: Annotated[str, typer.Option(help="JSON, @FILE with JSON, or - for stdin.")] = "null",
    schema: Annotated[
        str | None, typer.Option(help="The payload's schema, agntcy:DOMAIN.NAME.VERSION.")
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE; a value that is JSON is sent as such; may be repeated."),
    ] = None,
    in_reply_to: Annotated[str | None, typer.Option(help="Id of the message this answers.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="A repeat with the same key is not sent twice.")
    ] = None,
    attach: Annotated[list[Path] | None, typer.Option(help="A file to attach; may be repeated.")] = None,
    wait: Annotated[
        float | None, typer.Option(min=1, help="Seconds to wait for the reply, and print it.")
    ] = None,
) -> None:
    """Send a message. Exits with 1 unless all recipients were accepted, and with --wait a reply came."""
    if wait is not None and len(recipients) > 1:
        raise typer.BadParameter("one recipient can be waited for", param_hint="--wait")
    said: dict[str, Any] = {
        "idempotency_key": idempotency_key,
        "subject": subject,
        "schema": schema,
        "in_reply_to": in_reply_to,
        "headers": headers_of(header or []) or None,
    }
    content = payload_of(payload)
    if attach:
        said["attachments"] = [shown(awaited(uploaded(there.gateway, there.key, file))) for file in attach]
    if wait is not None:
        _tell_reply(awaited(_asked(there, sender, recipients[0], content, said, wait)), there.as_json)
    else:
        envelope = {"version": "1.0", "sender": sender, "recipients": recipients, **said}
        members = encode({name: value for name, value in envelope.items() if value is not None})
        # The payload is sent as it was written, byte for byte.
        body = render({**members, "payload": content})
        _tell(there.call("POST", PATH, body), there.as_json)


async def _asked(there: Remote, sender: str, to: str, content: bytes, said: Any, seconds: float) -> Message:
    try:
        agent = Agent(sender, key=there.key, gateway=there.gateway)
    except ValueError as fault:
        raise typer.BadParameter(str(fault), param_hint="--gateway") from None
    async with agent:
        return await agent.request(to, msgspec.Raw(content), timeout=seconds, **said)


def _tell_reply(reply: Message, as_json: bool) -> None:
    if as_json:
        typer.echo(plain_json(reply.body))
    else:
        typer.echo(f"{plain(reply.sender)} answers:\n{plain_json(reply.payload)}")


def payload_of(text: str) -> bytes:
    """Returns the payload's JSON, from the option, a file or stdin."""
    raw = _read(text)
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        raise typer.BadParameter(
            "is not JSON; text takes quotes of its own: --payload '\"Hello\"'", param_hint="--payload"
        ) from None
    return raw.strip()


def _read(text: str) -> bytes:
    try:
        if text == "-":
            return sys.stdin.buffer.read(PAYLOAD_BYTES_MAX)
        if text.startswith("@"):
            with Path(text[1:]).open("rb") as file:
                return file.read(PAYLOAD_BYTES_MAX)
    except OSError as failure:
        raise typer.BadParameter(
            f"can't be read: {failure.strerror}", param_hint=f"--payload {text}"
        ) from None
    return text.encode("utf-8", "surrogateescape")


def headers_of(pairs: list[str]) -> dict[str, Any]:
    headers = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{pair!r} must be NAME=VALUE", param_hint="--header")
        try:
            headers[name] = json.loads(value)
        except ValueError:
            headers[name] = value
    return headers


def _tell(answer: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(plain_json(answer))
    else:
        typer.echo(f"{plain(answer['message_id'])} {plain(answer['status'])}")
        for recipient in answer["recipients"]:
            why = f": {recipient['error']['message']}" if "error" in recipient else ""
            typer.echo(plain(f"  {recipient['address']} {recipient['status']}{why}"))
    if any("error" in recipient for recipient in answer["recipients"]):
        raise typer.Exit(REFUSED)
