"""Points in time on the wire: RFC 3339."""

import re
from datetime import UTC, datetime

from gateway.protocol.errors import AMTPError, Code

TIMESTAMP_CHARACTERS_MAX = 64  # a date, nine digits of fraction and an offset take 35

_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
REMEDY = "write it as RFC 3339, such as 2026-01-31T12:00:00Z"


def parse_timestamp(text: object, field: str) -> datetime:
    """Returns the instant in `text`, in UTC. Digits beyond the microsecond are dropped."""
    if isinstance(text, str) and len(text) <= TIMESTAMP_CHARACTERS_MAX and _RFC3339.fullmatch(text):
        try:
            return datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise AMTPError(
        Code.INVALID_MESSAGE_FORMAT, f"{field} is not a point in time: {REMEDY}", {"field": field}
    )


def render_timestamp(moment: datetime) -> str:
    """Returns the moment as RFC 3339 in UTC to the millisecond, with Z."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
