"""Rules for request heads that two servers could read differently.

The parser refuses most ambiguous requests. These rules cover the rest: an ambiguous request is refused and its
connection closed.
"""

import re

import msgspec
from aiohttp import hdrs
from aiohttp.http import HttpVersion10, HttpVersion11, RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.protocol.errors import AMTPError, Code

VERSION = "1.0"
VERSION_HEADER = "X-AMTP-Version"
REQUEST_ID_HEADER = "X-Request-ID"
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
VERSIONED = "/v1/"
NO_METHOD = "-"
KEY_HEADERS = {"authorization": "Authorization", "x-api-key": "X-API-Key"}  # by how handlers name them
NO_HEADERS: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())
ABSOLUTE_FORM = re.compile(r"https?://[^/?#@]+(?=[/?]|\Z)", re.IGNORECASE)
TARGET = re.compile(r"\*|/[\x21\x22\x24-\x7e]*")  # visible ASCII without the number sign


class Head(msgspec.Struct):
    """A request's line and headers. `headers` and `values` may be shared with requests that have the same."""

    method: str
    path: str
    query: str
    headers: CIMultiDictProxy[str]
    request_id: str | None  # the caller's own
    last: bool  # of its connection
    fault: AMTPError | None  # why it is not answered
    values: dict[str, tuple[str, ...]] = {}  # of the headers that were asked for
    key: tuple[str, str] | None = None  # the header of a key and its value, where `headers` are without it
    authority: str | None = None  # of a target in the absolute form


def head_of(message: RawRequestMessage, bytes_max: int) -> Head:
    """Returns the parsed head, with a fault if another server may read it differently."""
    path, query, fault = "", "", None
    try:
        if sum(len(name) + len(value) for name, value in message.raw_headers) > bytes_max:
            raise malformed(f"Its head is larger than the {bytes_max} bytes accepted here.")
        check_framing(message)
        path, query = target_of(message)
        check_version(message, path)
    except AMTPError as error:
        fault = error
    headers = message.headers
    return Head(
        message.method,
        path,
        query,
        headers,
        request_id_of(headers),
        is_last(message),
        fault,
        authority=authority_of(message),
    )


def check_framing(message: RawRequestMessage) -> None:
    """Refuses framing that the parser accepts and a proxy may have read differently."""
    if message.version != HttpVersion11 and message.version != HttpVersion10:
        raise malformed("Speak HTTP/1.1 or HTTP/1.0.")
    codings = message.headers.getall(hdrs.TRANSFER_ENCODING, None)
    if codings is not None and (
        message.version != HttpVersion11 or [c.lower() for c in codings] != ["chunked"]
    ):
        raise malformed("The only transfer coding is chunked, and it needs HTTP/1.1.")


def is_last(message: RawRequestMessage) -> bool:
    """Returns whether the connection ends with this request: it says so, or later bytes could be misread."""
    return (
        message.should_close
        or message.version != HttpVersion11
        or hdrs.TRANSFER_ENCODING in message.headers
        or message.upgrade
        or message.method == hdrs.METH_CONNECT
    )


def target_of(message: RawRequestMessage) -> tuple[str, str]:
    """Returns path and query as they were written; the absolute form is accepted, too."""
    target = message.path or ""  # aiohttp knows none where the line ends behind the method
    if not target.startswith("/") and (absolute := ABSOLUTE_FORM.match(target)) is not None:
        target = target[absolute.end() :]
        if not target.startswith("/"):
            target = "/" + target
    if TARGET.fullmatch(target) is None:
        raise malformed("The request target must be a path, percent-encoded, without a fragment.")
    path, _, query = target.partition("?")
    return path, query


def authority_of(message: RawRequestMessage) -> str | None:
    """Returns the host of a target in the absolute form, which counts like the header Host."""
    absolute = ABSOLUTE_FORM.match(message.path or "")
    return None if absolute is None else absolute.group().partition("://")[2]


def request_id_of(headers: CIMultiDictProxy[str]) -> str | None:
    """Returns the caller's own request id, if it can stand in a header and in a log."""
    given = headers.get(REQUEST_ID_HEADER)
    return given if given is not None and REQUEST_ID.fullmatch(given) else None


def check_version(message: RawRequestMessage, path: str) -> None:
    given = message.headers.get(VERSION_HEADER)
    if given is not None and given != VERSION and path.startswith(VERSIONED):
        raise AMTPError(
            Code.UNSUPPORTED_VERSION,
            f"This gateway speaks AMTP {VERSION}; send {VERSION_HEADER}: {VERSION} or leave it out.",
            details={"supported": [VERSION]},
        )


def unreadable() -> Head:
    """Returns a head for a request that the parser refused."""
    fault = malformed("Check its first line, its headers and its framing.")
    return Head(NO_METHOD, "", "", NO_HEADERS, None, last=True, fault=fault)


def malformed(remedy: str) -> AMTPError:
    return AMTPError(Code.INVALID_MESSAGE_FORMAT, f"This is not a request that can be understood. {remedy}")
