"""A request as handlers see it; headers, query and body are parsed when they are asked for."""

import asyncio
import re
from collections.abc import AsyncGenerator, Collection, Mapping
from typing import Any
from urllib.parse import unquote

from aiohttp import hdrs

from gateway.http.framing import KEY_HEADERS, Head
from gateway.http.roles import Role
from gateway.http.same_user import is_same_user_at
from gateway.http.transport import Carrier
from gateway.net.pace import Pace
from gateway.net.shares import Holder, site_of
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.names import nearest

JSON = "application/json"
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
PLAIN_NAME = re.compile(r"[a-z_-]{1,32}")
CHARSET_UTF8 = re.compile(r"""\s*charset\s*=\s*"?utf-?8"?\s*""", re.IGNORECASE)


class Request:
    """One request; `params` are the decoded `{…}` parts of its route's path."""

    __slots__ = (
        "_connection",
        "_head",
        "_holder",
        "_query",
        "client",
        "params",
        "request_id",
    )

    def __init__(self, head: Head, params: Mapping[str, str], request_id: str, connection: Carrier) -> None:
        self.params = params
        self.request_id = request_id
        self.client = connection.client_of(head.headers)
        self._head = head
        self._holder: Holder | None = None
        self._query: dict[str, str] | None = None
        self._connection = connection

    @property
    def method(self) -> str:
        return self._head.method

    @property
    def path(self) -> str:
        return self._head.path

    def header(self, name: str) -> str | None:
        """Returns the value of a header that may come only once."""
        values = self.header_values(name)
        if len(values) > 1:
            raise AMTPError(Code.INVALID_MESSAGE_FORMAT, f"Send the header {name} once.")
        return values[0] if values else None

    def header_values(self, name: str) -> tuple[str, ...]:
        """Returns all values of a header that may come several times, in order."""
        key = self._head.key
        if key is not None and name == key[0]:
            return (key[1],)
        values = self._head.values.get(name)
        if values is None:
            known_as = KEY_HEADERS.get(name.lower(), name)
            if known_as != name:
                return self.header_values(known_as)
            values = tuple(checked(name, value) for value in self._head.headers.getall(name, ()))
            self._head.values[name] = values
        return values

    @property
    def query(self) -> Mapping[str, str]:
        """Returns the query parameters, each at most once."""
        if self._query is None:
            self._query = parse_query(self._head.query)
        return self._query

    def check_query(self, known: Collection[str]) -> None:
        """Refuses unknown parameters, which would silently have no effect."""
        for name in self.query:
            if name not in known:
                raise unknown_parameter(name, known)

    @property
    def secure(self) -> bool:
        """Returns whether the request came over TLS that this process terminates."""
        return self._connection.secure

    @property
    def authority(self) -> str | None:
        """Returns the host of a target in the absolute form."""
        return self._head.authority

    @property
    def same_user(self) -> bool:
        """Returns whether a local process of the gateway's user, or of root, sent the request."""
        return is_same_user_at(self._connection.transport)

    @property
    def roles(self) -> frozenset[Role]:
        """Returns the roles of the listener that received the request."""
        return self._connection.roles

    @property
    def holder(self) -> Holder:
        """Returns the account its resources count for: the client's address, until the caller is known."""
        if self._holder is None:
            self._holder = Holder(site_of(self.client))
        return self._holder

    def belongs_to(self, holder: Holder) -> None:
        """Counts its resources for the authenticated caller from now on."""
        self._holder = holder
        if holder.owner is not None:
            self._connection.prove(holder)

    @property
    def gone(self) -> bool:
        """Returns whether the client has hung up."""
        return self._connection.gone

    def end(self, last_words: bytes) -> None:
        """Ends the stream that answers it: after these bytes, or at once if its client does not read."""
        self._connection.end(last_words)

    @property
    def ending(self) -> asyncio.Event:
        """Returns an event that is set when the client hangs up or the server closes."""
        return self._connection.ending

    async def json_body(self, bytes_max: int) -> bytes:
        """Returns the body; the content type must be JSON."""
        self.require_content_type(JSON)
        return await self.body(bytes_max)

    def require_content_type(self, *accepted: str) -> str:
        """Returns the content type, one of these; raises 415 for another, for none, or for a charset other than UTF-8."""
        value = self.header(hdrs.CONTENT_TYPE)
        if value in accepted:
            return value
        kind, _, parameter = (value or "").partition(";")
        kind = kind.strip().lower()
        if kind not in accepted or (parameter and CHARSET_UTF8.fullmatch(parameter) is None):
            raise AMTPError(
                Code.UNSUPPORTED_MEDIA_TYPE,
                f"Send the header Content-Type: {' or '.join(accepted)}, in UTF-8.",
                details={"accepted": list(accepted)},
            )
        return kind

    async def body(self, bytes_max: int) -> bytes:
        """Returns the raw bytes of the body, chunked or not; a declared length over the limit is refused unread."""
        invited = self._check_body(bytes_max)
        return await self._connection.incoming.read(bytes_max, self.holder, invited=invited)

    @property
    def declared_bytes(self) -> int | None:
        """Returns the declared length of the body, if there is one."""
        declared = self._head.headers.get(hdrs.CONTENT_LENGTH)
        return None if declared is None else int(declared)

    def let_body_go(self) -> None:
        """Stops counting the body, which is no longer held, though the answer is not sent yet."""
        self._connection.incoming.give_back()

    async def pieces(self, bytes_max: int, pace: Pace) -> AsyncGenerator[bytes, None]:
        """Yields the body piece by piece, without buffering it. Only time spent waiting for the client counts."""
        if self._check_body(bytes_max):
            await self._connection.incoming.invite()
        size = 0
        while piece := await self._connection.incoming.read_piece(pace):
            size += len(piece)
            if size > bytes_max:
                raise too_large(bytes_max)
            yield piece

    def _check_body(self, bytes_max: int) -> bool:
        """Checks encoding and declared length; returns whether the client waits for `100 Continue`."""
        if hdrs.CONTENT_ENCODING in self._head.headers:
            raise AMTPError(
                Code.UNSUPPORTED_MEDIA_TYPE,
                "Send the body without Content-Encoding; it is not unpacked here.",
            )
        declared = self.declared_bytes
        if declared is not None and declared > bytes_max:
            raise too_large(bytes_max)
        return self._head.headers.get(hdrs.EXPECT, "").lower() == "100-continue"


