"""`amtp webhooks`: registers, shows, tests and changes webhooks, and replays their events."""

import time
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import quote

import typer

from gateway.cli.call import REFUSED, Remote, print_fields, print_json, print_table
from gateway.cli.for_operators.queue import Cursor, Limit, query_of, said, tell_more
from gateway.cli.options import as_either, calls
from gateway.cli.spans import seconds_of
from gateway.protocol.timestamp import render_timestamp

app = typer.Typer(help="Webhooks: URLs that are notified of events.", no_args_is_help=True)

PATH = "/v1/webhooks"
COLUMNS = {
    "webhook_id": "WEBHOOK",
    "owner": "OWNER",
    "status": "STATUS",
    "events": "EVENTS",
    "url": "URL",
    "last_error": "LAST ERROR",
}
FIELDS = {
    "webhook_id": "Webhook",
    "owner": "Owner",
    "url": "URL",
    "status": "Status",
    "events": "Events",
    "about": "About",
    "description": "Description",
    "created_at": "Created",
    "waiting": "Waiting",
    "last_success": "Last success",
    "last_failure": "Last failure",
    "last_error": "Last error",
    "failing_since": "Failing since",
    "disabled_at": "Disabled",
    "secret": "Secret",
    "previous_secret_ends_at": "Old secret ends",
}
ATTEMPT_COLUMNS = {
    "timestamp": "AT",
    "event": "EVENT",
    "event_id": "ID",
    "attempt": "ATTEMPT",
    "result": "RESULT",
    "status": "STATUS",
    "error": "ERROR",
    "milliseconds": "MS",
}
TEST_SECONDS_MAX = 20.0  # for an attempt to end
LOOK_SECONDS = 0.2

Id = Annotated[str, typer.Argument(metavar="WEBHOOK", help="As `amtp webhooks list` shows it.")]
Events = Annotated[
    list[str] | None, typer.Option("--event", help="Only this event; may be repeated. Default: all.")
]
About = Annotated[
    list[str] | None,
    typer.Option("--about", help="Only messages from or to this address or domain; may be repeated."),
]
Description = Annotated[str | None, typer.Option("--description", help="One line, for yourself.")]
Owner = Annotated[str | None, typer.Option("--owner", help="Its agent; for operators.")]
Secret = Annotated[
    str | None,
    typer.Option("--secret", envvar="AMTP_WEBHOOK_SECRET", help="Your own secret; prefer the variable."),
]


def _place(webhook: str, act: str = "") -> str:
    return f"{PATH}/{quote(webhook, safe='')}{act}"


