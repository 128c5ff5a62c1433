"""Uploads stored as files in a folder, named by their id: no text of a sender becomes part of a file name.

A file is on disk before its row says that it is complete, and is deleted after its row. A crash leaves at most a file
without a row, which `strays` finds.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from gateway.features.attachments.blocks import BLOCK_BYTES
from gateway.protocol.errors import AMTPError, Code

RETRY_AFTER_SECONDS = 60
WRITE = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class UploadFiles:
    place = "file"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def append(self, upload: UUID, number: int, block: bytes) -> None:
        """Appends a block; the first one creates the file, and no existing file is overwritten."""
        await self._on_disk(lambda: _append(self._path(upload), block, begins=number == 0))

    async def seal(self, upload: UUID) -> None:
        """Returns when file and name are synced to disk."""
        await self._on_disk(lambda: _sync(self._path(upload), self._folder))

    async def blocks(self, upload: UUID) -> AsyncGenerator[bytes, None]:
        with disk_trouble("is not on the disk of this gateway"):
            file = await asyncio.to_thread(open, self._path(upload), "rb", 0)
        try:
            while True:
                with disk_trouble("can't be read"):
                    block = await asyncio.to_thread(file.read, BLOCK_BYTES)
                if not block:
                    return
                yield block
        finally:
            file.close()

    async def drop(self, uploads: Collection[UUID]) -> None:
        await self._on_disk(lambda: _unlink([self._path(upload) for upload in uploads]))

    async def strays(self, latest: UUID) -> list[UUID]:
        """Returns the files that were begun before `latest`."""
        return await asyncio.to_thread(lambda: _names_before(self._folder, latest))

    async def _on_disk(self, act: Callable[[], None]) -> None:
        with disk_trouble("can't be kept"):
            await asyncio.to_thread(act)

    def _path(self, upload: UUID) -> Path:
        return self._folder / str(upload)


@contextmanager
def disk_trouble(what: str) -> Iterator[None]:
    """Turns disk errors into our own."""
    try:
        yield
    except OSError as error:
        raise AMTPError(
            Code.TEMPORARY_FAILURE,
            f"The file {what} at the moment; try again later.",
            retry_after=RETRY_AFTER_SECONDS,
        ) from error


def _append(path: Path, block: bytes, *, begins: bool) -> None:
    if begins:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    end = os.open(path, WRITE | (os.O_CREAT | os.O_EXCL if begins else 0), 0o600)
    try:
        rest = memoryview(block)
        while rest:
            rest = rest[os.write(end, rest) :]
    finally:
        os.close(end)


def _sync(*paths: Path) -> None:
    for path in paths:
        end = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(end)
        finally:
            os.close(end)


def _unlink(paths: Collection[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _names_before(folder: Path, latest: UUID) -> list[UUID]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = [UUID(entry.name) for entry in entries if _is_id(entry.name)]
    return [name for name in names if name < latest]


def _is_id(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False
