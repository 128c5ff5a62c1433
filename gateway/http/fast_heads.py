"""A fast path for plain requests, read in one go before aiohttp's parser sees them.

Most requests arrive whole in one piece and are unambiguous. The grammar here is a small part of HTTP's: whatever it
does not cover is left to the parser. Clients of one kind repeat the same headers, but for the length and the key, so
parsed headers are cached without these two: many agents share one entry, and no key stays in memory. A connection keeps
its last head as well, with the key, and drops it when it closes.
"""

import re
from typing import NamedTuple

from aiohttp import hdrs
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.http.framing import KEY_HEADERS, VERSION, VERSION_HEADER, Head, request_id_of
from gateway.http.limits import Manners

HEAD_BYTES_MAX = 4096
HEADERS_KNOWN_MAX = 2048
POSTS_KNOWN_MAX = 256
REPEATED_BYTES_MAX = 1024  # of the head that a connection keeps, with its key; usual ones have half of that
LENGTH_DIGITS_MAX = 9

_END = b"\r\n\r\n"
_VISIBLE = bytes(range(0x20, 0x7F))  # ASCII that can stand in a line
_METHODS = {method.encode(): method for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")}
_LENGTHS = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")
_KEYS = {  # as most clients write them
    f"\r\n{written}: ".encode(): name for lower, name in KEY_HEADERS.items() for written in (name, lower)
}
_HEADERS = re.compile(r"(?:\r\n[A-Za-z0-9!#$%&'*+.^_`|~-]+: [\x21-\x7e]+(?: [\x21-\x7e]+)*)+")
# Other headers that affect framing or what follows a request; and keys in other headers, or twice.
_ODD = (
    hdrs.CONTENT_LENGTH,
    hdrs.TRANSFER_ENCODING,
    hdrs.UPGRADE,
    hdrs.EXPECT,
    hdrs.TRAILER,
    hdrs.TE,
    *KEY_HEADERS,
    "X-Admin-Key",
)
_KEPT = "keep-alive"


class Plain(NamedTuple):
    """A plain head, and where it stands in what was received."""

    head: Head
    begin: int  # of the body
    length: tuple[int, bytes] | None  # where the digits of the body's length begin, and these

    @property
    def end(self) -> int:
        """Returns the offset at which its body ends."""
        return self.begin + (0 if self.length is None else int(self.length[1]))


class PlainHeads:
    """The reader of plain requests, for all connections of a listener."""

    def __init__(self, manners: Manners) -> None:
        self._manners = manners
        self._known: dict[bytes, Head] = {}  # the least recently used first
        self._posts: dict[bytes, tuple[str, str, str]] = {}  # request lines; other methods have more of them

    def read(self, data: bytes) -> Plain | None:
        """Returns the head that `data` begins with; None where it is not plain."""
        end = data.find(_END, 0, HEAD_BYTES_MAX)
        line_end = data.find(b"\r\n", 0, end + 2)
        line = self._line(data[:line_end]) if end > 0 else None
        if line is None:
            return None
        begin = end + len(_END)
        said, length, key = data[line_end:end], None, None
        for mark in _LENGTHS:
            at = said.find(mark)
            if at >= 0:
                digits, said = _cut(said, at, len(mark))
                if not digits.isdigit() or len(digits) > LENGTH_DIGITS_MAX:
                    return None
                length = (line_end + at + len(mark), digits)
                break
        for mark, name in _KEYS.items():
            at = said.find(mark)
            if at >= 0:
                value, said = _cut(said, at, len(mark))
                if not value or value.translate(None, _VISIBLE) or value != value.strip():
                    return None
                key = (name, value.decode())
                break
        known = self._recall(said)
        if known is None:
            return None
        method, path, query = line
        head = Head(method, path, query, known.headers, known.request_id, False, None, known.values, key)
        return Plain(head, begin, length)

    def _line(self, line: bytes) -> tuple[str, str, str] | None:
        """Returns the method, the path and the query of a request line."""
        found = self._posts.get(line)
        if found is None:
            said = line.split(b" ")
            if len(said) != 3 or said[2] != b"HTTP/1.1" or (method := _METHODS.get(said[0])) is None:
                return None
            if said[1][:1] != b"/" or said[1].translate(None, _VISIBLE) or b"#" in said[1]:
                return None
            path, _, query = said[1].decode().partition("?")
            found = (method, path, query)
            if method == "POST":
                if len(self._posts) >= POSTS_KNOWN_MAX:
                    self._posts.clear()
                self._posts[line] = found
        return found

    def _recall(self, said: bytes) -> Head | None:
        """Returns the headers, from the cache or parsed, in a head without a request line."""
        known = self._known.pop(said, None)
        if known is None:
            headers = self._parsed(said)
            if headers is None:
                return None
            known = Head("", "", "", headers, request_id_of(headers), last=False, fault=None)
            if len(self._known) >= HEADERS_KNOWN_MAX:
                del self._known[next(iter(self._known))]
        self._known[said] = known
        return known

    def _parsed(self, said: bytes) -> CIMultiDictProxy[str] | None:
        text = said.decode("latin-1")
        if _HEADERS.fullmatch(text) is None:
            return None
        lines = [line.split(": ", 1) for line in text.split("\r\n")[1:]]
        headers = CIMultiDict([(name, value) for name, value in lines])
        if (
            len(lines) > self._manners.headers_max
            or len({name.lower() for name in headers}) < len(lines)
            or hdrs.HOST not in headers
            or any(name in headers for name in _ODD)
            or headers.get(hdrs.CONNECTION, _KEPT).lower() != _KEPT
            or headers.get(VERSION_HEADER, VERSION) != VERSION
        ):
            return None
        return CIMultiDictProxy(headers)


def _cut(said: bytes, at: int, mark_length: int) -> tuple[bytes, bytes]:
    """Returns the value of the header at this offset, and the headers without it."""
    begin = at + mark_length
    end = said.find(b"\r\n", begin)
    return (said[begin:], said[:at]) if end < 0 else (said[begin:end], said[:at] + said[end:])


class Repeated:
    """The head of the request before, with its key: most clients send it again, with another length at most."""

    __slots__ = ("_after", "_before", "_head")

    def __init__(self, data: bytes, plain: Plain) -> None:
        self._head = plain.head
        at, digits = plain.length or (plain.begin, b"")
        self._before = data[:at]
        self._after = data[at + len(digits) : plain.begin]  # empty where it tells no length

    def find(self, data: bytes) -> tuple[Head, int, int] | None:
        """Returns the head if `data` begins with it, where its body begins and ends."""
        if not data.startswith(self._before):
            return None
        at, after = len(self._before), self._after
        if not after:
            return self._head, at, at
        digits_end = data.find(b"\r\n", at, at + LENGTH_DIGITS_MAX + 2)
        digits = data[at:digits_end]
        if digits_end < 0 or not digits.isdigit() or not data.startswith(after, digits_end):
            return None
        begin = digits_end + len(after)
        return self._head, begin, begin + int(digits)


class PlainReader:
    """The plain requests of one connection; keeps track of requests that the parser is in the middle of."""

    __slots__ = ("_heads", "_owed", "_repeated")

    def __init__(self, heads: PlainHeads) -> None:
        self._heads = heads
        self._repeated: Repeated | None = None
        self._owed: int | None = 0  # bytes the parser still waits for; None: unknown from now on

    def take(self, data: bytes, *, idle: bool) -> tuple[Head, bytes] | None:
        """Returns the request if `data` is exactly one; None leaves it to the parser, as always while not `idle`."""
        owed, self._owed = self._owed, None
        if owed is None:
            return None
        if owed:
            if len(data) <= owed:
                self._owed = owed - len(data)
            return None
        found = self._repeated.find(data) if self._repeated is not None else None
        if found is None and (found := self._read(data)) is None:
            return None
        head, begin, end = found
        if end < len(data):
            return None
        self._owed = end - len(data)
        return (head, data[begin:]) if idle and not self._owed else None

    def _read(self, data: bytes) -> tuple[Head, int, int] | None:
        plain = self._heads.read(data)
        if plain is None:
            return None
        self._repeated = Repeated(data, plain) if plain.begin <= REPEATED_BYTES_MAX else None
        return plain.head, plain.begin, plain.end