def _tell(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    print_fields(FIELDS, answer["webhook"])
    if "message" in answer:
        typer.echo(f"\n{answer['message']}")


@app.command()
@calls(as_either)
def add(
    there: Remote,
    url: Annotated[str, typer.Argument(help="The https URL to notify.")],
    event: Events = None,
    about: About = None,
    description: Description = None,
    owner: Owner = None,
    secret: Secret = None,
) -> None:
    """Register a webhook, and print its secret for signatures; it is shown only now.

    It is pending until it echoes the challenge posted to it.
    """
    body = said(url=url, events=event, about=about, description=description, owner=owner, secret=secret)
    _tell(there.call("POST", PATH, body), there.as_json)


@app.command("list")
@calls(as_either)
def list_(there: Remote, owner: Owner = None, limit: Limit = 100, cursor: Cursor = None) -> None:
    """List webhooks: the agent's whose key it is, or with an operator's key all."""
    query = query_of(said(owner=owner, limit=limit, cursor=cursor))
    page = there.call("GET", PATH + query)
    if there.as_json:
        print_json(page)
        return
    print_table(COLUMNS, page["webhooks"])
    tell_more(page)


@app.command()
@calls(as_either)
def show(
    there: Remote,
    webhook: Id,
    attempts: Annotated[
        int, typer.Option("--attempts", min=0, max=1000, help="Number of last attempts to show.")
    ] = 10,
) -> None:
    """Show a webhook, and its last attempts."""
    answer = there.call("GET", _place(webhook))
    tries = there.call("GET", _place(webhook, f"/attempts?limit={attempts}")) if attempts else {}
    if there.as_json:
        print_json(answer | {"attempts": tries.get("attempts", [])})
        return
    _tell(answer, there.as_json)
    if tries.get("attempts"):
        typer.echo("")
        print_table(ATTEMPT_COLUMNS, tries["attempts"])


@app.command()
@calls(as_either)
def update(
    there: Remote,
    webhook: Id,
    url: Annotated[str | None, typer.Option("--url", help="Another URL, which is challenged first.")] = None,
    event: Events = None,
    about: About = None,
    description: Description = None,
    enabled: Annotated[bool | None, typer.Option("--on/--off", help="Enable or disable it.")] = None,
) -> None:
    """Change the given options, and leave the others."""
    body = said(url=url, events=event, about=about, description=description)
    if enabled is not None:
        body["enabled"] = enabled
    _tell(there.call("PATCH", _place(webhook), body), there.as_json)


@app.command()
@calls(as_either)
def remove(there: Remote, webhook: Id) -> None:
    """Remove a webhook."""
    answer = there.call("DELETE", _place(webhook))
    if there.as_json:
        print_json(answer)
    else:
        typer.echo(answer["message"])


@app.command()
@calls(as_either)
def challenge(there: Remote, webhook: Id) -> None:
    """Challenge a pending webhook again."""
    _tell(there.call("POST", _place(webhook, "/challenge")), there.as_json)


@app.command("test")
@calls(as_either)
def try_(there: Remote, webhook: Id) -> None:
    """Send a test event, and show the result."""
    event_id = there.call("POST", _place(webhook, "/test"))["event_id"]
    attempt = _attempt_of(there, webhook, event_id)
    if there.as_json:
        print_json({"event_id": event_id, "attempt": attempt})
    elif attempt is None:
        typer.echo(f"No answer yet; `amtp webhooks show {webhook}` will tell.")
    elif attempt["result"] == "delivered":
        typer.echo(f"Delivered: the target answered {attempt['status']} in {attempt['milliseconds']} ms.")
    else:
        typer.echo(f"amtp: {attempt['error']}", err=True)
    if attempt is None or attempt["result"] != "delivered":
        raise typer.Exit(REFUSED)


def _attempt_of(there: Remote, webhook: str, event_id: str) -> dict[str, Any] | None:
    """Waits for the first attempt at an event, and returns it; None after a timeout."""
    end = time.monotonic() + TEST_SECONDS_MAX
    while time.monotonic() < end:
        page = there.call("GET", _place(webhook, "/attempts?limit=100"))
        for attempt in page["attempts"]:
            if attempt["event_id"] == event_id:
                found: dict[str, Any] = attempt
                return found
        time.sleep(LOOK_SECONDS)
    return None


@app.command()
@calls(as_either)
def replay(
    there: Remote,
    webhook: Id,
    since: Annotated[str, typer.Option("--since", help="A time, or how long ago, such as 2h.")],
    event: Annotated[str | None, typer.Option("--event", help="Only this event.")] = None,
) -> None:
    """Send events again, delivered or given up since then, with the same ids."""
    body = said(since=_moment(since), event=event)
    answer = there.call("POST", _place(webhook, "/replay"), body)
    if there.as_json:
        print_json(answer)
        return
    more = " There are more: repeat the command." if answer["has_more"] else ""
    typer.echo(f"{answer['replayed']} events will be sent again.{more}")


def _moment(text: str) -> str:
    if "T" in text:
        return text
    return render_timestamp(datetime.now(UTC) - timedelta(seconds=seconds_of(text)))


@app.command()
@calls(as_either)
def rotate(
    there: Remote,
    webhook: Id,
    grace: Annotated[
        int | None,
        typer.Option(
            "--grace", parser=seconds_of, metavar="SPAN", help="How long to sign with the old one, too: 1d."
        ),
    ] = None,
    secret: Secret = None,
) -> None:
    """Give a webhook a new secret, and print it; it is shown only now."""
    body = {} if grace is None else {"grace_seconds": grace}
    _tell(there.call("POST", _place(webhook, "/rotate"), body | said(secret=secret)), there.as_json)
