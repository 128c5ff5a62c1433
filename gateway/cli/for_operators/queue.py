"""`amtp queue`: shows queued deliveries and why they wait, and changes them, through the admin API."""

from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from gateway.cli.call import Remote, print_fields, print_json, print_table
from gateway.cli.options import as_operator, calls
from gateway.cli.printable import plain
from gateway.cli.spans import seconds_of

app = typer.Typer(
    help="The queue: deliveries that wait, and why; hold, retry or cancel them.", no_args_is_help=True
)

QUEUE, DESTINATIONS = "/v1/admin/queue", "/v1/admin/destinations"

COLUMNS = {
    "message_id": "MESSAGE",
    "sender": "FROM",
    "recipient": "TO",
    "status": "STATUS",
    "attempts": "ATTEMPTS",
    "next_attempt": "NEXT",
    "reason": "WHY",
}
FIELDS = {
    "message_id": "Message",
    "row": "Row",
    "sender": "From",
    "recipient": "To",
    "destination": "Destination",
    "status": "Status",
    "reason": "Why",
    "accepted_at": "Accepted",
    "expires_at": "Given up at",
    "attempts": "Attempts",
    "last_attempt": "Last attempt",
    "last_error": "Last error",
    "next_attempt": "Next attempt",
}
ATTEMPT_COLUMNS = {
    "attempt": "ATTEMPT",
    "at": "AT",
    "via": "VIA",
    "code": "CODE",
    "error": "ERROR",
    "milliseconds": "MS",
}
DESTINATION_COLUMNS = {
    "destination": "DESTINATION",
    "queued": "QUEUED",
    "held": "HELD",
    "under_way": "UNDER WAY",
    "next_attempt": "NEXT",
    "state": "STATE",
}
DESTINATION_FIELDS = {
    "destination": "Destination",
    "queued": "Queued",
    "held": "Held",
    "oldest": "Oldest accepted",
    "next_attempt": "Next attempt",
    "last_attempt": "Last attempt",
    "last_error": "Last error",
    "last_success": "Last success",
    "state": "State",
}
DONE = {"hold": "held", "release": "released", "retry": "made due", "cancel": "cancelled"}


class QueueState(StrEnum):
    QUEUED = "queued"
    HELD = "held"


Ids = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="Message ids; or select by the options below.")
]
Sender = Annotated[str | None, typer.Option("--sender", help="Only from this sender.")]
Recipient = Annotated[str | None, typer.Option("--recipient", help="Only to this recipient.")]
ForDestination = Annotated[
    str | None, typer.Option("--destination", "--domain", help="Only to this domain, or this local agent.")
]
Status = Annotated[QueueState | None, typer.Option("--status", help="Only in this state.")]
ErrorCode = Annotated[str | None, typer.Option("--code", help="Only with this error at the last attempt.")]
OlderThan = Annotated[
    int | None,
    typer.Option(
        "--older-than", parser=seconds_of, metavar="SPAN", help="Only waiting for longer: 15m, 4h, 2d."
    ),
]
Everything = Annotated[bool, typer.Option("--all", help="All queued deliveries.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count only, and change nothing.")]
Reason = Annotated[
    str | None, typer.Option("--reason", help="Reason, for the audit and for reports to senders.")
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=1000, help="Items at most.")]
Cursor = Annotated[str | None, typer.Option("--cursor", help="Continue after a previous page.")]
Destination = Annotated[
    str, typer.Argument(metavar="DOMAIN", help="example.com, or a local agent: bob@example.com.")
]


def said(**options: Any) -> dict[str, Any]:
    """Returns the options that were given."""
    return {name: value for name, value in options.items() if value not in (None, False, [])}


def require_choice(chosen: dict[str, Any]) -> None:
    if not chosen:
        raise typer.BadParameter("select some by name or by options, or all with --all")


def query_of(options: dict[str, Any]) -> str:
    return f"?{urlencode(options, quote_via=quote)}" if options else ""


def tell_more(page: dict[str, Any]) -> None:
    if page["has_more"]:
        typer.echo(f"\nThere are more: --cursor '{plain(page['cursor'])}'")


