"""Uploads of agents: stored block by block, hashed on the way, and found by a token that can't be guessed.

1. The row is written first and has no digest until the upload is complete. So a crash at any moment leaves a row that
   no message can refer to, and it is deleted like every other that no message refers to.
   From its first block on, an upload counts with the most it may become, and when complete with its real size.
2. Uploads that a message refers to are held in the message's own transaction, and released when the message goes.
3. A row is deleted before its file. A file without a row is a stray, and is deleted after the longest possible upload.
"""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from secrets import token_urlsafe
from typing import Any, Protocol
from uuid import UUID

from gateway.features.attachments.blocks import BLOCK_BYTES, in_blocks
from gateway.features.attachments.upload_files import UploadFiles
from gateway.features.attachments.upload_rows import UploadRows
from gateway.protocol.attachments import media_type_of
from gateway.protocol.errors import AMTPError, Code
from gateway.store.database import Database
from gateway.store.row_ids import Mint

TOKEN_BYTES = 32
AT_ONCE = 1000  # rows of one statement of the chore
DROPPED_AT_ONCE = 20  # uploads: each may have a thousand blocks in the database
UNUSED_HOURS = 24  # an upload stays without a message
BYTES_PER_SECOND_MIN = 32_768  # an uploader who is slower for long is let go
ABANDONED_HOURS = 1.0  # an upload that takes so much longer than that was left behind by a crash
RETRY_AFTER_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Upload:
    id: UUID
    token: str
    filename: str
    content_type: str
    place: str
    size: int
    digest: bytes

    @property
    def media_type(self) -> str:
        return media_type_of(self.content_type)


@dataclass(frozen=True, slots=True)
class Held:
    """A rider of a message: the upload stays as long as the message does."""

    message: UUID
    upload: UUID

    @staticmethod
    async def write(line: Any, riders: "Sequence[Held]", /) -> None:
        await line.execute(
            "with uses as (insert into attachment_uses (message, attachment)"
            "     select * from unnest($1::uuid[], $2::uuid[]))"
            " update attachments set used = true where id = any($2)",
            [held.message for held in riders],
            [held.upload for held in riders],
        )


class Shelf(Protocol):
    """A storage for the bytes of uploads."""

    @property
    def place(self) -> str: ...
    async def append(self, upload: UUID, number: int, block: bytes) -> None: ...
    async def seal(self, upload: UUID) -> None: ...
    def blocks(self, upload: UUID) -> AsyncGenerator[bytes, None]: ...
    async def drop(self, uploads: Collection[UUID]) -> None: ...


