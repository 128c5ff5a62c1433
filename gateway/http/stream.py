"""Streams: their items with heartbeats between them, and how many an inbox may have open."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from gateway.http.answers import Stream
from gateway.http.request import Request

PIECE_BYTES = 65_536  # of small items that leave together
COME_BACK_LATER = b"retry: 60000\n\n"  # else two groups of clients would keep ending each other's streams


async def lively(stream: Stream, ending: asyncio.Event, quiet_seconds: float) -> AsyncGenerator[bytes, None]:
    """Yields the items, and `quiet` as a heartbeat after each silence, until they end or the client leaves."""
    over = asyncio.ensure_future(ending.wait())
    step: asyncio.Future[bytes | None] | None = None
    try:
        while True:
            if step is None:
                step = asyncio.ensure_future(next_item(stream.items))
            either: set[asyncio.Future[Any]] = {step, over}
            await asyncio.wait(either, timeout=quiet_seconds, return_when=asyncio.FIRST_COMPLETED)
            if step.done():
                item, step = step.result(), None
                if item is None:
                    return
                yield item
                del item  # may be large, and the next may take long
            elif over.done():
                return
            else:
                yield stream.quiet
    finally:
        await give_up(over, step)


async def give_up(*waits: asyncio.Future[Any] | None) -> None:
    """Cancels these and waits until they have ended."""
    left = [wait for wait in waits if wait is not None]
    for wait in left:
        wait.cancel()
    await asyncio.gather(*left, return_exceptions=True)


class OpenStreams:
    """The streams of each inbox, in the order they began. Beyond the limit the oldest ends, not the newest: an agent that
    reconnects may still have streams open that nobody reads any more."""

    def __init__(self, of_one_max: int) -> None:
        self._of_one_max = of_one_max
        self._open: dict[int, list[Request]] = {}

    @contextmanager
    def opened(self, inbox: int, request: Request) -> Iterator[None]:
        """Counts a stream as long as the block lasts; the oldest of too many ends."""
        streams = self._open.setdefault(inbox, [])
        streams.append(request)
        if len(streams) > self._of_one_max:
            streams.pop(0).end(
                b": as many newer streams of this inbox are open as there may be\n" + COME_BACK_LATER
            )
        try:
            yield
        finally:
            if request in streams:
                streams.remove(request)
            if not streams:
                self._open.pop(inbox, None)


async def next_item(items: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(items, None)


def together(items: Iterable[bytes]) -> Iterator[bytes]:
    """Yields the same bytes in fewer pieces."""
    held: list[bytes] = []
    size = 0
    for item in items:
        held.append(item)
        size += len(item)
        if size >= PIECE_BYTES:
            piece, held, size = b"".join(held), [], 0
            del item  # sending the piece may take long
            yield piece
            del piece
    if held:
        yield b"".join(held)
