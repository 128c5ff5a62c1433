"""The head of an HTTP/1.1 request as we send it."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from gateway.protocol.url import Url

FIELDS_REMEMBERED: Final = 256  # requests to one server differ in their lengths only

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")


class BadHeader(ValueError):
    """A header that could break out of its line (header injection)."""


def render_head(method: str, target: Url, headers: Mapping[str, str], body_bytes: int) -> bytes:
    """Returns the head of a request for `target`; only a POST has a body."""
    length = f"Content-Length: {body_bytes}\r\n" if method == "POST" else ""
    first = f"{method} {target.target} HTTP/1.1\r\nHost: {target.authority}\r\n{length}"
    return first.encode("ascii") + _fields(tuple(headers.items()))


@lru_cache(FIELDS_REMEMBERED)
def _fields(headers: tuple[tuple[str, str], ...]) -> bytes:
    for name, value in headers:
        # Each alone: in the joined text a line break inside a value would look like the next header.
        if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise BadHeader("a header of ours holds characters that do not belong in one")
    return "".join([*(f"{name}: {value}\r\n" for name, value in headers), "\r\n"]).encode("ascii")
