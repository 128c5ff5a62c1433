"""A file in transit, in blocks of one size: no more of it is held in memory."""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from hmac import compare_digest

from gateway.protocol.errors import AMTPError, Code

BLOCK_BYTES = 262_144


async def in_blocks(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yields the same bytes in full blocks; only the last one is shorter, and none is empty."""
    waiting = bytearray()
    async for piece in pieces:
        waiting += piece
        while len(waiting) >= BLOCK_BYTES:
            yield bytes(waiting[:BLOCK_BYTES])
            del waiting[:BLOCK_BYTES]
    if waiting:
        yield bytes(waiting)


async def proven(
    blocks: AsyncGenerator[bytes, None], size: int, digest: bytes
) -> AsyncGenerator[bytes, None]:
    """Yields the same blocks, the last of them only when size and hash are as promised.

    So a small file is verified before its first byte is sent, and a large one with a wrong hash breaks off.
    """
    sha, count, held = hashlib.sha256(), 0, b""
    async with aclosing(blocks):
        async for block in blocks:
            count += len(block)
            if count > size:
                raise mismatch(f"is larger than the {size} bytes it should have")
            sha.update(block)
            if held:
                yield held
            held = block
    if count < size:
        raise mismatch(f"has {count} of the {size} bytes it should have")
    if not compare_digest(sha.digest(), digest):
        raise mismatch("has another hash than it should have")
    yield held


def mismatch(what: str) -> AMTPError:
    return AMTPError(Code.CONFLICT, f"The file {what}; ask its sender for it.")
