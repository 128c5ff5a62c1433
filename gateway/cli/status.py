"""`amtp status`: what became of a message."""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from gateway.cli.call import GATEWAY_DEFAULT, AsJson, GatewayUrl, Remote, outcome, print_fields, print_table
from gateway.cli.inbox import AgentKey
from gateway.cli.plain import plain_json

FIELDS = {
    "message_id": "Message",
    "status": "Status",
    "created_at": "Accepted",
    "delivered_at": "Delivered",
    "next_retry": "Next attempt",
}
COLUMNS = {
    "address": "RECIPIENT",
    "status": "STATUS",
    "attempts": "ATTEMPTS",
    "next_retry": "NEXT",
    "why": "WHY",
}


def status(
    message_id: Annotated[str, typer.Argument(metavar="ID", help="As `amtp send` printed it.")],
    sender: Annotated[str | None, typer.Option(help="Whose, where two share an id.")] = None,
    as_json: AsJson = False,
    gateway: GatewayUrl = GATEWAY_DEFAULT,
    key: AgentKey = None,
) -> None:
    """Show what became of a message, for each of its recipients that you may see."""
    query = "?" + urlencode({"sender": sender}) if sender else ""
    with outcome(as_json):
        answer = Remote(gateway, key).call("GET", f"/v1/messages/{quote(message_id, safe='')}/status{query}")
    if as_json:
        typer.echo(plain_json(answer))
        return
    print_fields(FIELDS, answer)
    typer.echo()
    print_table(COLUMNS, [{**recipient, "why": _why(recipient)} for recipient in answer["recipients"]])


def _why(recipient: Mapping[str, Any]) -> Any:
    return recipient.get("error", {}).get("message") or recipient["last_error"] or recipient["via"]
