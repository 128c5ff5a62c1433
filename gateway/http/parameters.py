"""Query parameters: each is parsed, or refused by name with a remedy."""

import re
from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from gateway.http.operation import Parameter
from gateway.http.request import bad_parameter
from gateway.http.shapes import text
from gateway.protocol.address import parse_address
from gateway.protocol.timestamp import parse_timestamp

LIMIT_DEFAULT = 100
LIMIT_MAX = 1000
OFFSET_MAX = 10_000  # skipped rows are read all the same; a cursor goes further

_COUNT = re.compile(r"[0-9]{1,9}")

LIMIT = Parameter("limit", {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX}, "Items on a page: 100.")
OFFSET = Parameter(
    "offset",
    {"type": "integer", "minimum": 0, "maximum": OFFSET_MAX},
    "Items to skip; `cursor` goes further.",
)
SINCE = Parameter("since", text(format="date-time"), "Only what was accepted then or later.")
ID_CURSOR = Parameter("cursor", text(format="uuid"), "As the page before gave it.")
NUMBER_CURSOR = Parameter("cursor", text(pattern="^[0-9]{1,18}$"), "As the page before gave it.")
NAME_CURSOR = Parameter("cursor", text(minLength=1, maxLength=256), "As the page before gave it.")
PAGING = (LIMIT, OFFSET, SINCE, ID_CURSOR)


def count_of(query: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if _COUNT.fullmatch(text) is None or not least <= int(text) <= most:
        raise bad_parameter(name, f"must be a whole number from {least} to {most}")
    return int(text)


def offset_of(query: Mapping[str, str]) -> int:
    """Returns the number of items a page skips."""
    offset = count_of(query, "offset", 0, 0, 10**9 - 1)
    if offset > OFFSET_MAX:
        raise bad_parameter(
            "offset", f"must be at most {OFFSET_MAX}: go on with the cursor of a page instead"
        )
    return offset


def limit_of(query: Mapping[str, str]) -> int:
    """Returns the number of items a page may hold."""
    return count_of(query, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX)


def cursor_of(query: Mapping[str, str]) -> UUID | None:
    """Returns the cursor: the id at which the previous page ended."""
    text = query.get("cursor")
    if text is None:
        return None
    try:
        return UUID(text)
    except ValueError:
        raise bad_parameter("cursor", "must be one that an answer gave") from None


def moment_of(query: Mapping[str, str], name: str) -> datetime | None:
    return parse_timestamp(query[name], name) if name in query else None


def name_of(query: Mapping[str, str], name: str) -> str | None:
    """Returns the name of the agent that an address means."""
    return parse_address(query[name], name).name if name in query else None
