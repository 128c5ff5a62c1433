"""`amtp agents`: registers, shows, changes and retires agents through a gateway's admin API."""

from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from gateway.cli.call import Remote, print_fields, print_json, print_table
from gateway.cli.options import as_operator, calls
from gateway.cli.printable import plain

app = typer.Typer(help="Agents, who have an inbox here.", no_args_is_help=True)

PATH = "/v1/admin/agents"
COLUMNS = {
    "address": "ADDRESS",
    "state": "STATE",
    "delivery_mode": "MODE",
    "description": "DESCRIPTION",
    "created_at": "CREATED",
    "last_active": "LAST ACTIVE",
}
FIELDS = {
    "address": "Address",
    "state": "State",
    "delivery_mode": "Delivery mode",
    "push_target": "Push target",
    "description": "Description",
    "capabilities": "Capabilities",
    "supported_schemas": "Schemas",
    "hidden": "Hidden",
    "created_at": "Created",
    "retired_at": "Retired",
    "last_active": "Last active",
    "keys": "Keys",
    "api_key": "API key",
    "push_secret": "Push secret",
}
ENDS = {"previous_key_ends_at": "Old key ends", "previous_secret_ends_at": "Old secret ends"}


class Mode(StrEnum):
    PULL = "pull"
    PUSH = "push"


class AgentState(StrEnum):
    ACTIVE = "active"
    RETIRED = "retired"


class Mail(StrEnum):
    RETURN = "return"
    DROP = "drop"


Name = Annotated[str, typer.Argument(metavar="AGENT", help="alice, or alice@example.com.")]
DeliveryMode = Annotated[
    Mode | None, typer.Option("--mode", help="pull: it fetches its mail; push: the gateway posts it.")
]
PushTarget = Annotated[
    str | None, typer.Option("--push-url", "--push-target", help="The https URL to post to.")
]
Secret = Annotated[
    str | None,
    typer.Option(
        "--secret",
        envvar="AMTP_PUSH_SECRET",
        help="Your own secret for signatures; prefer the variable. Default: a new one.",
    ),
]
Description = Annotated[str | None, typer.Option("--description", help="One line, shown in discovery.")]
Capabilities = Annotated[
    list[str] | None, typer.Option("--capability", help="What it can do; may be repeated.")
]
Schemas = Annotated[
    list[str] | None, typer.Option("--schema", help="A schema it understands; may be repeated.")
]
Hidden = Annotated[bool | None, typer.Option("--hidden/--shown", help="Hide it from discovery, or show it.")]


def _profile(**said: Any) -> dict[str, Any]:
    """Returns the options that were given."""
    return {name: value for name, value in said.items() if value not in (None, [])}


def _path(name: str) -> str:
    return f"{PATH}/{quote(name, safe='@')}"


