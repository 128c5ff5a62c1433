"""The gateway under test: requests to it, agents registered for a check, and what it answers."""

import asyncio
import json
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

JSON = "application/json"
LINES = "application/x-ndjson"
ELSEWHERE = "conformance.invalid"  # a domain that can't exist
ANSWER_SECONDS_MAX = 60.0
PATIENCE_SECONDS = 30.0  # for what a gateway does behind its answer
LOOK_SECONDS = 0.05

# Said by web pages alone: with it, no gateway trusts a caller for being on the same machine.
STRANGER = {"Origin": f"https://{ELSEWHERE}"}

STATUS_OF = {
    code: status
    for status, codes in {
        400: "INVALID_MESSAGE_FORMAT UNSUPPORTED_VERSION INVALID_RECIPIENT SCHEMA_VALIDATION_FAILED"
        " SCHEMA_UNSUPPORTED LOOP_DETECTED",
        401: "AUTHENTICATION_FAILED SIGNATURE_INVALID",
        403: "SENDER_NOT_ALLOWED RELAY_DENIED POLICY_DENIED",
        404: "AGENT_UNKNOWN RECIPIENT_NOT_FOUND NOT_FOUND",
        405: "METHOD_NOT_ALLOWED",
        409: "IDEMPOTENCY_CONFLICT MESSAGE_ID_CONFLICT CONFLICT",
        413: "MESSAGE_TOO_LARGE",
        415: "UNSUPPORTED_MEDIA_TYPE",
        429: "RATE_LIMIT_EXCEEDED",
        503: "RECIPIENT_UNAVAILABLE TEMPORARY_FAILURE QUEUE_FULL",
    }.items()
    for code in codes.split()
}


class Unusable(Exception):
    """The target can't be tested at all; the text says why."""


@dataclass(frozen=True)
class Reply:
    """One answer; header names are lower case."""

    asked: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            raise AssertionError(f"{self.asked}: the answer is no JSON: {self.body[:200]!r}") from None

    def expect(self, *statuses: int) -> Any:
        """The JSON of an answer with one of these statuses."""
        if self.status not in statuses:
            wanted = " or ".join(map(str, statuses))
            raise AssertionError(
                f"{self.asked}: expected {wanted}, got {self.status} with {self.body[:300].decode(errors='replace')}"
            )
        return self.json

    def refused(self, *codes: str) -> dict[str, Any]:
        """The error of a refusal with one of these codes; its status and envelope are checked too."""
        error = self.envelope()
        if error["code"] not in codes:
            raise AssertionError(
                f"{self.asked}: expected {' or '.join(codes)}, got {error['code']}: {error['message']}"
            )
        return error

    def envelope(self) -> dict[str, Any]:
        """The error of any refusal, in the form that every one of them has."""
        if self.status < 400:
            raise AssertionError(
                f"{self.asked}: expected a refusal, got {self.status} with {self.body[:300]!r}"
            )
        body = self.json
        error = body.get("error") if isinstance(body, dict) else None
        if not isinstance(error, dict):
            raise AssertionError(
                f"{self.asked}: a {self.status} without an error object: {self.body[:300]!r}"
            )
        for name in ("code", "message", "timestamp", "request_id"):
            if not isinstance(error.get(name), str) or not error[name]:
                raise AssertionError(f"{self.asked}: error.{name} is missing or no text: {self.body[:300]!r}")
        if STATUS_OF.get(error["code"]) != self.status:
            raise AssertionError(f"{self.asked}: {error['code']} does not go with the status {self.status}")
        if error["request_id"] != self.headers.get("x-request-id"):
            raise AssertionError(f"{self.asked}: error.request_id is not the header X-Request-ID")
        if datetime.fromisoformat(error["timestamp"]).tzinfo is None:
            raise AssertionError(f"{self.asked}: error.timestamp has no time zone")
        return error


