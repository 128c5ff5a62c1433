"""A JSON reader that refuses whatever two readers might understand differently.

Two programs that read one body differently can be played against each other, so what the JSON standard leaves
to the reader is refused: duplicate members, NUL, lone surrogates, numbers a double cannot hold, a byte order
mark, deep nesting. jiter refuses most of it in the one pass that reads; byte scans look for the rest.
"""

import re
from itertools import accumulate
from typing import Any

import jiter
import msgspec

from gateway.protocol.errors import AMTPError, Code

DEPTH_MAX = (
    60  # nested arrays and objects: a page that shows a message stays under the 64 levels some readers take
)
DIGITS_MAX = 300  # of one number: more makes no double, and costs a reader quadratic time

_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # as signed bytes: one level down, one level up
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_NUMERALS = bytes.maketrans(b"123456789.+-E", b"000000000000e")
_LONG_NUMBER = b"0" * (DIGITS_MAX + 1)
_EXPONENT = b"0e0"
_NUMBER = re.compile(
    rb"(?<![0-9.+eE-])[0-9.+eE-]{%d,}" % len(_LONG_NUMBER)
)  # tried once a number, not once a digit
_PLACE = re.compile(r"at line \d+ column \d+$")

# Errors of jiter, and our texts for them. Nothing of the input is repeated: it may be huge, or hostile.
_PROBLEMS = {
    "Detected duplicate key": "an object has the same member twice: keep one",
    "recursion limit exceeded": f"nested deeper than {DEPTH_MAX} levels: flatten it",
    "number out of range": f"a number over {DIGITS_MAX} digits or a double's range: send it as a string",
    "trailing characters": "something follows the JSON value: send one value only",
    "invalid unicode code point": "not valid UTF-8: encode it as UTF-8",
    "lone leading surrogate": "a lone surrogate: send whole characters",
    "unexpected end of hex escape": "a lone surrogate or an unfinished escape: send whole characters",
    "control character": "an unescaped control character in a string: escape it",
}
_NOT_JSON = "not valid JSON: send one JSON value, encoded in UTF-8 without a byte order mark"


def read_strict(raw: bytes) -> Any:
    """Returns the value in `raw`."""
    try:
        value = jiter.from_json(raw, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="keys")
    except ValueError as failure:
        raise _fault(*_explain(str(failure))) from None
    if b"\\u0000" in raw and b"\\u0000" in raw.replace(b"\\\\", b""):
        raise _fault("a string holds NUL (\\u0000): leave it out")
    numerals = raw.translate(_NUMERALS)
    if _LONG_NUMBER in numerals or _EXPONENT in numerals:  # in numbers or in texts
        _check_numbers(raw)
    if raw.count(b"[") + raw.count(b"{") > DEPTH_MAX:
        _check_depth(raw)
    return value


def _check_numbers(raw: bytes) -> None:
    """Refuses numbers that a double cannot hold: jiter makes 1e400 infinite and reads integers of up to 4300 digits."""
    for number in _NUMBER.finditer(_outside_strings(raw)):
        if sum(map(number[0].count, b"0123456789")) > DIGITS_MAX:
            raise _fault(_PROBLEMS["number out of range"])
    try:
        msgspec.json.decode(raw)
    except msgspec.DecodeError:
        raise _fault(_PROBLEMS["number out of range"]) from None


def _check_depth(raw: bytes) -> None:
    steps = _outside_strings(raw).translate(_STEPS, _NOT_BRACKETS)
    if max(accumulate(memoryview(steps).cast("b")), default=0) > DEPTH_MAX:
        raise _fault(_PROBLEMS["recursion limit exceeded"])


def _outside_strings(raw: bytes) -> bytes:
    """Returns the text between the strings of well-formed JSON."""
    unescaped = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b" ".join(unescaped.split(b'"')[::2])


def _explain(failure: str) -> tuple[str, str]:
    place = _PLACE.search(failure)
    for said, problem in _PROBLEMS.items():
        if failure.startswith(said):
            return problem, place[0] if place else ""
    return _NOT_JSON, place[0] if place else ""


def _fault(problem: str, place: str = "") -> AMTPError:
    details = {"field": "body", "place": place} if place else {"field": "body"}
    return AMTPError(Code.INVALID_MESSAGE_FORMAT, f"the body is refused: {problem}", details)