def _tell(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    agent = answer["agent"] | {name: answer[name] for name in ENDS if name in answer}
    print_fields(FIELDS | ENDS, agent | {"keys": [_told_key(key) for key in agent.get("keys", ())]})
    if "message" in answer:
        typer.echo(f"\n{answer['message']}")
    if made := answer.get("made_before"):
        tell_made(made, "still at work; --drop ends it")


def tell_made(made: dict[str, Any], remedy: str) -> None:
    """Prints what an ended key had made: webhooks, schedules, queued deliveries."""
    lines = [f"webhook {each['webhook_id']} to {plain(each['url'])}" for each in made["webhooks"]]
    lines += [f"schedule {each['id']} at {plain(each['repeat'])}" for each in made["schedules"]]
    if made["queued"]:
        lines.append(f"{made['queued']} deliveries that wait in the queue")
    if lines:
        typer.echo(f"\nMade with it, and {'ended with it' if made['dropped'] else remedy}:")
        for line in lines:
            typer.echo(f"  {line}")


def _told_key(key: dict[str, Any]) -> str:
    times = {"ends": "expires_at", "last used": "last_used_at"}
    said = [f"{word} {key[name]}" for word, name in times.items() if name in key]
    return ", ".join([f"{key['key']} since {key['created_at']}", *said])


@app.command()
@calls(as_operator)
def add(
    there: Remote,
    name: Name,
    mode: DeliveryMode = None,
    push_target: PushTarget = None,
    secret: Secret = None,
    description: Description = None,
    capability: Capabilities = None,
    schema: Schemas = None,
    hidden: Hidden = None,
) -> None:
    """Register an agent, or bring a retired one back, and print its key; it is shown only now.

    With --push-url, mail is pushed to it, unless --mode says otherwise.
    """
    body = _profile(
        address=name,
        delivery_mode=mode or (Mode.PUSH if push_target else None),
        push_target=push_target,
        push_secret=secret if push_target else None,
        description=description,
        capabilities=capability,
        supported_schemas=schema,
        hidden=hidden,
    )
    _tell(there.call("POST", PATH, body), there.as_json)


@app.command("list")
@calls(as_operator)
def list_(
    there: Remote,
    domain: Annotated[str | None, typer.Option("--domain", help="Of this domain only.")] = None,
    state: Annotated[AgentState | None, typer.Option("--state", help="In this state only.")] = None,
    mode: DeliveryMode = None,
    text: Annotated[str | None, typer.Option("--find", help="With this text in name or description.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Agents at most.")] = 100,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Continue after a previous page.")] = None,
) -> None:
    """List agents by name."""
    asked = _profile(domain=domain, state=state, delivery_mode=mode, q=text, limit=limit, cursor=cursor)
    page = there.call("GET", f"{PATH}?{urlencode(asked, quote_via=quote)}")
    if there.as_json:
        print_json(page)
        return
    print_table(COLUMNS, page["agents"])
    if page["has_more"]:
        typer.echo(f"\nThere are more: --cursor {page['cursor']}")


@app.command()
@calls(as_operator)
def show(there: Remote, name: Name) -> None:
    """Show one agent."""
    _tell(there.call("GET", _path(name)), there.as_json)


@app.command()
@calls(as_operator)
def update(
    there: Remote,
    name: Name,
    mode: DeliveryMode = None,
    push_target: PushTarget = None,
    description: Description = None,
    capability: Capabilities = None,
    schema: Schemas = None,
    hidden: Hidden = None,
) -> None:
    """Change the given options, and leave the others."""
    body = _profile(
        delivery_mode=mode,
        push_target=push_target,
        description=description,
        capabilities=capability,
        supported_schemas=schema,
        hidden=hidden,
    )
    _tell(there.call("PATCH", _path(name), body), there.as_json)


@app.command("rotate-key")
@calls(as_operator)
def rotate_key(
    there: Remote,
    name: Name,
    grace: Annotated[
        int | None, typer.Option("--grace", min=0, help="Seconds the old key stays valid; default: a day.")
    ] = None,
    drop: Annotated[
        bool,
        typer.Option("--drop", help="Also end what earlier keys made: webhooks, schedules, queued messages."),
    ] = False,
) -> None:
    """Give the agent a new key, and print it; it is shown only now."""
    body = _profile(grace_seconds=grace, drop=drop or None)
    _tell(there.call("POST", f"{_path(name)}/rotate-key", body), there.as_json)


@app.command("rotate-secret")
@calls(as_operator)
def rotate_secret(
    there: Remote,
    name: Name,
    grace: Annotated[
        int | None, typer.Option("--grace", min=0, help="Seconds to sign with both secrets; default: a day.")
    ] = None,
    secret: Secret = None,
) -> None:
    """Give a push agent a new secret for signatures, and print it; it is shown only now."""
    body = _profile(grace_seconds=grace, push_secret=secret)
    _tell(there.call("POST", f"{_path(name)}/rotate-push-secret", body), there.as_json)


@app.command()
@calls(as_operator)
def remove(
    there: Remote,
    name: Name,
    mail: Annotated[
        Mail | None,
        typer.Option(
            "--mail", help="Remove it for good; its open mail is returned to the senders or dropped."
        ),
    ] = None,
) -> None:
    """Retire the agent: its keys end, its inbox stays and keeps accepting mail."""
    query = f"?mail={mail}" if mail else ""
    _tell(there.call("DELETE", _path(name) + query), there.as_json)