@dataclass(frozen=True)
class Agent:
    """An agent registered for one check."""

    address: str
    key: str
    target: "Target" = field(repr=False)
    secret: str = ""  # what is pushed to it is signed with

    @property
    def local(self) -> str:
        return self.address.partition("@")[0]

    def message(self, *recipients: str, **members: Any) -> dict[str, Any]:
        """A complete message; a member that is given as ... is left out."""
        complete = {
            "version": "1.0",
            "sender": self.address,
            "recipients": list(recipients),
            "payload": {"check": 1},
            **members,
        }
        return {name: value for name, value in complete.items() if value is not ...}

    @property
    def box(self) -> str:
        """The path of the agent's inbox."""
        return f"/v1/inbox/{quote(self.address, safe='@')}"

    async def send(self, *recipients: str, **members: Any) -> Reply:
        return await self.post(encoded(self.message(*recipients, **members)))

    async def post(self, body: bytes, content_type: str | None = JSON, **headers: str) -> Reply:
        return await self.target.call(
            "POST", "/v1/messages", key=self.key, body=body, content_type=content_type, headers=headers
        )

    async def sent(self, *recipients: str, **members: Any) -> str:
        """The id of a message that was accepted."""
        return str((await self.send(*recipients, **members)).expect(202)["message_id"])

    async def get(self, path: str, **headers: str) -> Reply:
        return await self.target.call("GET", path, key=self.key, headers=headers)

    async def delete(self, path: str) -> Reply:
        return await self.target.call("DELETE", path, key=self.key)

    async def page(self, query: str = "") -> dict[str, Any]:
        """One page of the agent's own inbox."""
        page: dict[str, Any] = (await self.get(self.box + query)).expect(200)
        return page

    async def inbox(self, query: str = "") -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = (await self.page(query))["messages"]
        return messages

    async def only(self) -> dict[str, Any]:
        """The one message that lies in the inbox."""
        messages = await self.inbox()
        if len(messages) != 1:
            raise AssertionError(f"expected one message in the inbox, found {len(messages)}")
        return messages[0]

    async def status(self, message_id: str) -> dict[str, Any]:
        status: dict[str, Any] = (await self.get(f"/v1/messages/{message_id}/status")).expect(200)
        return status

    async def ended(self, message_id: str) -> dict[str, Any]:
        """Its status, once it is final."""

        async def look() -> dict[str, Any] | None:
            status = await self.status(message_id)
            return None if status["status"] == "queued" else status

        status: dict[str, Any] = await eventually(look, f"the end of {message_id}")
        return status

    async def delayed(self, message_id: str) -> dict[str, Any]:
        """Its first recipient's status, once an attempt failed and another one is to come."""

        async def look() -> dict[str, Any] | None:
            first: dict[str, Any] = (await self.status(message_id))["recipients"][0]
            return (
                first
                if first["attempts"] and first.get("last_error") and first["status"] == "queued"
                else None
            )

        status: dict[str, Any] = await eventually(look, f"a failed attempt of {message_id}")
        return status

    async def mail(self, count: int = 1) -> list[dict[str, Any]]:
        """The inbox, once it holds so many messages."""

        async def look() -> list[dict[str, Any]]:
            found = await self.inbox("?limit=1000")
            return found if len(found) >= count else []

        found: list[dict[str, Any]] = await eventually(look, f"{count} messages in the inbox")
        return found


