"""Ports of loopback: free ones that nobody else is given, and whether somebody answers there."""

import asyncio
import random
import socket
from collections.abc import Sequence
from pathlib import Path

FIRST, LAST = 10_000, 65_535
SECONDS_MAX = 20
# What the system gives to outgoing connections, and to whoever asks for any.
_GIVEN = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on, and that no connection happens upon before the caller does."""
    low, high = map(int, _GIVEN.read_text().split())
    ours: Sequence[int] = [*range(FIRST, low), *range(high + 1, LAST + 1)] or range(FIRST, LAST + 1)
    while True:
        port = random.SystemRandom().choice(ours)
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port


async def listening(port: int) -> None:
    """Returns once somebody listens there."""
    async with asyncio.timeout(SECONDS_MAX):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return
