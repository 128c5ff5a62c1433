"""The head of an HTTP/1.1 answer, parsed strictly: ambiguous framing is rejected.

1. Lines end in CR LF, and none is folded. Names are tokens; values hold no control characters.
2. A body ends where Transfer-Encoding: chunked or Content-Length says, never both; with neither, where the
   connection ends. Answers 1xx, 204 and 304 have none.
3. A connection can be reused only after HTTP/1.1 without `Connection: close`, and with a length or chunks.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

HEADERS_MAX: Final = 100  # a gateway sends a dozen
LENGTH_DIGITS_MAX: Final = 15

_TEXT = rb"[\t\x20-\x7e\x80-\xff]*"
_FIELDS = rb"(?:\r\n[A-Za-z0-9!#$%%&'*+.^_`|~-]+:%b)*" % _TEXT
_HEAD = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: %b)?(%b)" % (_TEXT, _FIELDS))
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """The head of an answer. `length` is None if chunks follow, or the body ends with the connection."""

    status: int
    headers: Mapping[str, str]  # lower-case names; repeated ones joined with a comma
    length: int | None
    chunked: bool
    keep_alive: bool

    @property
    def interim(self) -> bool:
        """Returns whether it is a 1xx answer; the final one follows on the same connection."""
        return self.status < 200


@dataclass(frozen=True, slots=True)
class BadHead:
    reason: str


def parse_head(raw: bytes) -> AnswerHead | BadHead:
    """Parses the head in `raw`, which is given without the empty line that ends it."""
    head = _HEAD.fullmatch(raw)
    if head is None:
        return BadHead("it does not begin like an answer of HTTP/1.1")
    headers: dict[str, str] = {}
    for count, line in enumerate(head[3].decode("latin-1").split("\r\n")[1:], 1):
        if count > HEADERS_MAX:
            return BadHead(f"it has more than {HEADERS_MAX} headers")
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return _framed(int(head[2]), headers, modern=head[1] == b"1")


def parse_chunk_size(line: bytes) -> int | None:
    """Returns the size of the chunk that follows this line; 0 for the last; None if the line is malformed."""
    size = _CHUNK.fullmatch(line)
    return None if size is None else int(size[1], 16)


def _framed(status: int, headers: Mapping[str, str], *, modern: bool) -> AnswerHead | BadHead:
    coding, digits = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None and (not modern or digits is not None or coding.lower() != "chunked"):
        return BadHead("it tells the end of its body in no way we accept")
    if digits is not None and not (
        digits.isascii() and digits.isdecimal() and len(digits) <= LENGTH_DIGITS_MAX
    ):
        return BadHead("its Content-Length is not one number")
    if status < 200 or status in (204, 304):
        length: int | None = 0
    else:
        length = None if digits is None else int(digits)
    chunked = coding is not None and length is None
    asked = {option.strip().lower() for option in headers.get("connection", "").split(",")}
    return AnswerHead(
        status, headers, length, chunked, modern and "close" not in asked and (chunked or length is not None)
    )