class Target:
    """A gateway, as anybody outside of it sees it."""

    def __init__(self, url: str, domain: str, admin_key: str, tls: ssl.SSLContext | None = None) -> None:
        self.url = url.rstrip("/")
        self.domain = domain
        self.admin_key = admin_key
        self._tls = tls
        self._run = secrets.token_hex(4)
        self._agents: list[str] = []

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls if self._tls is not None else True),
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX),
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for address in self._agents:
                await self.admin("DELETE", f"/v1/admin/agents/{quote(address, safe='@')}?mail=drop")
        finally:
            await self._session.close()

    async def require(self) -> None:
        """Raises Unusable where agents can't be registered, which every check begins with."""
        try:
            agent = await self.agent()
        except (aiohttp.ClientError, TimeoutError, AssertionError, KeyError, ValueError) as failure:
            raise Unusable(f"no agent can be registered at {self.url}: {failure}") from failure
        if agent.address.rpartition("@")[2] != self.domain:
            raise Unusable(f"the gateway registered {agent.address}, which is not of {self.domain}")

    def name(self) -> str:
        """A local part that nobody has."""
        return f"conformance-{self._run}-{secrets.token_hex(4)}"

    def address(self) -> str:
        """An address of this gateway that nobody has."""
        return f"{self.name()}@{self.domain}"

    async def agent(self, local: str | None = None, **profile: Any) -> Agent:
        """A new agent, which is removed at the end of the run."""
        address = f"{local or self.name()}@{self.domain}"
        registered = (await self.register(address=address, **profile)).expect(201, 200)["agent"]
        secret = registered.get("push_secret", "")
        return Agent(registered["address"], registered["api_key"], self, secret)

    async def agents(self, count: int) -> list[Agent]:
        return [await self.agent() for _ in range(count)]

    async def register(self, **profile: Any) -> Reply:
        reply = await self.admin("POST", "/v1/admin/agents", profile)
        if reply.status < 300:
            self._agents.append(reply.json["agent"]["address"])
        return reply

    async def post(self, message: dict[str, Any], **headers: str) -> Reply:
        """A message from elsewhere, without any proof."""
        return await self.call("POST", "/v1/messages", body=encoded(message), headers=headers)

    async def admin(self, method: str, path: str, value: Any = None) -> Reply:
        body = None if value is None else encoded(value)
        return await self.call(method, path, key=self.admin_key, body=body)

    async def call(
        self,
        method: str,
        path: str,
        *,
        key: str | None = None,
        body: bytes | AsyncIterator[bytes] | None = None,
        content_type: str | None = JSON,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request; without a key it comes from a stranger."""
        sent = {**(STRANGER if key is None else {"Authorization": f"Bearer {key}"}), **(headers or {})}
        if body is not None and content_type is not None:
            sent["Content-Type"] = content_type
        async with self._session.request(
            method,
            URL(self.url + path, encoded=True),
            data=body,
            headers=sent,
            skip_auto_headers=("Content-Type",),
            allow_redirects=False,
        ) as answer:
            lower = {name.lower(): value for name, value in answer.headers.items()}
            return Reply(f"{method} {path}", answer.status, lower, await answer.read())

    @asynccontextmanager
    async def stream(self, agent: Agent, **headers: str) -> AsyncIterator[aiohttp.StreamReader]:
        """The agent's inbox as a stream of events."""
        sent = {"Authorization": f"Bearer {agent.key}", "Accept": "text/event-stream", **headers}
        path = self.url + agent.box
        async with self._session.get(URL(path, encoded=True), headers=sent) as answer:
            kind = answer.headers.get("Content-Type", "")
            if answer.status != 200 or not kind.startswith("text/event-stream"):
                raise AssertionError(f"expected a stream of events, got {answer.status} {kind}")
            yield answer.content

    async def raw(self, request: bytes) -> Reply:
        """What the gateway answers to these very bytes; the host is filled in where they say {host}."""
        parts = urlsplit(self.url)
        secure = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
        tls = (self._tls or ssl.create_default_context()) if secure else None
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls)
            try:
                writer.write(request.replace(b"{host}", host.encode()))
                await writer.drain()
                return await _read_reply(reader, f"{request[:40]!r}")
            finally:
                writer.close()


async def _read_reply(reader: asyncio.StreamReader, asked: str) -> Reply:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError as nothing:
        raise AssertionError(f"{asked}: hung up without an answer: {nothing.partial[:100]!r}") from None
    first, *lines = head.rstrip().split("\r\n")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Reply(asked, int(first.split(" ")[1]), headers, body)


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


async def eventually(look: Callable[[], Awaitable[Any]], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """What `look` returns as soon as it is true."""
    until = time.monotonic() + seconds
    while not (found := await look()):
        if time.monotonic() > until:
            raise AssertionError(f"did not come within {seconds:.0f} s: {what}")
        await asyncio.sleep(LOOK_SECONDS)
    return found
