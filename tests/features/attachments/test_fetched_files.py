"""Fetched files that are kept: proven again, by URL and hash, and within their room."""

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from gateway.features.attachments.blocks import BLOCK_BYTES, in_blocks
from gateway.features.attachments.fetched_files import FetchedFiles
from gateway.protocol.attachments import Attachment
from gateway.protocol.errors import AMTPError

LARGE = b"large" * BLOCK_BYTES
ROOM = 10_000_000


def room() -> bool:
    return True


def attachment_of(content: bytes, url: str = "https://files.b.test/a") -> Attachment:
    return Attachment("a.bin", "x/y", len(content), hashlib.sha256(content).digest(), url)


async def coming(content: bytes) -> AsyncGenerator[bytes, None]:
    yield content


async def blocks_of(content: bytes) -> AsyncGenerator[bytes, None]:
    async for block in in_blocks(coming(content)):
        yield block


async def fetch(files: FetchedFiles, attachment: Attachment, content: bytes) -> bytes:
    return b"".join([block async for block in files.keep(attachment, blocks_of(content))])


async def kept(files: FetchedFiles, attachment: Attachment) -> bytes | None:
    found = await files.find(attachment)
    return None if found is None else b"".join([block async for block in found])


def sizes_in(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.iterdir()]


def spoil(folder: Path) -> None:
    for path in folder.iterdir():
        path.write_bytes(LARGE[:-1] + b"!")


@pytest.mark.parametrize("content", [b"x", LARGE], ids=["small", "large"])
async def test_what_was_fetched_is_found_again(tmp_path: Path, content: bytes) -> None:
    files, attachment = FetchedFiles(tmp_path, ROOM, room), attachment_of(content)
    assert await kept(files, attachment) is None
    assert await fetch(files, attachment, content) == content
    assert await kept(files, attachment) == content


async def test_another_url_or_hash_finds_nothing(tmp_path: Path) -> None:
    files = FetchedFiles(tmp_path, ROOM, room)
    await fetch(files, attachment_of(LARGE), LARGE)
    assert await kept(files, attachment_of(LARGE, "https://files.b.test/b")) is None
    assert await kept(files, attachment_of(b"other")) is None


async def test_without_room_nothing_is_kept(tmp_path: Path) -> None:
    files = FetchedFiles(tmp_path / "none", 0, room)
    assert await fetch(files, attachment_of(LARGE), LARGE) == LARGE
    assert await kept(files, attachment_of(LARGE)) is None
    assert not (tmp_path / "none").exists()


async def test_on_a_disk_that_is_nearly_full_nothing_is_kept(tmp_path: Path) -> None:
    files = FetchedFiles(tmp_path, ROOM, lambda: False)
    assert await fetch(files, attachment_of(LARGE), LARGE) == LARGE
    assert sizes_in(tmp_path) == []


async def test_the_room_is_kept_and_what_was_read_longest_ago_goes_first(tmp_path: Path) -> None:
    files = FetchedFiles(tmp_path, 250, room)
    letters = {letter: attachment_of(letter * 100) for letter in (b"a", b"b", b"c")}
    for letter in (b"a", b"b"):
        await fetch(files, letters[letter], letter * 100)
    assert await kept(files, letters[b"a"]) == b"a" * 100
    await fetch(files, letters[b"c"], b"c" * 100)
    assert [await kept(files, each) for each in letters.values()] == [b"a" * 100, None, b"c" * 100]
    assert sum(sizes_in(tmp_path)) <= 250


async def test_a_file_larger_than_the_room_passes_and_is_not_kept(tmp_path: Path) -> None:
    files = FetchedFiles(tmp_path, 250, room)
    assert await fetch(files, attachment_of(LARGE), LARGE) == LARGE
    assert sizes_in(tmp_path) == []


async def test_a_reader_who_leaves_early_leaves_nothing_behind(tmp_path: Path) -> None:
    files = FetchedFiles(tmp_path, ROOM, room)
    async with aclosing(files.keep(attachment_of(LARGE), blocks_of(LARGE))) as blocks:
        await anext(blocks)
    assert sizes_in(tmp_path) == []
    assert await fetch(files, attachment_of(b"x" * ROOM), b"x" * ROOM)
    assert await kept(files, attachment_of(b"x" * ROOM)) is not None


async def test_what_the_disk_has_changed_is_not_handed_out_and_goes(tmp_path: Path) -> None:
    files, attachment = FetchedFiles(tmp_path, ROOM, room), attachment_of(LARGE)
    await fetch(files, attachment, LARGE)
    spoil(tmp_path)
    with pytest.raises(AMTPError):
        await kept(files, attachment)
    assert await kept(files, attachment) is None


async def test_a_full_disk_keeps_nobody_from_reading(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    files = FetchedFiles(tmp_path / "file", ROOM, room)
    assert await fetch(files, attachment_of(LARGE), LARGE) == LARGE
