"""`amtp peers`: lists and shows known gateways of other domains, through the admin API."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from gateway.cli.call import Remote, print_fields, print_json, print_table
from gateway.cli.for_operators.queue import Cursor, Limit, query_of, said, state_of, tell_more
from gateway.cli.options import as_operator, calls

app = typer.Typer(help="Gateways of other domains: what they publish, and their state.", no_args_is_help=True)

PATH = "/v1/admin/peers"
COLUMNS = {
    "domain": "DOMAIN",
    "source": "KNOWN FROM",
    "gateway": "GATEWAY",
    "queued": "QUEUED",
    "window": "WINDOW",
    "state": "STATE",
    "last_contact": "LAST CONTACT",
}
FIELDS = {
    "domain": "Domain",
    "source": "Known from",
    "gateway": "Gateway",
    "max_size": "Largest message",
    "features": "Features",
    "auth": "Authentication",
    "told": "In the directory",
    "good_until": "Looked up again",
    "silent_since": "No record since",
    "state": "State",
    "window": "Window",
    "queued": "Queued",
    "held": "Held",
    "under_way": "Under way",
    "oldest": "Oldest accepted",
    "next_attempt": "Next attempt",
    "last_attempt": "Last attempt",
    "last_error": "Last error",
    "answered_at": "Last answered",
    "heard_at": "Last heard from",
}


@app.command("list")
@calls(as_operator)
def list_(there: Remote, limit: Limit = 100, cursor: Cursor = None) -> None:
    """List known gateways by domain."""
    page = there.call("GET", PATH + query_of(said(limit=limit, cursor=cursor)))
    if there.as_json:
        print_json(page)
        return
    print_table(COLUMNS, [_flat(peer) for peer in page["peers"]])
    tell_more(page)


@app.command()
@calls(as_operator)
def show(
    there: Remote, domain: Annotated[str, typer.Argument(metavar="DOMAIN", help="Such as example.com.")]
) -> None:
    """Show a gateway, with all that is known about it."""
    found = there.call("GET", f"{PATH}/{quote(domain, safe='')}")
    if there.as_json:
        print_json(found)
        return
    print_fields(FIELDS, _flat(found))


def _flat(peer: dict[str, Any]) -> dict[str, Any]:
    """Returns a peer as a flat mapping."""
    window = peer["window"]
    return {
        **peer,
        **(peer["publishes"] or {}),
        **(peer["directory"] or {}),
        "state": state_of(peer),
        "window": window and f"{window['active']} of {window['size']} in use",
    }
