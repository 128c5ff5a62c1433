"""Profiles of agents: how they are parsed from operators' requests, and how they are shown.

Operators see everything but secrets; others see what helps to write to an agent, never where its mail goes.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from secrets import token_bytes
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.fields import fault, line
from gateway.protocol.json_strict import read_strict
from gateway.protocol.timestamp import render_timestamp
from gateway.protocol.webhook_signature import parse_secret, render_secret
from gateway.store.agents.agents import Agent
from gateway.store.agents.keys import AgentKey
from gateway.store.agents.leftovers import BroughtBack, Made

BODY_BYTES_MAX = 64 * 1024
DESCRIPTION_CHARACTERS_MAX = 1000
LIST_ITEMS_MAX = 100
ITEM_CHARACTERS_MAX = 256
SECRET_BYTES = 32  # of a minted webhook secret
GRACE_SECONDS_DEFAULT = 24 * 3600
GRACE_SECONDS_MAX = 30 * 24 * 3600

_WHERE = re.compile(r"at `\$\.([a-z_]+)")
_UNKNOWN = re.compile(r"unknown field `([A-Za-z_-]{1,32})`")

Wanted = TypeVar("Wanted", bound=msgspec.Struct)
TargetFault = Callable[[str], str | None]  # why a URL is refused as a push target; None if allowed


class Described(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of a profile that can be set at registration and changed later; null removes a detail."""

    delivery_mode: Literal["pull", "push"] | None = None
    push_target: str | None = None
    push_secret: str | None = None  # the caller's own; one is generated if none is given
    description: str | UnsetType | None = UNSET
    capabilities: list[str] | UnsetType | None = UNSET
    supported_schemas: list[str] | UnsetType | None = UNSET
    hidden: bool | UnsetType | None = UNSET


class Registration(Described, forbid_unknown_fields=True, kw_only=True):
    address: str


class Rotation(msgspec.Struct, forbid_unknown_fields=True):
    grace_seconds: int = GRACE_SECONDS_DEFAULT
    drop: bool = False  # also end what the previous keys made


class SecretRotation(msgspec.Struct, forbid_unknown_fields=True):
    grace_seconds: int = GRACE_SECONDS_DEFAULT
    push_secret: str | None = None  # the caller's own; one is generated if none is given


@dataclass(frozen=True, slots=True)
class Statement:
    """The checked fields of a profile; None for those the body leaves out."""

    delivery_mode: str | None
    push_url: str | None
    push_secret: str | None
    details: Mapping[str, Any]


def read_body(raw: bytes, wanted: type[Wanted]) -> Wanted:
    """Parses a body as one of the structs above."""
    try:
        return msgspec.convert(read_strict(raw), wanted)
    except msgspec.ValidationError as failure:
        raise _misread(str(failure), wanted) from None


def _misread(failure: str, wanted: type[msgspec.Struct]) -> AMTPError:
    known = ", ".join(wanted.__struct_fields__)
    if unknown := _UNKNOWN.search(failure):
        return fault(unknown[1], "is not known here", f"known are {known}")
    if where := _WHERE.search(failure):
        return fault(where[1], "can't be read", failure.partition(" - at ")[0])
    if "missing required field" in failure:
        return fault("address", "is missing", "name the agent, such as alice or alice@example.com")
    return fault("body", "can't be read", f"send a JSON object with {known}")


def read_statement(said: Described, target_fault: TargetFault) -> Statement:
    """Checks a profile field by field."""
    return Statement(
        delivery_mode=said.delivery_mode,
        push_url=_push_url(said.push_target, target_fault) if said.push_target else None,
        push_secret=_own_secret(said.push_secret) if said.push_secret else None,
        details=_details(said),
    )


def read_rotation(raw: bytes) -> Rotation:
    """Parses the grace of the old key (a day if the body is empty), and whether to end what it made."""
    said = read_body(raw, Rotation) if raw else Rotation()
    _grace(said.grace_seconds)
    return said


