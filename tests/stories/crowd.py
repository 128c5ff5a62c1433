"""A town with crowds in it: a gateway in a process of its own, honest senders, and those who take what they can get.

Each row of `ROWS` fills one pot from one address, or with one key, and goes on when the door has refused some of those.
"""

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

from conformance.dns_server import DnsServer
from conformance.fake_peer import Authority
from gateway.admit.api_key import mint_key
from gateway.store.agents.keys import NamedKeys, NewKey
from gateway.store.audit import Audit
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.row_ids import Mint
from tests.attacks.test_attachments import SMALL, said_of
from tests.attacks.test_files_at_once import Slow
from tests.cli.gateway_process import GatewayProcess, serving
from tests.ports import free_port
from tests.raw_server import RawServer
from tests.receive.doorway import Reply, Wire, head

AGENT, PEER, STRANGER = "127.0.0.1", "127.0.0.2", "127.0.0.3"
PEER_KEY = "a secret of the peer's own"
BODY_BYTES = 100_000
PATIENCE_SECONDS = 5.0  # for one answer, on a machine that does other things too
EACH_ON_ONE = 5  # messages, before a sender connects anew
LIMITS = {
    "CONNECTIONS": 300,
    "REQUESTS_IN_ADMISSION": 80,
    "BODY_BYTES": BODY_BYTES,
    "BODIES_IN_FLIGHT_BYTES": 1_048_576,
    "WAITING_MESSAGES": 400,
    "UNSENT_BYTES": 16_777_216,
    "WAITING_REQUESTS": 80,
    "UPLOADS": 16,
    "DOWNLOADS": 40,
    "FETCHES": 16,
    # What is a minute elsewhere takes seconds here.
    "HEAD_SECONDS": 2,
    "BODY_SECONDS": 2,
    "KEEP_ALIVE_SECONDS": 3,
}
FILE = bytes(20_000_000)  # more than both ends of a connection hold


@dataclass
class Town:
    """The gateway, and the keys of those who live there."""

    process: GatewayProcess
    plain: int  # the ports
    tls: int
    admin: int
    admin_key: str
    keys: dict[str, str] = field(default_factory=dict)
    slow_url: str = ""  # of a file that never comes whole
    file: str = ""  # where a large upload of bob's lies
    fetched: str = ""  # where mallory reads the slow one
    crowds: int = 0  # each comes from an address of its own

    async def wire(self, address: str, *, tls: bool | None = False) -> Wire:
        """A connection; `tls` None is one to the TLS listener that does not shake hands."""
        context = None
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        port = self.plain if tls is False else self.tls
        return Wire(
            *await asyncio.open_connection(AGENT, port, ssl=context, local_addr=(address, 0), limit=4096)
        )

    async def call(self, method: str, path: str, key: str, body: Any = b"", port: int = 0) -> Reply:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        wire = Wire(*await asyncio.open_connection(AGENT, port or self.plain))
        try:
            return await wire.ask(request(method, path, key, raw))
        finally:
            wire.close()

    async def furnish(self) -> None:
        """Registers the agents, and bob's file."""
        for name in ("alice", "bob", "mallory"):
            reply = await self.call(
                "POST",
                "/v1/admin/agents",
                self.admin_key,
                {"address": f"{name}@acme.test"},
                self.admin,
            )
            assert reply.status == 201, reply.body
            self.keys[name] = reply.json["agent"]["api_key"]
        uploaded = await self.call("POST", "/v1/attachments?filename=f", self.keys["bob"], FILE)
        assert uploaded.status == 201, uploaded.body
        self.file = "/v1/attachments/" + uploaded.json["url"].rpartition("/")[2]
        mallory = "mallory@acme.test"
        message = {"sender": mallory, "recipients": [mallory], "attachments": [said_of(SMALL, self.slow_url)]}
        sent = await self.call("POST", "/v1/messages", self.keys["mallory"], message)
        assert sent.status == 202, sent.body
        self.fetched = f"/v1/messages/{sent.json['message_id']}/attachments/0"

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


def request(method: str, path: str, key: str = "", body: bytes = b"", *lines: str) -> bytes:
    credential = [f"Authorization: Bearer {key}"] if key else []
    about = ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return head(method, path, *about, *credential, *lines) + body


