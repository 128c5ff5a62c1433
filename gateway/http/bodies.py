"""Fields that several endpoints read from bodies and parameters: a reason, an age, an explicit selection."""

from gateway.protocol.errors import AMTPError
from gateway.protocol.fields import fault

SECONDS_MAX = 100_000_000  # three years: longer than anything is kept
REASON_CHARACTERS_MAX = 500


def reason_of(text: str | None) -> str | None:
    if text is not None and not (0 < len(text) <= REASON_CHARACTERS_MAX and text.isprintable()):
        remedy = f"write 1 to {REASON_CHARACTERS_MAX} printable characters"
        raise fault("reason", "is not one line of text", remedy)
    return text


def checked_age(seconds: int | None, field: str) -> int | None:
    if seconds is not None and not 0 <= seconds <= SECONDS_MAX:
        raise fault(field, "is no age", f"write whole seconds from 0 to {SECONDS_MAX}")
    return seconds


def nothing_meant() -> AMTPError:
    return fault("body", "selects nothing", "give conditions, or all: true")
