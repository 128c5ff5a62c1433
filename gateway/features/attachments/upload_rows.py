"""Uploads stored in the database, a row for each block: for gateways that share a database but no disk."""

from collections.abc import AsyncGenerator, Collection
from uuid import UUID

from gateway.store.database import Database


class UploadRows:
    place = "database"

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, upload: UUID, number: int, block: bytes) -> None:
        await self._database.execute(
            "insert into attachment_chunks (attachment, number, bytes) values ($1, $2, $3)",
            upload,
            number,
            block,
        )

    async def seal(self, upload: UUID) -> None:
        """Does nothing: each block is committed already."""

    async def blocks(self, upload: UUID) -> AsyncGenerator[bytes, None]:
        number = 0
        while block := await self._database.fetchval(
            "select bytes from attachment_chunks where attachment = $1 and number = $2", upload, number
        ):
            yield block
            number += 1

    async def drop(self, uploads: Collection[UUID]) -> None:
        """Does nothing: the blocks were deleted with the row of the upload."""