@asynccontextmanager
async def town(folder: Path, dsn: str) -> AsyncIterator[Town]:
    """A gateway with small limits, a plain listener, one with TLS, and one for operators; and a host that is slow."""
    plain, tls, admin = free_port(), free_port(), free_port()
    authority = Authority()
    certificate, key_file = authority.write_pair(folder, "acme.test")
    listen = [
        {"address": f"127.0.0.1:{plain}", "roles": ["public", "agents"]},
        {"address": f"127.0.0.1:{tls}", "roles": ["public", "agents"], "tls": True},
        {"address": f"127.0.0.1:{admin}", "roles": ["admin"]},
    ]
    changes = {
        "AMTP_DEVELOPMENT": "false",
        "AMTP_LISTEN": json.dumps(listen),
        "AMTP_TLS_CERTIFICATE_FILE": str(certificate),
        "AMTP_TLS_KEY_FILE": str(key_file),
        "AMTP_OUTBOUND_ALLOW_NETWORKS": "127.0.0.0/8",
        "AMTP_OUTBOUND_CA_FILE": str(authority.write_ca(folder)),
        "AMTP_PEERS": json.dumps({"peer.test": {"gateway": "https://peer.test", "proving_key": PEER_KEY}}),
        **{f"AMTP_LIMITS_{name}": str(value) for name, value in LIMITS.items()},
    }
    database = Database(dsn, clock=Clock(), pool_size=1)
    await database.open()
    key = mint_key()
    await NamedKeys(database, Audit(Mint(Clock())())).add(
        NewKey(key.id, key.digest), "tests", ["admin"], "tests"
    )
    await database.close()
    async with DnsServer() as dns, RawServer(Slow(), authority.server_context("slow.test")) as slow:
        dns.add("slow.test", "A", "127.0.0.1")
        changes["AMTP_DNS_NAMESERVERS"] = f"127.0.0.1:{dns.port}"
        async with serving(folder, dsn, changes=changes) as process:
            url = f"https://slow.test:{slow.port}/f"
            built = Town(process, plain, tls, admin, key.text, slow_url=url)
            await built.furnish()
            yield built


# The honest


@dataclass
class Sender:
    """One who sends to bob at a steady rate, and connects anew now and then."""

    town: Town
    address: str
    key: str
    sender: str
    tls: bool
    every_seconds: float
    latencies: list[float] = field(default_factory=list)

    async def send(self) -> None:
        """Until cancelled; fails where one message is not accepted in time."""
        wire, left = None, 0
        due = monotonic()
        try:
            while True:
                begun = monotonic()
                async with asyncio.timeout(PATIENCE_SECONDS):
                    if wire is None or not left:
                        if wire is not None:
                            wire.close()
                        wire, left = await self.town.wire(self.address, tls=self.tls), EACH_ON_ONE
                    reply = await wire.ask(request("POST", "/v1/messages", self.key, self._message()))
                assert reply.status == 202, (self.sender, reply.status, reply.body)
                self.latencies.append(monotonic() - begun)
                left -= 1
                due += self.every_seconds
                await asyncio.sleep(due - monotonic())
        finally:
            if wire is not None:
                wire.close()

    def _message(self) -> bytes:
        message = {
            "version": "1.0",
            "message_id": str(Mint(Clock())()),
            "idempotency_key": str(uuid4()),
            "timestamp": datetime.now(UTC).isoformat(),
            "sender": self.sender,
            "recipients": ["bob@acme.test"],
            "payload": {"n": len(self.latencies)},
        }
        return json.dumps(message).encode()


def honest(town: Town, messages_per_second: float) -> list[Sender]:
    """An agent, a peer that proves its domain, and a stranger; so many messages a second in all."""
    every = 3 / messages_per_second
    return [
        Sender(town, AGENT, town.keys["alice"], "alice@acme.test", tls=False, every_seconds=every),
        Sender(town, PEER, PEER_KEY, "someone@peer.test", tls=True, every_seconds=every),
        Sender(town, STRANGER, "", "someone@elsewhere.test", tls=False, every_seconds=every),
    ]


# The crowds


Fill = Callable[[Town, AsyncExitStack], Awaitable[None]]


async def crowd(
    town: Town, stack: AsyncExitStack, count: int, sent: bytes, *, tls: bool | None = False
) -> list[Wire]:
    """So many connections from one address, on each of which this was sent."""
    town.crowds += 1
    wires = []
    for _ in range(count):
        wire = await town.wire(f"127.0.1.{town.crowds % 250}", tls=tls)
        stack.callback(wire.close)
        wires.append(wire)
        wire.writer.write(sent)
    return wires


