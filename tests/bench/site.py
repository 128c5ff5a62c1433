"""A place to measure: a durable Postgres in a folder of its own, and gateways before it as processes."""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from gateway.postgres.embedded import EmbeddedPostgres
from tests.bench.cost import Cost, cost_of
from tests.bench.exchange import Connection, rendered
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
READY_SECONDS, STOP_SECONDS = 60.0, 60.0
SHARES = {"address_share_percent": 50, "owner_share_percent": 50}  # everybody here comes from one address
REGISTERING = 8  # at once


@dataclass(frozen=True, slots=True)
class Agent:
    address: str
    key: str


@dataclass(frozen=True, slots=True)
class Process:
    """A running gateway."""

    process: asyncio.subprocess.Process
    ports: tuple[int, ...]
    admin_key: str

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def port(self) -> int:
        return self.ports[0]


class Site:
    """One domain's house."""

    def __init__(self, folder: Path, domain: str, tree: Path = ROOT) -> None:
        self.folder, self.domain = folder, domain
        self._tree = tree  # whose gateway runs here
        self._settings = (tree / "amtp.example.yaml").read_text()  # an older one may not know all of ours
        self.folder.mkdir(parents=True)
        self.postgres = EmbeddedPostgres(folder / "data")
        self._rounds = 0

    async def query(self, statement: str, *arguments: object) -> Any:
        """One value from the database."""
        connection = await asyncpg.connect(self.postgres.dsn)
        try:
            return await connection.fetchval(statement, *arguments)
        finally:
            await connection.close()

    async def rest(self) -> None:
        """Does now what the database would do for a minute or two after a flood, while the next row is measured."""
        await self.query("vacuum analyze")
        await self.query("checkpoint")

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Site"]:
        await self.postgres.start()
        try:
            yield self
        finally:
            await self.postgres.stop()

    @asynccontextmanager
    async def gateway(self, *arguments: str, **settings: Any) -> AsyncIterator[Process]:
        """A gateway of this domain; `settings` are sections of its amtp.yaml."""
        self._rounds += 1
        path = self.folder / f"amtp-{self._rounds}.yaml"
        path.write_text(json.dumps({**self._usual(), **settings}))  # JSON is YAML
        with (self.folder / "gateway.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "tests.bench.gateway_process", str(path), self.postgres.dsn, *arguments),
                cwd=self._tree,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        try:
            said = await self._first_words(process)
            yield Process(process, tuple(said["ports"]), said["admin_key"])
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), STOP_SECONDS)

    @asynccontextmanager
    async def served(self, workers: int) -> AsyncIterator[Process]:
        """This domain by `amtp serve`, as an operator with so many cores would start it."""
        port = free_port()
        settings = {
            **self._usual(),
            "listen": [{"address": f"127.0.0.1:{port}", "roles": ["all"]}],
            "database": {"url": self.postgres.dsn},
        }
        self._rounds += 1
        path = self.folder / f"served-{self._rounds}.yaml"
        path.write_text(json.dumps(settings))
        key = await self._admin_key(path)
        with (self.folder / "served.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "gateway", "serve", "--config", str(path), "--workers", str(workers)),
                cwd=self._tree,
                stdout=log,
                stderr=log,
            )
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not await _answers(port):
                    await asyncio.sleep(0.1)
            yield Process(process, (port,), key)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), STOP_SECONDS)

    async def _admin_key(self, config: Path) -> str:
        """Returns a new one, made by the command of the tree that is measured."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *(
                "-m",
                "gateway",
                "admin-keys",
                "add",
                f"bench-{config.stem}",
                "--config",
                str(config),
                "--json",
            ),
            cwd=self._tree,
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await process.communicate()
        if process.returncode:
            raise SystemExit("no admin key could be made")
        key: str = json.loads(said)["key"]
        return key

    def _usual(self) -> dict[str, Any]:
        return {
            "domains": [self.domain],
            "data": str(self.folder / "data"),
            "listen": [{"address": "127.0.0.1:0", "roles": ["all"]}],
            "limits": {name: value for name, value in SHARES.items() if name in self._settings},
        }

    async def _first_words(self, process: asyncio.subprocess.Process) -> dict[str, Any]:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), READY_SECONDS)
        if not line:
            raise SystemExit(
                f"the gateway did not start:\n{(self.folder / 'gateway.log').read_text()[-4000:]}"
            )
        said: dict[str, Any] = json.loads(line)
        return said

    async def register(
        self, gateway: Process, names: Sequence[str], profiles: Sequence[Mapping[str, str]] = ()
    ) -> list[Agent]:
        """An agent of each name, with its key; `profiles` say more of them, one each."""
        waiting = list(enumerate(names))
        agents: dict[int, Agent] = {}

        async def work() -> None:
            connection = await Connection.open(gateway.port)
            while waiting:
                place, name = waiting.pop()
                body = json.dumps(
                    {"address": f"{name}@{self.domain}", **(profiles[place] if profiles else {})}
                ).encode()
                request = rendered("POST", "/v1/admin/agents", gateway.admin_key, body)
                status, answer = await connection.exchange(request)
                if status != 201:
                    raise SystemExit(f"no agent {name}: {answer!r}")
                agent = json.loads(answer)["agent"]
                agents[place] = Agent(agent["address"], agent["api_key"])
            connection.close()

        await asyncio.gather(*(work() for _ in range(REGISTERING)))
        return [agents[place] for place in range(len(names))]

    def cost(self, gateway: Process) -> Cost:
        assert self.postgres.pid is not None
        return cost_of(gateway=gateway.pid, postgres=self.postgres.pid)

    async def durability(self) -> dict[str, str]:
        """The settings that say whether an acknowledged message is on the disk, as the server tells them."""
        names = ("fsync", "synchronous_commit", "wal_sync_method", "full_page_writes", "server_version")
        return {name: await self.query("select current_setting($1)", name) for name in names}


async def _answers(port: int) -> bool:
    try:
        connection = await Connection.open(port)
        status, _ = await connection.exchange(rendered("GET", "/ready", "", b""))
        connection.close()
    except OSError:
        return False
    return status == 200
