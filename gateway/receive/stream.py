"""Items of a stream, with signs of life between them."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import Any

from gateway.receive.answers import Stream

PIECE_BYTES = 65_536  # of small items that leave together


async def lively(stream: Stream, ending: asyncio.Event, quiet_seconds: float) -> AsyncGenerator[bytes, None]:
    """Yield the items as they come and `quiet` after each silence, until they end or nobody listens."""
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


async def next_item(items: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(items, None)


def together(items: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in fewer pieces."""
    held: list[bytes] = []
    size = 0
    for item in items:
        held.append(item)
        size += len(item)
        if size >= PIECE_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)
