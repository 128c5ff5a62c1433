"""`amtp status`: shows the status of a message."""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from gateway.cli.call import Remote, print_fields, print_table
from gateway.cli.options import as_agent, calls
from gateway.cli.printable import plain_json

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
NAMESAKES = {
    "row": "ROW",
    "sender": "FROM",
    "proven": "PROVEN",
    "accepted_at": "ACCEPTED",
    "status": "STATUS",
}


@calls(as_agent)
def status(
    there: Remote,
    message_id: Annotated[str, typer.Argument(metavar="ID", help="As `amtp send` printed it.")],
    sender: Annotated[str | None, typer.Option(help="Its sender, if two messages share the id.")] = None,
    row: Annotated[
        str | None, typer.Option(help="Its row as shown to operators, if several share the id.")
    ] = None,
) -> None:
    """Show the status of a message, for each recipient that you may see."""
    chosen = {name: value for name, value in (("sender", sender), ("row", row)) if value}
    query = "?" + urlencode(chosen) if chosen else ""
    answer = there.call("GET", f"/v1/messages/{quote(message_id, safe='')}/status{query}")
    if there.as_json:
        typer.echo(plain_json(answer))
        return
    print_fields(FIELDS, answer)
    typer.echo()
    print_table(COLUMNS, [{**recipient, "why": _why(recipient)} for recipient in answer["recipients"]])
    if answer.get("others"):
        typer.echo("\nOther messages have this id; --row shows one of them:")
        print_table(NAMESAKES, answer["others"])


def _why(recipient: Mapping[str, Any]) -> Any:
    return recipient.get("error", {}).get("message") or recipient["last_error"] or recipient["via"]
