"""Reads single fields of a message: one line of text, one word of a set, a span of seconds."""

import re

from gateway.protocol.errors import AMTPError, Code

LINE_CHARACTERS_MAX = 1024  # a subject, a schema's name: what is shown in a list or becomes a header

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def fault(field: str, problem: str, remedy: str) -> AMTPError:
    return AMTPError(Code.INVALID_MESSAGE_FORMAT, f"{field} {problem}: {remedy}", {"field": field})


def line(value: object, field: str, characters_max: int = LINE_CHARACTERS_MAX) -> str:
    """Returns one line of printable text, safe to appear in a header or a log."""
    if (
        isinstance(value, str)
        and 0 < len(value) <= characters_max
        and (value.isprintable() or not _UNPRINTABLE.search(value))
    ):
        return value
    raise fault(field, "is not one line of text", f"write 1 to {characters_max} printable characters")


def matching(pattern: re.Pattern[str], value: object, field: str, remedy: str) -> str:
    if isinstance(value, str) and pattern.fullmatch(value):
        return value
    raise fault(field, "is not well-formed", remedy)


def seconds(value: object, field: str, seconds_max: int) -> int:
    if type(value) is int and 0 < value <= seconds_max:  # True is an int, but no time
        return value
    raise fault(field, "is not a number of seconds", f"write a whole number from 1 to {seconds_max}")