def read_secret_rotation(raw: bytes) -> tuple[int, str | None]:
    """Parses the grace of the old secret, and the caller's own new one."""
    said = read_body(raw, SecretRotation) if raw else SecretRotation()
    return _grace(said.grace_seconds), _own_secret(said.push_secret) if said.push_secret else None


def _grace(seconds: int) -> int:
    if not 0 <= seconds <= GRACE_SECONDS_MAX:
        raise fault(
            "grace_seconds", "is out of range", f"write 0 to end the old one now, up to {GRACE_SECONDS_MAX}"
        )
    return seconds


def mint_secret() -> str:
    return render_secret(token_bytes(SECRET_BYTES))


def _own_secret(text: str) -> str:
    if not text.isprintable():  # secrets are stored one per line
        raise fault("push_secret", "is no secret", "send 16 to 128 printable characters, or leave it to us")
    parse_secret(text, "push_secret")
    return text


def _push_url(text: str, target_fault: TargetFault) -> str:
    reason = target_fault(text)
    if reason is not None:
        raise fault("push_target", "is no URL to post to", reason)
    return text


def _details(said: Described) -> dict[str, Any]:
    details: dict[str, Any] = {}
    if said.description is not UNSET:
        details["description"] = (
            line(said.description, "description", DESCRIPTION_CHARACTERS_MAX) if said.description else None
        )
    for name in ("capabilities", "supported_schemas"):
        items = getattr(said, name)
        if items is not UNSET:
            details[name] = _lines(items, name) if items else None
    if said.hidden is not UNSET:
        details["hidden"] = said.hidden or None
    return details


def _lines(items: Sequence[str], name: str) -> list[str]:
    if len(items) > LIST_ITEMS_MAX:
        raise AMTPError(
            Code.INVALID_MESSAGE_FORMAT,
            f"{name} has {len(items)} items: send at most {LIST_ITEMS_MAX}.",
            {"field": name, "limit": LIST_ITEMS_MAX},
        )
    return [line(item, f"{name}[{place}]", ITEM_CHARACTERS_MAX) for place, item in enumerate(items)]


def render_agent(agent: Agent, **once: str | None) -> dict[str, Any]:
    """Renders an agent for operators; `once` holds secrets that are shown only now."""
    shown = {
        **_public(agent),
        "state": agent.state,
        "hidden": agent.details.get("hidden", False),
        "push_target": agent.push_url,
        "retired_at": render_timestamp(agent.retired_at) if agent.retired_at else None,
        **once,
    }
    return {name: value for name, value in shown.items() if value is not None}


def render_discovered(agent: Agent) -> dict[str, Any]:
    """Renders an agent for discovery."""
    return {name: value for name, value in _public(agent).items() if value is not None}


def _public(agent: Agent) -> dict[str, Any]:
    return {
        "address": agent.name,
        "delivery_mode": agent.delivery_mode,
        "description": agent.details.get("description"),
        "capabilities": agent.details.get("capabilities"),
        "supported_schemas": agent.details.get("supported_schemas"),
        "created_at": render_timestamp(agent.created_at),
        "last_active": render_timestamp(agent.last_active_at) if agent.last_active_at else None,
    }


def render_made(made: Made, *, dropped: bool) -> dict[str, Any]:
    """Renders for operators what an agent's keys made."""
    listed = {name: [dict(each.shown) for each in left] for name, left in made.left.items()}
    return {**listed, "queued": made.queued, "dropped": dropped}


def render_brought_back(back: BroughtBack) -> dict[str, Any]:
    disabled = {f"disabled_{name}": [str(each) for each in ids] for name, ids in back.disabled.items()}
    return {"unread": back.unread, **disabled}


def render_key(key: AgentKey) -> dict[str, Any]:
    """Renders a key for operators, without the key itself."""
    times = {"created_at": key.created_at, "expires_at": key.expires_at, "last_used_at": key.last_used_at}
    return {"key": key.id, **{name: render_timestamp(at) for name, at in times.items() if at is not None}}
