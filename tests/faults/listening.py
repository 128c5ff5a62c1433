"""Agents that listen to their streams whatever happens to them, and come back each time one ends."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import aiohttp

from tests.faults.ledger import PATIENCE_SECONDS, Line
from tests.faults.processes import Account

PAUSE_SECONDS = 0.05  # of a client before it comes back
SILENCE_SECONDS = 60.0


class Listening:
    """What was heard so far, by all of them."""

    def __init__(self) -> None:
        self.heard: set[Line] = set()
        self.times = 0  # that a stream was begun
        self._news = asyncio.Event()

    async def until_heard(self, lines: Iterable[Line]) -> None:
        """Until all of these were heard; raises where one is missing for long."""
        wanted = set(lines)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not wanted <= self.heard:
                self._news.clear()
                await self._news.wait()

    async def listen(self, session: aiohttp.ClientSession, urls: Iterable[str], reader: Account) -> None:
        for url in urls:
            try:
                await self._stream(session, url, reader)
            except (aiohttp.ClientError, TimeoutError, OSError):
                await asyncio.sleep(PAUSE_SECONDS)

    async def _stream(self, session: aiohttp.ClientSession, url: str, reader: Account) -> None:
        headers = {**reader.headers, "Accept": "text/event-stream"}
        patience = aiohttp.ClientTimeout(total=None, sock_read=SILENCE_SECONDS)
        place = f"{url}/v1/inbox/{reader.address}"
        async with session.get(place, headers=headers, timeout=patience) as response:
            if response.status != 200:
                await asyncio.sleep(PAUSE_SECONDS)
                return
            self.times += 1
            async for line in response.content:
                if line.startswith(b"data: "):
                    message = json.loads(line.removeprefix(b"data: "))
                    self.heard.add(Line(reader.address, message["message_id"], message["payload"]["serial"]))
                    self._news.set()


@asynccontextmanager
async def listening(
    session: aiohttp.ClientSession, urls: Sequence[str], readers: Iterable[Account]
) -> AsyncIterator[Listening]:
    """Each of the readers listens as long as the block lasts, at another gateway each time it comes back."""
    ears = Listening()
    tasks = [
        asyncio.create_task(ears.listen(session, itertools.islice(itertools.cycle(urls), n, None), reader))
        for n, reader in enumerate(readers)
    ]
    try:
        yield ears
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
