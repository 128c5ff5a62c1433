"""How long a gateway's event loop is held, while a client in a thread of its own asks the worst of it."""

import asyncio
import gc
import http.client
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from threading import Event
from time import monotonic, thread_time
from typing import Any

from gateway.config.sections import DnsSettings
from tests.world import Gateway, World

LINES = "application/x-ndjson"
LOOK_SECONDS = 0.002
DEADLINE_SECONDS = 300.0  # of one answer
NOWHERE = DnsSettings(nameservers=("127.0.0.1:9",), timeout_seconds=0.2)


@dataclass
class Held:
    """The longest that the loop was held: seconds of its own CPU, and of the wall clock, which others' work adds to."""

    cpu: float = 0.0
    wall: float = 0.0
    health: list[float] = field(default_factory=list)  # how long each look at /health took

    async def watch(self) -> None:
        while True:
            cpu, wall = thread_time(), monotonic()
            await asyncio.sleep(LOOK_SECONDS)
            self.cpu = max(self.cpu, thread_time() - cpu)
            self.wall = max(self.wall, monotonic() - wall - LOOK_SECONDS)

    def __str__(self) -> str:
        return f"{self.cpu:.3f} s of CPU, {self.wall:.3f} s; /health within {max(self.health):.3f} s"


@dataclass(frozen=True)
class Client:
    """Asks a gateway with a key; blocking, for threads."""

    port: int
    address: str
    key: str
    admin_key: str
    parts: int  # of a hundred: how much it sends of what it could

    def some(self, count: int) -> int:
        """Its part of so many."""
        return max(1, count * self.parts // 100)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        key: str | None = None,
        bytes_max: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """The status and the answer, or its first `bytes_max`; `key` is another than this client's, "" none."""
        given = self.key if key is None else key
        sent = {"Authorization": f"Bearer {given}"} if given else {}
        sent |= {"Content-Type": "application/json", **(headers or {})}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_SECONDS)
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, answer.read(bytes_max)
        finally:
            connection.close()

    def post(self, body: bytes) -> int:
        return self.ask("POST", "/v1/messages", body)[0]

    def post_lines(self, lines: Sequence[bytes]) -> list[Any]:
        """What each line was answered."""
        status, told = self.ask("POST", "/v1/messages", b"\n".join(lines), headers={"Content-Type": LINES})
        assert status == 200, told[:500]
        return [json.loads(line) for line in told.splitlines()]

    def register(self, local: str) -> "Client":
        domain = self.address.partition("@")[2]
        body = json.dumps({"address": f"{local}@{domain}"}).encode()
        status, told = self.ask("POST", "/v1/admin/agents", body, key=self.admin_key)
        assert status == 201, told[:500]
        agent = json.loads(told)["agent"]
        return replace(self, address=agent["address"], key=agent["api_key"])

    def message(self, *recipients: str, payload: bytes = b"1", **members: Any) -> bytes:
        """A message from here with these very bytes as its payload."""
        head = {"version": "1.0", "sender": self.address, "recipients": list(recipients), **members}
        return json.dumps(head)[:-1].encode() + b',"payload":%b}' % payload


@asynccontextmanager
async def watched(gateway: Gateway) -> AsyncIterator[Held]:
    """Watches the loop, and asks for /health all the time, while the block lasts.

    The heap of the test run is frozen meanwhile, as a gateway's own is after its start.
    """
    held, over = Held(), Event()
    gc.collect()
    gc.freeze()
    watching = asyncio.create_task(held.watch())
    asking = asyncio.create_task(asyncio.to_thread(_ask_health, gateway.app.ports[0], held.health, over))
    try:
        yield held
    finally:
        over.set()
        await asking
        watching.cancel()
        gc.unfreeze()


def _ask_health(port: int, took: list[float], over: Event) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
    while not over.wait(0.01):
        begun = monotonic()
        connection.request("GET", "/health")
        connection.getresponse().read()
        took.append(monotonic() - begun)
    connection.close()


async def held_by(attack: Callable[[Client], None], world: World, parts: int = 100) -> Held:
    """How long the loop of a new gateway is held while an agent asks this."""
    async with world.gateway(dsn=await world.create_database(), dns=NOWHERE) as gateway:
        return await _held_by(attack, gateway, parts)


async def _held_by(attack: Callable[[Client], None], gateway: Gateway, parts: int) -> Held:
    alice = await gateway.register("alice")
    client = Client(gateway.app.ports[0], alice.address, alice.key, gateway.admin_key, parts)
    async with watched(gateway) as held:
        await asyncio.to_thread(attack, client)
    return held


def filled(piece: bytes, size: int, *, before: bytes = b"[", after: bytes = b"]") -> bytes:
    """A list of many of these pieces, of about that size."""
    return before + b",".join([piece] * (size // (len(piece) + 1))) + after
