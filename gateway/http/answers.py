"""Answers: what a handler returns, and how its bytes are written.

An answer is complete before the first byte leaves, so it goes out in one write. Only a `Stream`
is written as it comes.
"""

import re
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from http import HTTPStatus
from typing import Any

import msgspec

from gateway.protocol.errors import AMTPError, Code, envelope
from gateway.protocol.timestamp import render_timestamp

JSON = "application/json"
SERVER = "AMTP/1.0 (amtp-gateway)"
HSTS_SECONDS = 31_536_000
EMPTY_STATUSES = frozenset({204, 304})  # these end after the head, whatever they carry

# Visible ASCII and blanks: nothing that could end a header line early.
SAFE_HEADER = re.compile(r"[\t\x20-\x7e]*")

encode_json = msgspec.json.Encoder().encode


class Answer(msgspec.Struct, frozen=True):
    """One complete answer."""

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


class Stream(msgspec.Struct, frozen=True):
    """An answer that is sent item by item, with `quiet` as its heartbeat.

    The generator is closed when the client leaves or the server closes. A stream of a known `length` is sent to
    its end without heartbeat. If an item fails, the connection is cut, so that a partial answer does not look whole.
    """

    items: AsyncGenerator[bytes, None]
    content_type: str = "text/event-stream"
    quiet: bytes = b": still here\n\n"
    headers: tuple[tuple[str, str], ...] = ()
    status: int = 200
    length: int | None = None  # of all items together


def answer_json(value: Any, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """Returns an answer with this value as its JSON body."""
    return Answer(status, encode_json(value), JSON, headers)


def answer_error(
    error: AMTPError, request_id: str, now: datetime, beside: Mapping[str, Any] | None = None
) -> Answer:
    """Returns the envelope of this error; `beside` is added to the same object."""
    body = {**envelope(error, request_id, render_timestamp(now)), **(beside or {})}
    return Answer(error.status, encode_json(body), JSON, headers_of(error))


def headers_of(error: AMTPError) -> tuple[tuple[str, str], ...]:
    """Returns the headers that HTTP requires with some errors."""
    headers = []
    if error.retry_after is not None:
        headers.append(("Retry-After", str(error.retry_after)))
    if error.code is Code.METHOD_NOT_ALLOWED and error.details:
        headers.append(("Allow", ", ".join(error.details["allow"])))
    if error.code is Code.AUTHENTICATION_FAILED:
        headers.append(("WWW-Authenticate", "Bearer"))
    return tuple(headers)


def fixed_head(*, secure: bool, now: datetime) -> str:
    """Returns the header lines that all answers of one listener share within a second."""
    hsts = f"Strict-Transport-Security: max-age={HSTS_SECONDS}\r\n" if secure else ""
    return (
        f"Server: {SERVER}\r\n"
        f"Date: {format_datetime(now.astimezone(UTC), usegmt=True)}\r\n"
        f"Cache-Control: no-store\r\n"
        f"X-Content-Type-Options: nosniff\r\n"
        f"{hsts}"
    )


def check_answer(answer: Answer | Stream) -> None:
    """Raises ValueError for a header that could break out of its line (header injection)."""
    if not answer.headers and answer.content_type is JSON:
        return
    for name, value in (*answer.headers, ("Content-Type", answer.content_type)):
        if SAFE_HEADER.fullmatch(name) is None or SAFE_HEADER.fullmatch(value) is None:
            raise ValueError("a header of an answer holds characters that do not belong in one")


def render_answer(answer: Answer, fixed: str, request_id: str, *, bodiless: bool, close: bool) -> bytes:
    """Returns the bytes of the whole answer; without its body if the request was a HEAD."""
    body = answer.body
    if answer.status in EMPTY_STATUSES:
        about, bodiless = "", True
    else:
        about = f"Content-Type: {answer.content_type}\r\nContent-Length: {len(body)}\r\n"
    head = (
        f"{STATUS_LINES[answer.status]}{fixed}{about}{header_lines(answer.headers)}"
        f"X-Request-ID: {request_id}\r\n{CLOSE if close else END}"
    )
    return head.encode("ascii") + (b"" if bodiless else body)


def render_stream_head(stream: Stream, fixed: str, request_id: str) -> bytes:
    """Returns the head of a stream, which ends with its connection, so that its bytes need no framing."""
    length = "" if stream.length is None else f"Content-Length: {stream.length}\r\n"
    about = f"Content-Type: {stream.content_type}\r\n{length}{header_lines(stream.headers)}"
    return f"{STATUS_LINES[stream.status]}{fixed}{about}X-Request-ID: {request_id}\r\n{CLOSE}".encode("ascii")


def header_lines(headers: tuple[tuple[str, str], ...]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers) if headers else ""


STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
END = "\r\n"
CLOSE = "Connection: close\r\n\r\n"
