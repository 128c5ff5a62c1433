"""Options that many commands share: where the gateway is, the key for it, and JSON for an answer."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, Concatenate

import typer

from gateway.cli.call import Remote, outcome

GATEWAY_DEFAULT = "http://127.0.0.1:8080"

GatewayUrl = Annotated[
    str, typer.Option("--gateway", envvar="AMTP_GATEWAY", help="URL of the gateway's listener.")
]
AdminKey = Annotated[
    str | None,
    typer.Option("--admin-key", envvar="AMTP_ADMIN_KEY", help="An operator's key; prefer the variable."),
]
AgentKey = Annotated[
    str | None, typer.Option("--key", envvar="AMTP_KEY", help="The agent's key; prefer the variable.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]

Command = Callable[Concatenate[Remote, ...], None]


def as_operator(
    gateway: GatewayUrl = GATEWAY_DEFAULT, admin_key: AdminKey = None, as_json: AsJson = False
) -> Remote:
    return Remote(gateway, admin_key, as_json)


def as_agent(as_json: AsJson = False, gateway: GatewayUrl = GATEWAY_DEFAULT, key: AgentKey = None) -> Remote:
    return Remote(gateway, key, as_json)


def as_either(
    as_json: AsJson = False,
    gateway: GatewayUrl = GATEWAY_DEFAULT,
    key: AgentKey = None,
    admin_key: AdminKey = None,
) -> Remote:
    return Remote(gateway, key or admin_key, as_json)


def calls(as_whom: Callable[..., Remote]) -> Callable[[Command], Callable[..., None]]:
    """Adds the options of `as_whom` to a command, which gets the Remote made of them, and reports its outcome."""
    added = [
        option.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for option in inspect.signature(as_whom).parameters.values()
    ]

    def decorated(command: Command) -> Callable[..., None]:
        @wraps(command)
        def called(**said: Any) -> None:
            there = as_whom(**{option.name: said.pop(option.name) for option in added})
            with outcome(there.as_json):
                command(there, **said)

        _, *own = inspect.signature(command).parameters.values()
        called.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
        return called

    return decorated
