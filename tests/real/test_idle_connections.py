"""Ten thousand connections that do nothing: the gateway carries them, and mail goes on."""

import asyncio
import resource
from pathlib import Path

import pytest

from tests.real.spoken import writer
from tests.served import Served, served

CONNECTIONS = 9_900  # of the 10 000 a process allows, the rest is for those who work
PER_ADDRESS = 990  # of the 1 000 that one address may hold
DESCRIPTORS = 20_000
BYTES_PER_CONNECTION_MAX = 40_000
REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"

Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(autouse=True)
def descriptors() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(DESCRIPTORS, 0), max(DESCRIPTORS, hard)))


def memory_of(gateway: Served) -> int:
    """Resident bytes of the gateway's process."""
    fields = Path(f"/proc/{gateway.process.pid}/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize()


async def idle_connection(port: int, number: int) -> Wire:
    """One that asked once, so that it may stay, and comes from one of many addresses."""
    address = f"127.0.1.{1 + number // PER_ADDRESS}"
    reader, writer_ = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    writer_.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    return reader, writer_


async def test_ten_thousand_idle_connections_are_carried_and_mail_goes_on(tmp_path: Path) -> None:
    # Nobody here has a key before mail goes on, and half of the places would be the most that strangers get.
    environment = {"AMTP_LIMITS_UNPROVEN_SHARE_PERCENT": "100"}
    before = ["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"]
    with served(tmp_path, before=before, environment=environment) as gateway:
        alice = await asyncio.to_thread(writer, gateway)
        port = int(gateway.url.rpartition(":")[2])
        memory = memory_of(gateway)
        wires: list[Wire] = []
        for start in range(0, CONNECTIONS, 100):
            hundred = range(start, min(start + 100, CONNECTIONS))
            wires += await asyncio.gather(*(idle_connection(port, number) for number in hundred))
        assert memory_of(gateway) - memory < CONNECTIONS * BYTES_PER_CONNECTION_MAX
        sent = [(await asyncio.to_thread(alice.send, number)).status for number in range(20)]
        assert sent == [202] * 20
        assert await asyncio.to_thread(alice.inbox) == list(range(20))
        for _, writer_ in wires:
            writer_.close()
