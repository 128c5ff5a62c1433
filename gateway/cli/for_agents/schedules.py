"""`amtp schedules`: lists and cancels an agent's repeated messages, for operators everyone's."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from gateway.cli.call import Remote, print_json, print_table
from gateway.cli.for_operators.queue import Cursor, Limit, Sender, query_of, said, tell_more
from gateway.cli.options import as_either, calls
from gateway.cli.printable import plain

app = typer.Typer(
    help="Repeated messages. Set one up with `amtp send --header repeat='0 9 * * 1-5'`.",
    no_args_is_help=True,
)

PATH = "/v1/schedules"
COLUMNS = {
    "id": "SCHEDULE",
    "sender": "FROM",
    "to": "TO",
    "repeat": "REPEAT",
    "next_at": "NEXT",
    "ticks": "SENT",
    "ends_at": "ENDS",
}

Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="As `amtp schedules list` shows them.")]


@app.command("list")
@calls(as_either)
def list_(there: Remote, sender: Sender = None, limit: Limit = 100, cursor: Cursor = None) -> None:
    """List schedules: the agent's whose key it is, or with an operator's key all."""
    query = query_of(said(sender=sender, limit=limit, cursor=cursor))
    page = there.call("GET", PATH + query)
    if there.as_json:
        print_json(page)
        return
    if not page["schedules"]:
        typer.echo("Nothing repeats.")
        return
    print_table(COLUMNS, [_row(schedule) for schedule in page["schedules"]])
    tell_more(page)


@app.command()
@calls(as_either)
def cancel(there: Remote, ids: Ids) -> None:
    """Cancel schedules. Messages sent already are delivered."""
    for each in ids:
        ended = there.call("DELETE", f"{PATH}/{quote(each, safe='')}")
        if there.as_json:
            print_json(ended)
        else:
            typer.echo(plain(f"{ended['id']}: sent {ended['ticks']} times. {ended['end_reason']}"))


def _row(schedule: dict[str, Any]) -> dict[str, Any]:
    return {**schedule, "to": schedule["message"]["recipients"]}
