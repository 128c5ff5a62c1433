"""The headers that a gateway interprets.

Names are written in lower case as here; one that a reader could take for a known one is refused. An unknown name passes
untouched in the body; a known name with a bad value makes the message invalid, because what its sender asked for would
not happen.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from gateway.protocol.address import Address, parse_address
from gateway.protocol.fields import fault, line, matching, seconds
from gateway.protocol.names import Names
from gateway.protocol.timestamp import parse_timestamp

TTL_SECONDS_MAX = 10 * 365 * 86_400  # longer than any inbox is kept
DELIVER_AFTER_MAX = timedelta(days=30)
CORRELATION_CHARACTERS_MAX = 255

_CRON_ITEM = r"(?:\*|[0-9A-Za-z]{1,3}(?:-[0-9A-Za-z]{1,3})?(?:#[1-5L])?)(?:/[0-9]{1,2})?"
_CRON_FIELD = rf"{_CRON_ITEM}(?:,{_CRON_ITEM}){{0,59}}"
_CRON = re.compile(rf"{_CRON_FIELD}(?: {_CRON_FIELD}){{4}}")


@dataclass(frozen=True, slots=True)
class Headers:
    """The known headers, parsed, with their defaults."""

    priority: str = "normal"
    ttl_seconds: int | None = None
    expires_at: datetime | None = None  # the earlier of `ttl` from acceptance and `expires-at`
    deliver_after: datetime | None = None
    repeat: str | None = None  # looks like a cron expression; whether it ever fires is not known here
    delivery: str = "at_least_once"
    kind: str | None = None
    correlation_id: str | None = None
    thread_id: str | None = None
    reply_to: Address | None = None
    receipt: str = "none"
    auto_submitted: str = "no"


NO_HEADERS = Headers()


def _one_of(*words: str) -> Callable[[object, str], str]:
    def read(value: object, field: str) -> str:
        if isinstance(value, str) and value in words:
            return value
        raise fault(field, "is not a word it knows", f"write one of {', '.join(words)}")

    return read


def _ttl(value: object, field: str) -> int:
    return seconds(value, field, TTL_SECONDS_MAX)


def _cron(value: object, field: str) -> str:
    return matching(_CRON, value, field, 'write five cron fields, such as "0 9 * * 1-5"')


def _correlation(value: object, field: str) -> str:
    return line(value, field, CORRELATION_CHARACTERS_MAX)


# header: (where it stands in Headers, how it is read)
KNOWN: Mapping[str, tuple[str, Callable[[object, str], Any]]] = {
    "priority": ("priority", _one_of("low", "normal", "high", "urgent")),
    "ttl": ("ttl_seconds", _ttl),
    "expires-at": ("expires_at", parse_timestamp),
    "deliver-after": ("deliver_after", parse_timestamp),
    "repeat": ("repeat", _cron),
    "delivery": ("delivery", _one_of("best_effort", "at_least_once", "exactly_once")),
    "kind": (
        "kind",
        _one_of("request", "response", "broadcast", "negotiation", "coordination", "heartbeat", "ack"),
    ),
    "correlation-id": ("correlation_id", _correlation),
    "thread-id": ("thread_id", _correlation),
    "reply-to": ("reply_to", parse_address),
    "receipt": ("receipt", _one_of("delivered", "read", "none")),
    "auto-submitted": ("auto_submitted", _one_of("no", "auto-generated", "auto-replied")),
}

_NAMES = Names(KNOWN)


def parse_headers(headers: object, now: datetime) -> Headers:
    """Returns the known headers of a message accepted at `now`."""
    if headers is None:
        return NO_HEADERS
    if not isinstance(headers, dict):
        raise fault("headers", "is not an object", 'write members, such as {"priority": "high"}')
    if not headers.keys() <= KNOWN.keys():
        _NAMES.unknown(headers, "headers.")
    found: dict[str, Any] = {}
    for name, value in headers.items():
        known = KNOWN.get(name)
        if known is not None and value is not None and value != "":
            place, read = known
            found[place] = read(value, f"headers.{name}")
    if not found:
        return NO_HEADERS
    if "deliver_after" in found and found["deliver_after"] - now > DELIVER_AFTER_MAX:
        raise fault(
            "headers.deliver-after", "is too far away", f"at most {DELIVER_AFTER_MAX.days} days from now"
        )
    if "ttl_seconds" in found:
        ends = now + timedelta(seconds=found["ttl_seconds"])
        found["expires_at"] = min(ends, found.get("expires_at", ends))
    return Headers(**found)
