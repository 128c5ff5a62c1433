"""A file on its way, in blocks of one size: all that is ever held of it in memory."""

from collections.abc import AsyncGenerator, AsyncIterator

BLOCK_BYTES = 262_144


async def in_blocks(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The same bytes in full blocks; only the last one is shorter, and none is empty."""
    waiting = bytearray()
    async for piece in pieces:
        waiting += piece
        while len(waiting) >= BLOCK_BYTES:
            yield bytes(waiting[:BLOCK_BYTES])
            del waiting[:BLOCK_BYTES]
    if waiting:
        yield bytes(waiting)
