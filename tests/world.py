"""A world to test in: gateways that really listen, on databases that are really there."""

import io
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from gateway.admit.api_key import mint_key
from gateway.config.sections import ListenerSettings
from gateway.config.settings import Config, complete
from gateway.config.values import HostPort
from gateway.features.feature import Plug
from gateway.journal.journal import Journal
from gateway.store.agents.keys import NamedKeys, NewKey
from gateway.store.clock import Clock
from gateway.wiring.app import App, running
from gateway.wiring.features import FEATURES


@dataclass(frozen=True)
class Reply:
    """What a gateway answered."""

    status: int
    headers: dict[str, str]  # lower-case names
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str:
        """The error code of a refusal."""
        return str(self.json["error"]["code"])


@dataclass(frozen=True)
class Agent:
    """An agent registered at a gateway."""

    address: str
    key: str
    gateway: "Gateway" = field(repr=False)

    def at(self, gateway: "Gateway") -> Self:
        """The same agent at another gateway on the same database."""
        return replace(self, gateway=gateway)

    async def send(self, *recipients: str, **members: Any) -> Reply:
        message = {"sender": self.address, "recipients": list(recipients), "payload": {"n": 1}, **members}
        return await self.gateway.call("POST", "/v1/messages", key=self.key, json=message)

    async def inbox(self, query: str = "") -> list[dict[str, Any]]:
        reply = await self.gateway.call("GET", f"/v1/inbox/{self.address}{query}", key=self.key)
        assert reply.status == 200, reply.text
        found: list[dict[str, Any]] = reply.json["messages"]
        return found

    async def status(self, message_id: str) -> dict[str, Any]:
        reply = await self.gateway.call("GET", f"/v1/messages/{message_id}/status", key=self.key)
        assert reply.status == 200, reply.text
        found: dict[str, Any] = reply.json
        return found


@dataclass
class Gateway:
    """One running gateway, in this process, with a door on loopback."""

    app: App
    admin_key: str
    session: aiohttp.ClientSession
    log: io.StringIO

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.app.ports[0]}"

    @property
    def domain(self) -> str:
        return self.app.config.domains[0]

    async def call(
        self,
        method: str,
        path: str,
        *,
        key: str | None = None,
        json: Any = None,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """One request; `json` is sent as JSON, `body` as it is."""
        sent = dict(headers or {})
        if key is not None:
            sent["Authorization"] = f"Bearer {key}"
        if json is not None:
            body = _encode(json)
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        async with self.session.request(method, self.url + path, data=body, headers=sent) as response:
            lower = {name.lower(): value for name, value in response.headers.items()}
            return Reply(response.status, lower, await response.text())

    async def register(self, local: str, **profile: Any) -> Agent:
        reply = await self.call(
            "POST",
            "/v1/admin/agents",
            key=self.admin_key,
            json={"address": local if "@" in local else f"{local}@{self.domain}", **profile},
        )
        assert reply.status == 201, reply.text
        agent = reply.json["agent"]
        return Agent(agent["address"], agent["api_key"], self)

    def turn(self, seconds: float) -> None:
        """Turns the clock of this gateway and of its database."""
        self.app.clock.offset += timedelta(seconds=seconds)


def _encode(value: Any) -> bytes:
    return json.dumps(value).encode()


class World:
    """Builds gateways; they share one database unless told otherwise."""

    def __init__(
        self,
        dsn: str,
        folder: Path,
        create: Callable[[], Awaitable[str]],
        features: Sequence[Plug] = FEATURES,
    ) -> None:
        self.dsn = dsn
        self.folder = folder
        self.create_database = create
        self._features = features
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._session = await self._stack.enter_async_context(aiohttp.ClientSession())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def gateway(
        self,
        domains: Sequence[str] = ("acme.test",),
        *,
        dsn: str | None = None,
        clock: Clock | None = None,
        tls: ssl.SSLContext | None = None,
        **changes: Any,
    ) -> AsyncIterator[Gateway]:
        """A gateway on a free port of loopback; `changes` replace sections of its configuration."""
        usual = {"domains": tuple(domains), "data": self.folder, "listen": LISTEN}
        config = complete(replace(Config(), **{**usual, **changes}))
        log = io.StringIO()
        journal = Journal(log, form="text", level="debug")
        async with running(
            config,
            dsn or self.dsn,
            clock=clock or Clock(),
            journal=journal,
            tls=tls,
            features=self._features,
        ) as app:
            key = mint_key()
            await NamedKeys(app.database, app.audit).add(
                NewKey(key.id, key.digest), f"tests-{secrets.token_hex(4)}", ["admin"], "tests"
            )
            yield Gateway(app, key.text, self._session, log)


LISTEN = (ListenerSettings(HostPort("127.0.0.1", 0), roles=("all",)),)
