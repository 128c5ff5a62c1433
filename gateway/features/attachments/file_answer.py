"""A file as an HTTP answer: sent in blocks as they come, and never displayed by a browser."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, aclosing

from gateway.http.answers import Answer, Stream
from gateway.http.request import Request
from gateway.http.stream import give_up, next_item
from gateway.http.transport import HungUp
from gateway.protocol.attachments import disposition

SAFE = (
    ("Content-Security-Policy", "sandbox; default-src 'none'"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Accept-Ranges", "none"),
)


async def answer_file(
    blocks: AsyncGenerator[bytes, None], *, filename: str, content_type: str, size: int
) -> Answer | Stream:
    """Returns the answer for the verified file in `blocks`; closes them when all is sent or the client is gone."""
    headers = (("Content-Disposition", disposition(filename)), *SAFE)
    items = _twice_first(blocks)
    first = await anext(items)
    if len(first) == size:
        await items.aclose()
        return Answer(200, first, content_type, headers)
    return Stream(items, content_type, b"", headers, length=size)


async def within(
    place: AbstractContextManager[None], blocks: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """Yields the same blocks, while a place of a pot is held."""
    async with aclosing(blocks):
        with place:
            async for block in blocks:
                yield block


async def attended(request: Request, blocks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yields the same blocks; gives up waiting for the next one when the client is gone."""
    over = asyncio.ensure_future(request.ending.wait())
    step: asyncio.Future[bytes | None] | None = None
    try:
        while True:
            step = asyncio.ensure_future(next_item(blocks))
            await asyncio.wait((step, over), return_when=asyncio.FIRST_COMPLETED)
            if request.gone:
                raise HungUp
            block = await step
            if block is None:
                return
            yield block
    finally:
        await give_up(over, step)
        await blocks.aclose()


async def _twice_first(blocks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yields the first block once to look at and once to send, so that the source is closed even if no more is taken."""
    async with aclosing(blocks):
        first = await anext(blocks)
        yield first
        yield first
        async for block in blocks:
            yield block
