"""The cache of files fetched from elsewhere, as large as the configuration allows.

A file is found by URL and hash together: knowing a hash alone gives access to nothing that others fetched.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from secrets import token_hex
from time import time

from gateway.features.attachments.blocks import BLOCK_BYTES, proven
from gateway.features.attachments.upload_files import disk_trouble
from gateway.protocol.attachments import Attachment
from gateway.protocol.errors import AMTPError

PART = ".part"  # the end of the name of what is still on its way
PART_SECONDS_MAX = 86_400  # one that is older was left behind by a crash


class FetchedFiles:
    def __init__(self, folder: Path, bytes_max: int, room: Callable[[], bool]) -> None:
        """Takes the folder and its size limit; keeps nothing where that is 0 bytes or the disk has no room."""
        self._folder = folder
        self._bytes_max = bytes_max
        self._room = room
        self._coming = 0  # bytes of files on their way

    async def find(self, attachment: Attachment) -> AsyncGenerator[bytes, None] | None:
        path = self._path(attachment)
        if not self._bytes_max or not await asyncio.to_thread(_touch, path):
            return None
        return self._kept(path, attachment)

    async def _kept(self, path: Path, attachment: Attachment) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(proven(_read(path), attachment.size, attachment.digest)) as blocks:
                async for block in blocks:
                    yield block
        except AMTPError:  # the disk forgot
            await asyncio.to_thread(path.unlink, missing_ok=True)
            raise

    def keep(
        self, attachment: Attachment, blocks: AsyncGenerator[bytes, None]
    ) -> AsyncGenerator[bytes, None]:
        """Yields the same blocks, which are verified, and keeps the file after the last one if there is room."""
        if self._coming + attachment.size > self._bytes_max or not self._room():
            return blocks
        return self._keeping(attachment, blocks)

    async def _keeping(
        self, attachment: Attachment, blocks: AsyncGenerator[bytes, None]
    ) -> AsyncGenerator[bytes, None]:
        part, left = self._folder / f"{token_hex(16)}{PART}", attachment.size
        self._coming += attachment.size
        try:
            async with aclosing(blocks):
                async for block in blocks:
                    left -= len(block)
                    with suppress(OSError):  # on a full disk the file is still read, only not kept
                        await asyncio.to_thread(_append, part, block)
                        if not left:
                            await asyncio.to_thread(
                                self._settle, part, self._path(attachment), attachment.size
                            )
                    yield block
        finally:
            self._coming -= attachment.size
            with suppress(OSError):
                part.unlink()

    def _settle(self, part: Path, path: Path, size: int) -> None:
        """Gives the file its final name, and makes room: the least recently read goes first."""
        if part.stat().st_size != size:  # a write failed on the way
            return
        part.rename(path)
        kept = sorted(self._folder.iterdir(), key=lambda each: each.stat().st_mtime, reverse=True)
        room = self._bytes_max
        for each in kept:
            if each.name.endswith(PART) and time() - each.stat().st_mtime < PART_SECONDS_MAX:
                continue
            room -= each.stat().st_size
            if room < 0:
                each.unlink(missing_ok=True)

    def _path(self, attachment: Attachment) -> Path:
        return self._folder / hashlib.sha256(attachment.digest + attachment.url.encode()).hexdigest()


async def _read(path: Path) -> AsyncGenerator[bytes, None]:
    with disk_trouble("is gone"):
        file = await asyncio.to_thread(open, path, "rb", 0)
    try:
        while block := await asyncio.to_thread(file.read, BLOCK_BYTES):
            yield block
    finally:
        file.close()


def _touch(path: Path) -> bool:
    """Marks the file as read now; returns whether it exists."""
    try:
        os.utime(path)
    except OSError:
        return False
    return True


def _append(path: Path, block: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(block)
