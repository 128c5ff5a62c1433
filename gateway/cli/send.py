"""`amtp send`: one message from a terminal or a script."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.call import GATEWAY_DEFAULT, REFUSED, AsJson, GatewayUrl, Remote, outcome
from gateway.cli.inbox import AgentKey
from gateway.cli.plain import plain, plain_json
from gateway.protocol.members import encode, render

PATH = "/v1/messages"
PAYLOAD_BYTES_MAX = 100 * 1024 * 1024  # more than any gateway takes


def send(
    sender: Annotated[str, typer.Option("--from", help="Who sends.")],
    recipients: Annotated[list[str], typer.Option("--to", help="Who gets it; may be repeated.")],
    subject: Annotated[str | None, typer.Option(help="One line for people.")] = None,
    payload: Annotated[str, typer.Option(help="JSON, @FILE with JSON, or - for stdin.")] = "null",
    schema: Annotated[
        str | None, typer.Option(help="The payload's schema, agntcy:DOMAIN.NAME.VERSION.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE; JSON where it reads as JSON; may be repeated.")
    ] = None,
    in_reply_to: Annotated[str | None, typer.Option(help="The message id this answers.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Sent again with the same one, it counts once.")
    ] = None,
    as_json: AsJson = False,
    gateway: GatewayUrl = GATEWAY_DEFAULT,
    key: AgentKey = None,
) -> None:
    """Send a message; exits with 1 unless every recipient was accepted."""
    members: dict[str, Any] = {
        "version": "1.0",
        "sender": sender,
        "recipients": recipients,
        "idempotency_key": idempotency_key,
        "subject": subject,
        "schema": schema,
        "in_reply_to": in_reply_to,
        "headers": headers_of(header or []) or None,
    }
    said = encode({name: value for name, value in members.items() if value is not None})
    # The payload goes as it was written, byte for byte.
    body = render({**said, "payload": payload_of(payload)})
    with outcome(as_json):
        answer = Remote(gateway, key).call("POST", PATH, body)
    _tell(answer, as_json)


def payload_of(text: str) -> bytes:
    """The payload's JSON, from where the option says."""
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
