"""Ports of loopback: a free one, and whether somebody answers there."""

import asyncio
import socket

SECONDS_MAX = 20


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


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
