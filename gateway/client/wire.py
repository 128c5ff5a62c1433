"""HTTP to one gateway, with retries.

1. Temporary failures are retried with backoff until the patience ends: a lost connection, 429, every 5xx.
2. A Retry-After is obeyed; if it lies beyond the patience, the refusal is raised at once.
3. Every request is safe to repeat: a message carries an idempotency key, other requests are idempotent.
"""

import asyncio
import logging
import math
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import msgspec

from gateway.client.errors import Refused, Unreachable
from gateway.client.message import Receipt
from gateway.protocol.errors import RETRY_AFTER_STATUSES
from gateway.protocol.retry import SPREAD
from gateway.protocol.url import BadUrl, parse_url

MESSAGES = "/v1/messages"
FOREVER = math.inf  # patience without an end
CONNECTIONS_MAX = 512  # a gateway gives one address about a thousand
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0  # beyond the time a request asks the gateway to wait
ANSWER_BYTES_MAX = 64 * 1024 * 1024  # a page is 8 MB and one message more
FIRST_PAUSE_SECONDS, PAUSE_SECONDS_MAX = 0.2, 15.0
RETRY_AFTER_SECONDS_MAX = 3600.0

T = TypeVar("T")
log = logging.getLogger("gateway.client")

Body = bytes | Callable[[], AsyncIterator[bytes]] | None


@dataclass(frozen=True, slots=True)
class Reached:
    """A successful answer of a gateway."""

    status: int
    raw: bytes
    gateway: str

    def read(self, kind: type[T]) -> T:
        """Returns its JSON as that type; raises Unreachable if it is none, since then it is not a gateway's."""
        try:
            return msgspec.json.decode(self.raw, type=kind)
        except msgspec.DecodeError as failure:
            raise Unreachable(
                f"What answers at {self.gateway} does not speak AMTP: check the address ({failure})."
            ) from None


class Wire:
    """A client of one gateway, with our key. Connections are opened on demand and pooled."""

    def __init__(self, gateway: str, key: str | None, patience_seconds: float) -> None:
        url = parse_url(gateway, plain=True)
        if isinstance(url, BadUrl):
            raise ValueError(f"The gateway's URL {url.reason}.")
        self.gateway = gateway.rstrip("/")
        self.patience_seconds = patience_seconds
        self._headers = {"Accept": "application/json", "User-Agent": "AMTP/1.0 (amtp-gateway client)"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._session: aiohttp.ClientSession | None = None

    async def call(
        self,
        method: str,
        path: str,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        wait_seconds: float = 0.0,
        patience_seconds: float | None = None,
    ) -> Reached:
        """Returns the answer; raises Refused or Unreachable. `wait_seconds` is how long we ask the gateway to wait."""
        loop = asyncio.get_running_loop()
        patience = self.patience_seconds if patience_seconds is None else patience_seconds
        deadline = loop.time() + patience
        attempts = 0
        while True:
            attempts += 1
            failure: Refused | Unreachable
            try:
                return await self._once(method, path, body, headers, query, wait_seconds)
            except Refused as refusal:
                if refusal.status not in RETRY_AFTER_STATUSES and refusal.status < 500:
                    raise
                failure = refusal
            except Unreachable as silence:
                failure = silence
            asked = failure.retry_after if isinstance(failure, Refused) else None
            pause = pause_seconds(attempts, random.random(), asked)
            if loop.time() + pause > deadline:
                raise failure
            log.warning("%s Trying again in %.1f seconds.", failure, pause)
            await asyncio.sleep(pause)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _once(
        self,
        method: str,
        path: str,
        body: Body,
        headers: Mapping[str, str] | None,
        query: Mapping[str, str] | None,
        wait_seconds: float,
    ) -> Reached:
        sent = dict(headers or {})
        if isinstance(body, bytes):
            sent.setdefault("Content-Type", "application/json")
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_SECONDS, sock_read=wait_seconds + ANSWER_SECONDS
        )
        try:
            async with self._opened().request(
                method,
                self.gateway + path + (f"?{urlencode(query, quote_via=quote)}" if query else ""),
                data=body() if callable(body) else body,
                headers=sent,
                timeout=timeout,
                allow_redirects=False,  # our key is for this gateway
            ) as response:
                raw = await _read(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as failure:
            raise Unreachable(f"No gateway answers at {self.gateway}: {_reason(failure)}.") from failure
        if 200 <= response.status < 300:
            return Reached(response.status, raw, self.gateway)
        raise self._refusal(response.status, raw, response.headers.get("Retry-After"))

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX),
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _refusal(self, status: int, raw: bytes, retry_after: str | None) -> Refused:
        try:
            said = msgspec.json.decode(raw, type=_Refusal).error
        except msgspec.DecodeError:
            answered = f"What answers at {self.gateway} said {status}, and not as a gateway does."
            return Refused(status, "", answered, retry_after=read_retry_after(retry_after))
        return Refused(
            status, said.code, said.message, said.details, said.request_id, read_retry_after(retry_after)
        )


async def hand_in(wire: Wire, body: bytes) -> Receipt:
    """Sends a message; returns once the gateway has committed it."""
    return (await wire.call("POST", MESSAGES, body)).read(Receipt)


class _Error(msgspec.Struct):
    code: str
    message: str
    details: dict[str, Any] | None = None
    request_id: str | None = None


class _Refusal(msgspec.Struct):
    error: _Error


def pause_seconds(attempts: int, draw: float, asked_seconds: float | None = None) -> float:
    """Returns the pause before the next attempt: exponential backoff with jitter; `draw` is random, in [0, 1)."""
    own = min(FIRST_PAUSE_SECONDS * 2.0 ** min(attempts - 1, 32), PAUSE_SECONDS_MAX)
    return max(own * (1 - SPREAD + 2 * SPREAD * draw), (asked_seconds or 0.0) * (1 + SPREAD * draw))


def read_retry_after(text: str | None) -> float | None:
    """Returns the seconds of Retry-After; None for a date, for which our own backoff is used."""
    if text is None or not text.isascii() or not text.isdecimal():
        return None
    return min(float(text), RETRY_AFTER_SECONDS_MAX)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    raw = bytearray()
    async for chunk in response.content.iter_any():
        raw += chunk
        if len(raw) > ANSWER_BYTES_MAX:
            raise aiohttp.ClientPayloadError(f"the answer is larger than {ANSWER_BYTES_MAX} bytes")
    return bytes(raw)


def _reason(failure: BaseException) -> str:
    return getattr(failure, "strerror", None) or str(failure) or type(failure).__name__
