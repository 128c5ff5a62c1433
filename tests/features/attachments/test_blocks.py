"""Files on their way: cut into blocks of one size, and proven before their end."""

import hashlib
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.features.attachments.blocks import BLOCK_BYTES, in_blocks, proven
from gateway.protocol.errors import AMTPError, Code


async def given_as(*pieces: bytes) -> AsyncGenerator[bytes, None]:
    for piece in pieces:
        yield piece


def digest_of(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


@given(st.lists(st.integers(0, 3 * BLOCK_BYTES), max_size=5))
async def test_pieces_of_any_size_become_full_blocks(sizes: list[int]) -> None:
    pieces = [bytes([number]) * size for number, size in enumerate(sizes)]
    blocks = [block async for block in in_blocks(given_as(*pieces))]
    assert b"".join(blocks) == b"".join(pieces)
    assert all(len(block) == BLOCK_BYTES for block in blocks[:-1])
    assert all(0 < len(block) <= BLOCK_BYTES for block in blocks)


@pytest.mark.parametrize("blocks", [(), (b"one",), (b"one", b"two", b"three")])
async def test_what_was_promised_comes_whole(blocks: tuple[bytes, ...]) -> None:
    content = b"".join(blocks)
    got = [block async for block in proven(given_as(*blocks), len(content), digest_of(content))]
    assert b"".join(got) == content
    assert len(got) == max(1, len(blocks))


@pytest.mark.parametrize(
    ("blocks", "size", "words"),
    [
        ((b"one", b"two"), 5, "larger"),
        ((b"one", b"two"), 7, "6 of the 7"),
        ((b"one", b"owt"), 6, "hash"),
        ((), 6, "0 of the 6"),
    ],
)
async def test_of_what_is_not_what_was_promised_the_end_never_comes(
    blocks: tuple[bytes, ...], size: int, words: str
) -> None:
    got: list[bytes] = []
    with pytest.raises(AMTPError, match=words) as refusal:
        await take(proven(given_as(*blocks), size, digest_of(b"onetwo")), got)
    assert refusal.value.code is Code.CONFLICT
    assert sum(map(len, got)) < size


async def take(blocks: AsyncGenerator[bytes, None], got: list[bytes]) -> None:
    async for block in blocks:
        got += [block]


async def test_a_single_block_is_proven_before_its_first_byte() -> None:
    with pytest.raises(AMTPError):
        await anext(proven(given_as(b"lie"), 3, digest_of(b"yes")))
