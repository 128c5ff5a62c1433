"""The plain requests, read in one go before aiohttp's parser sees them.

Most requests come whole in one piece, and are written in the one way that nobody reads differently. The grammar
here is a small part of HTTP's: what it does not cover is not judged, but left to the parser. A client says the same
head again and again, but for its length, so a head that was read is remembered without it.
"""

import re
from typing import Any, cast

from aiohttp import hdrs
from aiohttp.http import HttpVersion11, RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.receive.framing import Head, head_of
from gateway.receive.limits import Manners

HEAD_BYTES_MAX = 4096
HEADS_MAX = 2048
LENGTH_DIGITS_MAX = 9

_END = b"\r\n\r\n"
_LENGTHS = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")
_HEAD = re.compile(
    r"(GET|HEAD|POST|PUT|PATCH|DELETE) (/[\x21\x22\x24-\x7e]*) HTTP/1\.1"
    r"((?:\r\n[A-Za-z0-9!#$%&'*+.^_`|~-]+: [\x21-\x7e]+(?: [\x21-\x7e]+)*)+)"
)
# Whatever else may say where a request ends, or what follows it.
_FRAMING = (hdrs.CONTENT_LENGTH, hdrs.TRANSFER_ENCODING, hdrs.UPGRADE, hdrs.EXPECT, hdrs.TRAILER, hdrs.TE)
_KEPT = "keep-alive"


class PlainHeads:
    """Reads plain requests, for all connections of a listener."""

    def __init__(self, manners: Manners) -> None:
        self._manners = manners
        self._known: dict[bytes, Head] = {}

    def read(self, data: bytes) -> tuple[Head, int, int] | None:
        """The head that `data` begins with, where its body begins and ends; None where it is not plain."""
        end = data.find(_END, 0, HEAD_BYTES_MAX)
        if end < 0:
            return None
        said, length = data[:end], 0
        for line in _LENGTHS:
            at = data.find(line, 0, end)
            if at >= 0:
                digits, _, behind = said[at + len(line) :].partition(b"\r\n")
                if not digits.isdigit() or len(digits) > LENGTH_DIGITS_MAX:
                    return None
                length = int(digits)
                said = said[:at] + (b"\r\n" + behind if behind else b"")
                break
        head = self._known.get(said) or self._learn(said)
        begin = end + len(_END)
        return None if head is None else (head, begin, begin + length)

    def _learn(self, said: bytes) -> Head | None:
        head = self._parsed(said)
        if head is not None:
            if len(self._known) >= HEADS_MAX:
                self._known.clear()
            self._known[said] = head
        return head

    def _parsed(self, said: bytes) -> Head | None:
        match = _HEAD.fullmatch(said.decode("latin-1"))
        if match is None or len(said) > self._manners.line_bytes_max:
            return None
        lines = [line.split(": ", 1) for line in match[3].split("\r\n")[1:]]
        headers = CIMultiDict([(name, value) for name, value in lines])
        if (
            len(lines) > self._manners.headers_max
            or len({name.lower() for name in headers}) < len(lines)
            or hdrs.HOST not in headers
            or any(name in headers for name in _FRAMING)
            or headers.get(hdrs.CONNECTION, _KEPT).lower() != _KEPT
        ):
            return None
        head = head_of(
            RawRequestMessage(
                match[1],
                match[2],
                HttpVersion11,
                CIMultiDictProxy(headers),
                (),
                False,  # should_close
                None,  # compression
                False,  # upgrade
                False,  # chunked
                cast(Any, None),  # url
            ),
            self._manners.head_bytes_max,
        )
        return None if head.fault else head


class PlainReader:
    """Takes the plain requests of one connection, and knows when the parser is in the middle of another."""

    __slots__ = ("_heads", "_owed")

    def __init__(self, heads: PlainHeads) -> None:
        self._heads = heads
        self._owed: int | None = 0  # bytes the parser still waits for; None: nobody can tell, ever again

    def take(self, data: bytes, *, idle: bool) -> tuple[Head, bytes] | None:
        """The whole request that `data` is. None leaves it to the parser, as all that comes while not `idle`."""
        owed, self._owed = self._owed, None
        if owed is None:
            return None
        if owed:
            if len(data) <= owed:
                self._owed = owed - len(data)
            return None
        read = self._heads.read(data)
        if read is None:
            return None
        head, begin, end = read
        if end < len(data):
            return None
        self._owed = end - len(data)
        return (head, data[begin:]) if idle and not self._owed else None
