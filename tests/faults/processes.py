"""A gateway and a Postgres as processes of their own, so that either can be killed."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from gateway.postgres.embedded import EmbeddedPostgres
from gateway.store.sealed import KEY_FILE, Sealer
from tests.ports import free_port

REPOSITORY = Path(__file__).parents[2]
READY_SECONDS = 40.0
END_SECONDS = 40.0
DURABLE = {"fsync": "on", "synchronous_commit": "on", "shared_buffers": "64MB"}


@dataclass(frozen=True, slots=True)
class Account:
    """An agent and its key."""

    address: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}


@dataclass
class GatewayProcess:
    """A gateway in a process of its own; started again it listens on the same ports.

    `doors` are further listeners, `settings` further sections of its configuration.
    """

    dsn: str
    data: Path
    domain: str = "acme.test"
    doors: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    ports: Sequence[int] = ()
    admin_key: str = ""
    _process: asyncio.subprocess.Process | None = field(default=None, repr=False)

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, **environment: str) -> None:
        """Returns when it is ready."""
        await self.launch(**environment)
        assert self._process is not None
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), READY_SECONDS)
        assert line, f"The gateway did not start:\n{self.log()}"
        ready = json.loads(line)
        self.ports, self.admin_key = ready["ports"], ready["admin_key"]

    async def launch(self, **environment: str) -> None:
        """Returns at once: it may be told to die before it is ready."""
        self.data.mkdir(exist_ok=True)
        if not (key := self.data / KEY_FILE).exists():  # one for all whose folders lie side by side
            Sealer.of(self.data.parent)
            key.symlink_to(self.data.parent / KEY_FILE)
        config = self.data / "amtp.json"  # which is YAML, too
        config.write_text(json.dumps(self._configuration()))
        with (self.data / "gateway.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "tests.faults.gateway_process", str(config), self.dsn),
                cwd=REPOSITORY,
                env={**os.environ, **environment},
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )

    def _configuration(self) -> dict[str, Any]:
        doors = [{"roles": ["all"]}, *self.doors]
        ports = self.ports or [free_port() for _ in doors]
        listen = [{**door, "address": f"127.0.0.1:{port}"} for door, port in zip(doors, ports, strict=True)]
        return {"domains": [self.domain], "data": str(self.data), "listen": listen, **self.settings}

    async def kill(self) -> None:
        """As kill -9 does."""
        self.signal(signal.SIGKILL)
        await self.ended()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):  # it died on its own
            self._process.send_signal(number)

    async def ended(self) -> int:
        """How it ended, as subprocess tells it."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), END_SECONDS)

    def log(self) -> str:
        return (self.data / "gateway.log").read_text()

    async def register(self, session: aiohttp.ClientSession, local: str) -> Account:
        headers = {"Authorization": f"Bearer {self.admin_key}", "Content-Type": "application/json"}
        body = json.dumps({"address": f"{local}@{self.domain}"})
        async with session.post(f"{self.url}/v1/admin/agents", data=body, headers=headers) as response:
            assert response.status == 201, await response.text()
            agent: dict[str, Any] = (await response.json())["agent"]
        return Account(agent["address"], agent["api_key"])


async def kill_postgres(postgres: EmbeddedPostgres, number: signal.Signals) -> None:
    """Ends the server without warning (SIGQUIT is `stop -m immediate`) and waits until its supervisor noticed."""
    pid = postgres.pid
    assert pid is not None
    os.kill(pid, number)
    async with asyncio.timeout(END_SECONDS):
        while postgres.pid == pid:
            await asyncio.sleep(0.01)
