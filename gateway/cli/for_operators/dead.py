"""`amtp dead`: lists, shows, replays and purges dead letters through a gateway's admin API."""

from typing import Annotated, Any

import typer

from gateway.cli.call import Remote, print_fields, print_json, print_table
from gateway.cli.for_operators.queue import (
    Cursor,
    DryRun,
    Limit,
    Recipient,
    Sender,
    query_of,
    require_choice,
    said,
    tell_more,
)
from gateway.cli.options import as_operator, calls
from gateway.cli.printable import plain, plain_json
from gateway.cli.spans import seconds_of

app = typer.Typer(help="Dead letters: messages that could not be delivered.", no_args_is_help=True)

LETTERS = "/v1/dead-letters"
COLUMNS = {
    "dead_letter": "NUMBER",
    "dlq_timestamp": "DIED",
    "sender": "FROM",
    "recipient": "TO",
    "failure_code": "CODE",
    "failure_reason": "WHY",
}
FIELDS = {
    "dead_letter": "Number",
    "kind": "Kind",
    "message_id": "Message",
    "sender": "From",
    "recipient": "To",
    "failure_code": "Code",
    "failure_reason": "Why",
    "attempts": "Attempts",
    "accepted_at": "Accepted",
    "first_attempt": "First attempt",
    "last_attempt": "Last attempt",
    "dlq_timestamp": "Died",
    "replayed_at": "Replayed",
}

Number = Annotated[int, typer.Argument(metavar="NUMBER", min=0, help="As `amtp dead list` shows it.")]
Numbers = Annotated[
    list[int] | None,
    typer.Argument(metavar="[NUMBER]...", min=0, help="Dead letters; or select them by the options below."),
]
Domain = Annotated[str | None, typer.Option("--domain", help="Only to recipients of this domain.")]
ErrorCode = Annotated[str | None, typer.Option("--code", help="Only with this error.")]
OlderThan = Annotated[
    int | None,
    typer.Option("--older-than", parser=seconds_of, metavar="SPAN", help="Dead for longer: 15m, 4h, 2d."),
]
YoungerThan = Annotated[
    int | None,
    typer.Option("--younger-than", parser=seconds_of, metavar="SPAN", help="Dead for less: 15m, 4h, 2d."),
]
Everything = Annotated[bool, typer.Option("--all", help="All dead letters.")]
AtOnce = Annotated[
    int, typer.Option("--limit", min=1, max=10_000, help="Dead letters at most, oldest first.")
]


@app.command("list")
@calls(as_operator)
def list_(
    there: Remote,
    sender: Sender = None,
    recipient: Recipient = None,
    domain: Domain = None,
    code: ErrorCode = None,
    older_than: OlderThan = None,
    younger_than: YoungerThan = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> None:
    """List dead letters, newest first."""
    asked = said(
        sender=sender,
        recipient=recipient,
        domain=domain,
        code=code,
        older_than=older_than,
        younger_than=younger_than,
        limit=limit,
        cursor=cursor,
    )
    page = there.call("GET", LETTERS + query_of(asked))
    if there.as_json:
        print_json(page)
        return
    print_table(COLUMNS, page["dead_letters"])
    tell_more(page)


@app.command()
@calls(as_operator)
def show(
    there: Remote,
    number: Number,
    reason: Annotated[
        str | None, typer.Option("--reason", help="Why you read the content, for the audit.")
    ] = None,
) -> None:
    """Show a dead letter and the envelope of its message; with --reason the whole message."""
    letter = there.call("GET", f"{LETTERS}/{number}{query_of(said(reason=reason))}")
    if there.as_json:
        print_json(letter)
        return
    print_fields(FIELDS, letter)
    typer.echo(f"\n{plain_json(letter['original_message'])}")
    if "withheld" in letter:
        typer.echo("\nPayload and files are shown with --reason TEXT, which is audited.")


@app.command()
@calls(as_operator)
def replay(
    there: Remote,
    numbers: Numbers = None,
    sender: Sender = None,
    recipient: Recipient = None,
    domain: Domain = None,
    code: ErrorCode = None,
    older_than: OlderThan = None,
    younger_than: YoungerThan = None,
    everything: Everything = False,
    limit: AtOnce = 1000,
    rate: Annotated[float | None, typer.Option("--rate", help="Dead letters a second at most.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Put dead letters back into the queue, or into the inbox that did not acknowledge them, with the same ids."""
    chosen = said(
        sender=sender,
        recipient=recipient,
        domain=domain,
        code=code,
        older_than=older_than,
        younger_than=younger_than,
        all=everything,
    )
    if numbers:
        _refuse_both(chosen, rate, dry_run)
        answers = [there.call("POST", f"{LETTERS}/{number}/replay") for number in numbers]
        warnings = dict.fromkeys(warning for answer in answers for warning in answer["warnings"])
        done = {**_each("replayed", numbers), "warnings": list(warnings)}
    else:
        require_choice(chosen)
        wanted = {**chosen, **said(limit=limit, per_second=rate, dry_run=dry_run)}
        done = there.call("POST", f"{LETTERS}/replay", wanted)
    _tell(done, "replayed", there.as_json)


@app.command()
@calls(as_operator)
def purge(
    there: Remote,
    numbers: Numbers = None,
    sender: Sender = None,
    recipient: Recipient = None,
    domain: Domain = None,
    code: ErrorCode = None,
    older_than: OlderThan = None,
    younger_than: YoungerThan = None,
    everything: Everything = False,
    limit: AtOnce = 1000,
    dry_run: DryRun = False,
) -> None:
    """Delete dead letters for good; their deliveries stay failed."""
    chosen = said(
        sender=sender,
        recipient=recipient,
        domain=domain,
        code=code,
        older_than=older_than,
        younger_than=younger_than,
        all=everything,
    )
    if numbers:
        _refuse_both(chosen, None, dry_run)
        for number in numbers:
            there.call("DELETE", f"{LETTERS}/{number}")
        done = _each("purged", numbers)
    else:
        require_choice(chosen)
        done = there.call("POST", f"{LETTERS}/purge", {**chosen, **said(limit=limit, dry_run=dry_run)})
    _tell(done, "purged", there.as_json)


def _each(what: str, numbers: list[int]) -> dict[str, Any]:
    return {what: len(numbers), "matched": len(numbers), "dry_run": False, "has_more": False}


def _refuse_both(chosen: dict[str, Any], rate: float | None, dry_run: bool) -> None:
    if chosen or rate is not None or dry_run:
        raise typer.BadParameter("give numbers, or say which letters by options, not both")


def _tell(done: dict[str, Any], what: str, as_json: bool) -> None:
    if as_json:
        print_json(done)
        return
    if done["dry_run"]:
        typer.echo(f"{done['matched']} would be {what}.")
        return
    typer.echo(f"{done[what]} of {done['matched']} {what}.")
    if done["has_more"]:
        typer.echo("There are more: repeat the command.")
    for warning in done.get("warnings", ()):
        typer.echo(f"Warning: {plain(warning)}", err=True)
