"""Ports of loopback that stay free until they are taken: none that the system gives to others by itself."""

import random
import socket
from collections.abc import Sequence
from pathlib import Path

FIRST, LAST = 10_000, 65_535
_GIVEN = Path(
    "/proc/sys/net/ipv4/ip_local_port_range"
)  # to outgoing connections, and to whoever asks for any


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