def checked(name: str, value: str) -> str:
    """Returns the value of a header if it is UTF-8; other bytes would fail far from here."""
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise AMTPError(Code.INVALID_MESSAGE_FORMAT, f"The header {name} must be UTF-8.")
    return value


def too_large(bytes_max: int) -> AMTPError:
    return AMTPError(
        Code.MESSAGE_TOO_LARGE,
        f"The body is larger than the {bytes_max} bytes accepted here.",
        details={"limit": bytes_max},
    )


def parse_query(raw: str) -> dict[str, str]:
    """Parses query parameters. A plus sign stands for itself: it occurs in addresses and time zones."""
    query: dict[str, str] = {}
    for pair in raw.split("&"):
        if not pair:
            continue
        raw_name, _, raw_value = pair.partition("=")
        try:
            name, value = unquote(raw_name, errors="strict"), unquote(raw_value, errors="strict")
        except UnicodeDecodeError:
            raise bad_parameter(raw_name, "must be UTF-8, percent-encoded") from None
        if CONTROL.search(name) or CONTROL.search(value):
            raise bad_parameter(name, "must not hold control characters")
        if name in query:
            raise bad_parameter(name, "must be given once")
        query[name] = value
    return query


def unknown_parameter(name: str, known: Collection[str]) -> AMTPError:
    near, taken = nearest(name, known), ", ".join(sorted(known))
    remedy = f"; did you mean {near}?" if near else "."
    remedy += f" Known here are {taken}" if taken else " This endpoint takes none"
    return bad_parameter(
        name, f"is not known{remedy}", {"field": name, "nearest": near, "known": sorted(known)}
    )


def bad_parameter(name: str, remedy: str, details: dict[str, Any] | None = None) -> AMTPError:
    shown = f"query parameter {name}" if PLAIN_NAME.fullmatch(name) else "query parameter"
    return AMTPError(Code.INVALID_MESSAGE_FORMAT, f"The {shown} {remedy}.", details)