class Uploads:
    def __init__(
        self,
        database: Database,
        mint: Mint,
        files: UploadFiles,
        *,
        in_files: bool,
        unsent_bytes_max: int,
        total_bytes_max: int,
        room: Callable[[], bool],
    ) -> None:
        """Takes `in_files`: whether large uploads become files; those of one block are always in the database.

        One owner has at most `unsent_bytes_max` that no message refers to, and `total_bytes_max` in all.
        """
        self._database = database
        self._mint = mint
        self._files = files
        self._rows = UploadRows(database)
        self._large: Shelf = files if in_files else self._rows
        self._unsent_bytes_max = unsent_bytes_max
        self._total_bytes_max = total_bytes_max
        self._room = room

    async def keep(
        self, pieces: AsyncIterator[bytes], *, owner: str, filename: str, content_type: str, bytes_max: int
    ) -> Upload:
        """Stores an upload; returns when it is durable, and leaves nothing where that fails.

        Until it is complete it counts as `bytes_max`, which is also its limit.
        """
        async with aclosing(in_blocks(pieces)) as blocks:
            first = await anext(blocks, b"")
            large = len(first) == BLOCK_BYTES
            shelf = self._large if large else self._rows
            upload, token = await self._begin(
                owner, filename, content_type, shelf.place, bytes_max if large else len(first)
            )
            try:
                size, digest = await self._write(shelf, upload, first, blocks)
                await shelf.seal(upload)
                await self._finish(upload, size, digest)
            except BaseException:
                with suppress(AMTPError):  # what can't be cleared now is cleared by the chore
                    await self._remove([upload])
                    await shelf.drop([upload])
                raise
        return Upload(upload, token, filename, content_type, shelf.place, size, digest)

    async def _begin(
        self, owner: str, filename: str, content_type: str, place: str, size: int
    ) -> tuple[UUID, str]:
        """Inserts a new upload's row, which reserves `size` bytes of its owner's quota."""
        upload, token = self._mint(), token_urlsafe(TOKEN_BYTES)
        async with self._database.transaction() as connection:
            if not await connection.fetchval(_HAS_ROOM, owner, size, self._total_bytes_max):
                raise _too_much(
                    "Your uploads together",
                    self._total_bytes_max,
                    "wait until the messages that hold them go",
                )
            if not await connection.fetchval(
                _BEGIN, upload, token, owner, filename, content_type, place, size, self._unsent_bytes_max
            ):
                raise _too_much(
                    "Your uploads that no message refers to",
                    self._unsent_bytes_max,
                    f"send them, or wait until they go after {UNUSED_HOURS} hours",
                )
        return upload, token

    async def _write(
        self, shelf: Shelf, upload: UUID, first: bytes, others: AsyncIterator[bytes]
    ) -> tuple[int, bytes]:
        sha, size, number, block = hashlib.sha256(), 0, 0, first
        while block:
            if not self._room():
                raise no_room()
            sha.update(block)
            await shelf.append(upload, number, block)
            size, number, block = size + len(block), number + 1, await anext(others, b"")
        return size, sha.digest()

    async def _finish(self, upload: UUID, size: int, digest: bytes) -> None:
        done = await self._database.fetchval(
            "update attachments set size = $2, digest = $3 where id = $1 returning true", upload, size, digest
        )
        if not done:
            raise AMTPError(Code.TEMPORARY_FAILURE, "The upload took too long; send it again.")

    async def _remove(self, ids: Sequence[UUID]) -> None:
        await self._database.execute("delete from attachments where id = any($1)", ids)

    async def find(self, tokens: Collection[str]) -> dict[str, Upload]:
        """Returns the complete uploads among these tokens, by token."""
        rows = await self._database.fetch(
            "select id, token, filename, content_type, place, size, digest from attachments"
            " where token = any($1) and digest is not null",
            list(tokens),
        )
        return {row["token"]: Upload(*row) for row in rows}

    def blocks(self, upload: Upload) -> AsyncGenerator[bytes, None]:
        shelf: Shelf = self._files if upload.place == UploadFiles.place else self._rows
        return shelf.blocks(upload.id)

    async def clear(self, messages_days: int) -> None:
        """Runs one round: releases the uploads of deleted messages, and deletes those that no message refers to."""
        while await self._let_go(messages_days) == AT_ONCE:
            pass
        while await self._drop_unused() == DROPPED_AT_ONCE:
            pass

    async def _let_go(self, messages_days: int) -> int:
        """Releases uploads of messages that were deleted."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(
                "delete from attachment_uses where (message, attachment) in ("
                " select u.message, u.attachment from attachment_uses u"
                " where u.message < amtp_first_id(amtp_now() - make_interval(days => $1))"
                " and not exists (select from messages m where m.id = u.message)"
                " and not exists (select from schedules s where s.id = u.message and s.ended_at is null) limit $2)"
                " returning attachment",
                messages_days,
                AT_ONCE,
            )
            freed = sorted({row["attachment"] for row in rows})
            # A message that would hold one of these waits from here on; the next statement sees those that held one before.
            await connection.execute(
                "select from attachments where id = any($1) order by id for update", freed
            )
            await connection.execute(
                "update attachments a set used = false where id = any($1)"
                " and not exists (select from attachment_uses u where u.attachment = a.id)",
                freed,
            )
            return len(rows)

    async def _drop_unused(self) -> int:
        rows = await self._database.fetch(
            "delete from attachments where not used and id in (select id from attachments"
            " where not used and (id < amtp_first_id(amtp_now() - make_interval(hours => $1))"
            " or digest is null"
            " and id < amtp_first_id(amtp_now() - make_interval(secs => $3 + size / $4))) limit $2)"
            " returning id, place",
            UNUSED_HOURS,
            DROPPED_AT_ONCE,
            ABANDONED_HOURS * 3600,
            float(BYTES_PER_SECOND_MIN),
        )
        await self._files.drop([row["id"] for row in rows if row["place"] == UploadFiles.place])
        return len(rows)

    async def clear_strays(self) -> None:
        """Deletes files without a row. A file that is still being written has had its row from the start."""
        latest = await self._database.fetchval(
            "select amtp_first_id(amtp_now() - make_interval(hours => $1))", UNUSED_HOURS
        )
        strays = sorted(await self._files.strays(latest))
        for start in range(0, len(strays), AT_ONCE):
            some = strays[start : start + AT_ONCE]
            rows = await self._database.fetch("select id from attachments where id = any($1)", some)
            await self._files.drop(set(some) - {row["id"] for row in rows})


# Locks the owner's total until the upload has its row, so that uploads which begin side by side are counted one by one.
_HAS_ROOM = """
insert into upload_totals as t (owner, bytes) values ($1, 0)
on conflict (owner) do update set bytes = t.bytes
returning bytes + amtp_upload_cost($2) <= $3
"""

_BEGIN = """
insert into attachments (id, token, owner, filename, content_type, place, size)
select $1, $2, $3, $4, $5, $6, $7
where $8 >= amtp_upload_cost($7)
            + (select coalesce(sum(amtp_upload_cost(size)), 0) from attachments where owner = $3 and not used)
returning true
"""


def _too_much(what: str, bytes_max: int, remedy: str) -> AMTPError:
    return AMTPError(
        Code.RATE_LIMIT_EXCEEDED,
        f"{what} may hold {bytes_max} bytes, and with this one they would hold more: {remedy}. A large upload counts"
        " as the largest there may be until it ends, unless the header Content-Length tells its size.",
        {"limit": bytes_max},
        retry_after=RETRY_AFTER_SECONDS,
    )


def no_room() -> AMTPError:
    return AMTPError(
        Code.TEMPORARY_FAILURE, "The gateway's disk is nearly full; try again later.", retry_after=60
    )
