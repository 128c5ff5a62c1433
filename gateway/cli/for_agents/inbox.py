"""`amtp inbox`: reads and acknowledges an agent's messages."""

from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from gateway.cli.call import REFUSED, Remote, outcome, print_table
from gateway.cli.for_agents.watch import watch
from gateway.cli.for_operators.queue import require_choice, said
from gateway.cli.options import GATEWAY_DEFAULT, AdminKey, AgentKey, AsJson, GatewayUrl
from gateway.cli.printable import plain_json
from gateway.cli.spans import seconds_of

MESSAGES = {"mark": "", "id": "message id", "sender": "from", "subject": "subject", "at": "accepted"}
DEAD_LETTERS = {"number": "number", "id": "message id", "sender": "from", "at": "since", "why": "why"}


class Action(StrEnum):
    LIST = "list"
    READ = "read"
    ACK = "ack"
    DEAD = "dead"
    WATCH = "watch"
    PURGE = "purge"


def inbox(
    address: Annotated[str, typer.Argument(help="The agent's address.")],
    action: Annotated[
        Action,
        typer.Argument(
            help="List, read whole messages, acknowledge, list dead letters, watch new ones, or purge."
        ),
    ] = Action.LIST,
    ids: Annotated[
        list[str] | None, typer.Argument(help="Message ids to acknowledge, or to read only.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Messages at most.")] = 100,
    unread: Annotated[bool, typer.Option("--unread", help="Only unread messages.")] = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait for a message.")] = 0,
    lease: Annotated[
        str | None, typer.Option(help="Seconds to lease the messages for; with ack, the lease's token.")
    ] = None,
    sender: Annotated[
        str | None,
        typer.Option(help="With ack: the sender, if two messages share an id. With purge: from it."),
    ] = None,
    older_than: Annotated[
        int | None,
        typer.Option(
            "--older-than", parser=seconds_of, metavar="SPAN", help="With purge: older than 15m, 4h, 30d."
        ),
    ] = None,
    unproven: Annotated[bool, typer.Option("--unproven", help="With purge: from unproven senders.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="With purge: all messages.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With purge: don't ask for confirmation.")] = False,
    as_json: AsJson = False,
    gateway: GatewayUrl = GATEWAY_DEFAULT,
    key: AgentKey = None,
    admin_key: AdminKey = None,
) -> None:
    """Show an agent's inbox. Messages shown count as read, and are shown again until acknowledged."""
    # Operators purge, too; everything else is the agent's own.
    there = Remote(gateway, key or admin_key if action is Action.PURGE else key)
    path = f"/v1/inbox/{quote(address)}"
    with outcome(as_json):
        match action:
            case Action.ACK:
                _acknowledge(there, path, ids or [], lease, sender, as_json)
            case Action.DEAD:
                _show_dead(there.call("GET", f"{path}/dead-letters?limit={limit}"), as_json)
            case Action.PURGE:
                chosen = said(sender=sender, older_than=older_than, unproven=unproven, all=everything)
                _purge(there, path, chosen, yes=yes, as_json=as_json)
            case Action.WATCH:
                watch(there, path, as_json=as_json)
            case Action.LIST | Action.READ:
                asked = {"limit": limit, "wait": wait, "lease": lease, "status": "unread" if unread else None}
                answer = there.call("GET", f"{path}?{_query(asked)}")
                _show(answer, ids, whole=action is Action.READ, as_json=as_json)


def _purge(there: Remote, path: str, chosen: dict[str, Any], *, yes: bool, as_json: bool) -> None:
    require_choice(chosen)
    if not yes:
        counted = there.call("POST", f"{path}/purge", {**chosen, "dry_run": True})
        typer.confirm(f"Remove {counted['matched']} messages for good?", abort=True, err=True)
    answer = there.call("POST", f"{path}/purge", chosen)
    while answer["has_more"]:
        more = there.call("POST", f"{path}/purge", chosen)
        answer = {**more, "matched": answer["matched"], "purged": answer["purged"] + more["purged"]}
    if as_json:
        typer.echo(plain_json(answer))
        return
    typer.echo(f"{answer['purged']} of {answer['matched']} purged.")


def _query(asked: dict[str, Any]) -> str:
    return urlencode({name: value for name, value in asked.items() if value is not None})


def _acknowledge(
    there: Remote, path: str, ids: list[str], lease: str | None, sender: str | None, as_json: bool
) -> None:
    if not ids:
        raise typer.BadParameter("name the messages to acknowledge", param_hint="IDS")
    names = [{"message_id": each, "sender": sender} for each in ids]
    answer = there.call("POST", f"{path}/ack", {"message_ids": names, "lease": lease})
    if as_json:
        typer.echo(plain_json(answer))
    failed = [result for result in answer["results"] if result["status"] != "acknowledged"]
    for result in [] if as_json else answer["results"]:
        typer.echo(f"{result['message_id']}: {result.get('error', {}).get('message') or result['status']}")
    if failed:
        raise typer.Exit(REFUSED)


def _show(answer: dict[str, Any], ids: list[str] | None, *, whole: bool, as_json: bool) -> None:
    messages = [each for each in answer["messages"] if not ids or each["message_id"] in ids]
    if as_json:
        typer.echo(plain_json(answer | {"messages": messages}))
    elif whole:
        for message in messages:
            typer.echo(plain_json(message))
    else:
        _print_messages(messages, answer)
    if ids and not messages:
        typer.echo("None of these messages lies in the inbox.", err=True)
        raise typer.Exit(REFUSED)


def _print_messages(messages: list[dict[str, Any]], answer: dict[str, Any]) -> None:
    if messages:
        print_table(MESSAGES, [_row(message) for message in messages])
    more = ", and more behind them" if answer["has_more"] else ""
    typer.echo(f"{len(messages)} message{'' if len(messages) == 1 else 's'}{more}.")
    if answer.get("unread"):
        typer.echo(f"{answer['unread']}{'+' if answer.get('unread_more') else ''} unread.")
    if "lease" in answer:
        typer.echo(f"They are yours until {answer['lease']['until']}: lease {answer['lease']['token']}.")


def _row(message: dict[str, Any]) -> dict[str, str]:
    about = message["gateway"]
    return {
        "mark": "*" if about["status"] == "unread" else "",
        "id": message["message_id"],
        "sender": message["sender"] + (" (unproven)" if about.get("untrusted") else ""),
        "subject": message.get("subject") or "",
        "at": about["accepted_at"],
    }


def _show_dead(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(plain_json(answer))
        return
    if answer["dead_letters"]:
        print_table(DEAD_LETTERS, [_dead_row(letter) for letter in answer["dead_letters"]])
    typer.echo(f"{answer['count']} dead letter{'' if answer['count'] == 1 else 's'}.")


def _dead_row(letter: dict[str, Any]) -> dict[str, str]:
    about = letter["gateway"]
    return {
        "number": str(about["dead_letter"]),
        "id": letter["message_id"],
        "sender": letter["sender"],
        "at": about["dlq_timestamp"],
        "why": about["failure_reason"],
    }