@app.command("list")
@calls(as_operator)
def list_(
    there: Remote,
    sender: Sender = None,
    recipient: Recipient = None,
    destination: ForDestination = None,
    status: Status = None,
    code: ErrorCode = None,
    older_than: OlderThan = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> None:
    """List queued deliveries, oldest first, and why they wait."""
    asked = said(
        sender=sender,
        recipient=recipient,
        destination=destination,
        status=status,
        code=code,
        older_than=older_than,
        limit=limit,
        cursor=cursor,
    )
    page = there.call("GET", QUEUE + query_of(asked))
    if there.as_json:
        print_json(page)
        return
    print_table(COLUMNS, page["deliveries"])
    tell_more(page)


@app.command()
@calls(as_operator)
def show(
    there: Remote, message_id: Annotated[str, typer.Argument(metavar="ID", help="A queued message.")]
) -> None:
    """Show one message's queued deliveries, and their attempts so far."""
    page = there.call("GET", f"{QUEUE}/{quote(message_id, safe='')}?limit=1000")
    if there.as_json:
        print_json(page)
        return
    for delivery in page["deliveries"]:
        print_fields(FIELDS, delivery)
        if delivery["history"]:
            typer.echo()
            print_table(ATTEMPT_COLUMNS, delivery["history"])
        typer.echo()


def _add_act(act: str, summary: str) -> None:
    @app.command(act, help=summary)
    @calls(as_operator)
    def command(
        there: Remote,
        ids: Ids = None,
        sender: Sender = None,
        recipient: Recipient = None,
        destination: ForDestination = None,
        status: Status = None,
        code: ErrorCode = None,
        older_than: OlderThan = None,
        everything: Everything = False,
        dry_run: DryRun = False,
        reason: Reason = None,
    ) -> None:
        chosen = said(
            ids=ids,
            sender=sender,
            recipient=recipient,
            destination=destination,
            status=status,
            code=code,
            older_than=older_than,
            all=everything,
        )
        require_choice(chosen)
        effect = _whole(there, act, {**chosen, **said(dry_run=dry_run, reason=reason)})
        if there.as_json:
            print_json(effect)
            return
        told = f"would be {DONE[act]}" if effect["dry_run"] else DONE[act]
        typer.echo(f"{effect['changed']} of {effect['matched']} {told}.")
        if effect["busy"]:
            typer.echo(f"{effect['busy']} under way now: repeat the command when their attempt is over.")


for _act, _summary in {
    "hold": "Hold deliveries until they are released.",
    "release": "Release held deliveries.",
    "retry": "Retry failed deliveries now.",
    "cancel": "Cancel deliveries, and report to the senders.",
}.items():
    _add_act(_act, _summary)


def _whole(remote: Remote, act: str, body: dict[str, Any]) -> Any:
    """Repeats the request until everything selected is done: the gateway does a limited number at once."""
    effect = remote.call("POST", f"{QUEUE}/{act}", body)
    matched, changed = effect["matched"], effect["changed"]
    while effect["has_more"]:
        effect = remote.call("POST", f"{QUEUE}/{act}", body)
        changed += effect["changed"]
    return {**effect, "matched": matched, "changed": changed}


@app.command()
@calls(as_operator)
def shape(
    there: Remote,
    top: Annotated[int, typer.Option("--top", min=1, max=1000, help="Destinations to list.")] = 20,
) -> None:
    """Count queued deliveries by age and destination."""
    found = there.call("GET", f"{QUEUE}/shape?top={top}")
    if there.as_json:
        print_json(found)
        return
    rows = found["destinations"]
    if found["others"]:
        rows.append({"destination": "(others)", **found["others"]})
    rows.append({"destination": "(all)", **found["total"]})
    ages = {age: age.upper() if age == "older" else f"< {age}" for age in found["ages"]}
    columns = {"destination": "DESTINATION", "count": "TOTAL", **ages}
    print_table(columns, [{**row, **row["by_age"]} for row in rows])


@app.command()
@calls(as_operator)
def destinations(there: Remote, limit: Limit = 100, cursor: Cursor = None) -> None:
    """List destinations with queued mail, paused or failing ones, and their state."""
    page = there.call("GET", DESTINATIONS + query_of(said(limit=limit, cursor=cursor)))
    if there.as_json:
        print_json(page)
        return
    print_table(DESTINATION_COLUMNS, [{**one, "state": state_of(one)} for one in page["destinations"]])
    tell_more(page)


@app.command()
@calls(as_operator)
def explain(there: Remote, domain: Destination) -> None:
    """Show why a destination's queued mail is not being delivered now."""
    found = there.call("GET", f"{_place(domain)}/explain")
    if there.as_json:
        print_json(found)
        return
    for reason in found["reasons"]:
        typer.echo(f"- {plain(reason)}")
    typer.echo()
    print_fields(DESTINATION_FIELDS, {**found, "state": state_of(found)})


@app.command()
@calls(as_operator)
def pause(
    there: Remote,
    domain: Destination,
    reason: Annotated[str, typer.Option("--reason", help="Reason, shown with the pause.")],
    span: Annotated[
        int | None,
        typer.Option(
            "--for", parser=seconds_of, metavar="SPAN", help="Such as 15m, 4h; default: until resumed."
        ),
    ] = None,
) -> None:
    """Pause a destination: start no new deliveries to it."""
    body = said(reason=reason, expires_in=span)
    _tell(there.call("POST", f"{_place(domain)}/pause", body), there.as_json)


def _add_destination_act(act: str, summary: str) -> None:
    @app.command(act, help=summary)
    @calls(as_operator)
    def command(there: Remote, domain: Destination) -> None:
        _tell(there.call("POST", f"{_place(domain)}/{act}"), there.as_json)


for _act, _summary in {
    "resume": "End the pause of a destination.",
    "flush": "Retry a destination's queued mail now, even if it is failing.",
    "reset": "Close the breaker of a failing destination, and deliver what is due.",
}.items():
    _add_destination_act(_act, _summary)


def _tell(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    if "flushed" in found:
        typer.echo(f"{found['flushed']} to be tried now.\n")
    print_fields(DESTINATION_FIELDS, {**found, "state": state_of(found)})


def _place(domain: str) -> str:
    return f"{DESTINATIONS}/{quote(domain, safe='@')}"


def state_of(found: dict[str, Any]) -> str:
    """Returns the state of a destination in a few words."""
    if found["paused"]:
        return f"paused by {found['paused']['by']}: {found['paused']['reason']}"
    if found["open_until"]:
        return f"failing, tried again at {found['open_until']}"
    return str(found["state"])
