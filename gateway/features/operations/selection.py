"""Selections: deliveries, destinations and dead letters, chosen by query parameters or by members of a body.

An action needs conditions, or `all: true`, so that a slip never empties the queue.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.features.operations.dead_letters import AT_ONCE_MAX, Which
from gateway.features.operations.queue import Selection
from gateway.http.bodies import SECONDS_MAX, checked_age, nothing_meant
from gateway.http.parameters import count_of
from gateway.http.routing import ID
from gateway.protocol.address import parse_address, parse_domain
from gateway.protocol.errors import Code
from gateway.protocol.fields import fault
from gateway.store.agents.agents import REMOVED

IDS_MAX = 1000
PER_SECOND_LEAST, PER_SECOND_MOST = 0.01, 10_000.0
LIVE = ("queued", "held")

CODES = frozenset(map(str, Code))


class Chosen(msgspec.Struct, forbid_unknown_fields=True):
    """The deliveries that an action is for; `older_than` in seconds since they were accepted."""

    ids: list[str] | None = None
    sender: str | None = None
    recipient: str | None = None
    destination: str | None = None
    status: str | None = None
    code: str | None = None
    older_than: int | None = None
    all: bool = False
    dry_run: bool = False
    reason: str | None = None


class ChosenLetters(msgspec.Struct, forbid_unknown_fields=True):
    """The dead letters that an action is for; ages in seconds since they died."""

    sender: str | None = None
    recipient: str | None = None
    domain: str | None = None
    code: str | None = None
    older_than: int | None = None
    younger_than: int | None = None
    all: bool = False
    dry_run: bool = False
    limit: int = 1000


class Replay(ChosenLetters, forbid_unknown_fields=True):
    per_second: float | None = None


def selection_of_query(query: Mapping[str, str]) -> Selection:
    return _selection(
        {name: query.get(name) for name in ("sender", "recipient", "destination", "status", "code")},
        _age(query, "older_than"),
    )


def selection_of_body(chosen: Chosen) -> Selection:
    _check_ids(chosen.ids)
    selection = _selection(
        msgspec.structs.asdict(chosen),
        checked_age(chosen.older_than, "older_than"),
        tuple(chosen.ids) if chosen.ids is not None else None,
    )
    if selection == Selection() and not chosen.all:
        raise nothing_meant()
    return selection


def which_of_query(query: Mapping[str, str]) -> Which:
    said = {name: query.get(name) for name in ("sender", "recipient", "domain", "code")}
    return _which(said, _age(query, "older_than"), _age(query, "younger_than"))


def which_of_body(chosen: ChosenLetters) -> Which:
    if not 1 <= chosen.limit <= AT_ONCE_MAX:
        raise fault("limit", "is out of range", f"write a whole number from 1 to {AT_ONCE_MAX}")
    which = _which(
        msgspec.structs.asdict(chosen),
        checked_age(chosen.older_than, "older_than"),
        checked_age(chosen.younger_than, "younger_than"),
    )
    if which == Which() and not chosen.all:
        raise nothing_meant()
    return which


def rate_of(replay: Replay) -> float | None:
    rate = replay.per_second
    if rate is not None and not PER_SECOND_LEAST <= rate <= PER_SECOND_MOST:
        remedy = f"write a number from {PER_SECOND_LEAST} to {PER_SECOND_MOST:.0f}"
        raise fault("per_second", "is out of range", remedy)
    return rate


def destination_of(text: str, field: str = "destination") -> str:
    """Returns the destination in `text`: a domain, or the address of an agent here."""
    name = text.removeprefix(REMOVED)
    parsed = parse_address(name, field).name if "@" in name else parse_domain(name, field)
    return parsed if name == text else REMOVED + parsed


def _selection(
    said: Mapping[str, Any], older_seconds: int | None, ids: tuple[str, ...] | None = None
) -> Selection:
    return Selection(
        ids=ids,
        sender=_name(said, "sender"),
        recipient=_name(said, "recipient"),
        destination=None if said["destination"] is None else destination_of(said["destination"]),
        state=_state(said["status"]),
        code=_code(said["code"]),
        older_seconds=older_seconds,
    )


def _which(said: Mapping[str, Any], older_seconds: int | None, younger_seconds: int | None) -> Which:
    return Which(
        sender=_name(said, "sender"),
        recipient=_name(said, "recipient"),
        domain=None if said["domain"] is None else parse_domain(said["domain"], "domain"),
        code=_code(said["code"]),
        older_seconds=older_seconds,
        younger_seconds=younger_seconds,
    )


def _name(said: Mapping[str, Any], field: str) -> str | None:
    return None if said[field] is None else parse_address(said[field], field).name


def _state(text: str | None) -> str | None:
    if text is not None and text not in LIVE:
        raise fault("status", "is none that waits", f"write {' or '.join(LIVE)}")
    return text


def _code(text: str | None) -> str | None:
    if text is not None and text not in CODES:
        raise fault("code", "is none of the protocol", "write one as answers and reports have it")
    return text


def _age(query: Mapping[str, str], name: str) -> int | None:
    return count_of(query, name, 0, 0, SECONDS_MAX) if name in query else None


def _check_ids(ids: list[str] | None) -> None:
    if ids is not None and not (1 <= len(ids) <= IDS_MAX and all(ID.fullmatch(each) for each in ids)):
        raise fault("ids", "can't be read", f"list 1 to {IDS_MAX} message ids")
