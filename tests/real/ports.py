"""Whether somebody answers at a port."""

import asyncio

SECONDS_MAX = 20


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
