"""A file as an answer: in blocks, as they come, and never shown in a browser."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from gateway.protocol.attachments import disposition
from gateway.receive.answers import Answer, Stream
from gateway.receive.limits import Slots

SAFE = (
    ("Content-Security-Policy", "sandbox; default-src 'none'"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Accept-Ranges", "none"),
)


async def answer_file(
    blocks: AsyncGenerator[bytes, None], *, filename: str, content_type: str, size: int
) -> Answer | Stream:
    """The proven file in `blocks`; closes them when all is sent, or nobody listens."""
    headers = (("Content-Disposition", disposition(filename)), *SAFE)
    items = _twice_first(blocks)
    first = await anext(items)
    if len(first) == size:
        await items.aclose()
        return Answer(200, first, content_type, headers)
    return Stream(items, content_type, b"", headers, length=size)


async def within(slots: Slots, blocks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The same blocks, while one of the slots is taken."""
    async with aclosing(blocks):
        with slots:
            async for block in blocks:
                yield block


async def _twice_first(blocks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The first block once to look at and once to send: what was begun is closed even if nobody takes more."""
    async with aclosing(blocks):
        first = await anext(blocks)
        yield first
        yield first
        async for block in blocks:
            yield block