async def hear(wires: list[Wire], told: bytes = b" 429 ") -> None:
    """Waits until one of them is told this, b"" being a hang-up: the requests of a crowd overtake each other."""
    listening = {asyncio.create_task(heard_by(wire)) for wire in wires}
    over: set[asyncio.Task[bytes]] = set()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not any(told in each.result() if told else not each.result() for each in over):
                over, listening = await asyncio.wait(listening, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in listening:
            task.cancel()


async def heard_by(wire: Wire) -> bytes:
    try:
        return await wire.reader.read(4096)
    except ConnectionResetError:
        return b""


async def connections(town: Town, stack: AsyncExitStack) -> None:
    await hear(await crowd(town, stack, 100, b""))


async def handshakes(town: Town, stack: AsyncExitStack) -> None:
    await hear(await crowd(town, stack, 100, b"\x16\x03", tls=None), b"")


async def heads(town: Town, stack: AsyncExitStack) -> None:
    await hear(await crowd(town, stack, 100, b"POST /v1/messages HTTP/1.1\r\nX-A: "))


def half_a_body(key: str = "") -> bytes:
    return request("POST", "/v1/messages", key, bytes(BODY_BYTES))[: -BODY_BYTES // 10]


async def bodies_of_an_address(town: Town, stack: AsyncExitStack) -> None:
    await hear(await crowd(town, stack, 20, half_a_body()))


async def bodies_of_a_key(town: Town, stack: AsyncExitStack) -> None:
    await hear(await crowd(town, stack, 20, half_a_body(town.keys["mallory"])))


async def slots_of_a_key(town: Town, stack: AsyncExitStack) -> None:
    """As many messages at once as there are connections for, again and again."""
    message = {"sender": "mallory@acme.test", "recipients": ["mallory@acme.test"], "payload": "x" * 50_000}
    asked = request("POST", "/v1/messages", town.keys["mallory"], json.dumps(message).encode())
    wires = await crowd(town, stack, 28, b"")
    statuses = set()
    for _ in range(5):
        statuses |= {reply.status for reply in await asyncio.gather(*(wire.ask(asked) for wire in wires))}
    assert statuses == {202, 429}


async def lines_of_a_key(town: Town, stack: AsyncExitStack) -> None:
    message = {"sender": "mallory@acme.test", "recipients": ["mallory@acme.test"], "payload": "x"}
    lines = (json.dumps(message).encode() + b"\n") * 100
    asked = request("POST", "/v1/messages", town.keys["mallory"], lines).replace(
        b"application/json", b"application/x-ndjson"
    )
    wires = await crowd(town, stack, 10, b"")
    replies = await asyncio.gather(*(wire.ask(asked) for wire in wires))
    assert b"RATE_LIMIT_EXCEEDED" in b"".join(reply.body for reply in replies)


async def uploads_of_a_key(town: Town, stack: AsyncExitStack) -> None:
    begun = head(
        "POST",
        "/v1/attachments",
        f"Authorization: Bearer {town.keys['mallory']}",
        "Content-Length: 1000000",
    )
    await hear(await crowd(town, stack, 20, begun + b"x"))


async def downloads_of_an_address(town: Town, stack: AsyncExitStack) -> None:
    await hear(await crowd(town, stack, 20, request("GET", town.file)))


async def fetches_of_a_key(town: Town, stack: AsyncExitStack) -> None:
    await hear(await crowd(town, stack, 20, request("GET", town.fetched, town.keys["mallory"])))


async def waits_of_a_key(town: Town, stack: AsyncExitStack) -> None:
    path = "/v1/inbox/mallory@acme.test?wait=60&status=read&since=2100-01-01T00:00:00Z"
    await hear(await crowd(town, stack, 25, request("GET", path, town.keys["mallory"])))


async def streams_of_a_key(town: Town, stack: AsyncExitStack) -> None:
    """More than an inbox may have, and nobody reads what its agent sent itself before: the first ends."""
    path = "/v1/inbox/mallory@acme.test"
    asked = request("GET", path, town.keys["mallory"], b"", "Accept: text/event-stream")
    wires = await crowd(town, stack, 17, asked)
    async with asyncio.timeout(PATIENCE_SECONDS):
        with suppress(ConnectionResetError):
            while await wires[0].reader.read(65_536):
                pass


@dataclass(frozen=True)
class Row:
    """One pot, by how it is filled. Where the gateway is patient for a minute, the crowd leaves by itself."""

    fill: Fill
    patient: bool = False

    @property
    def name(self) -> str:
        return self.fill.__name__


ROWS = (
    Row(connections),
    Row(handshakes),
    Row(heads),
    Row(bodies_of_an_address),
    Row(bodies_of_a_key),
    Row(slots_of_a_key),
    Row(lines_of_a_key),
    Row(uploads_of_a_key, patient=True),
    Row(downloads_of_an_address, patient=True),
    Row(fetches_of_a_key, patient=True),
    Row(waits_of_a_key, patient=True),
    Row(streams_of_a_key, patient=True),
)
