"""Uploads: kept whole or not at all, and let go when nobody needs them."""

import asyncio
import hashlib
import tracemalloc
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from gateway.features.attachments.blocks import BLOCK_BYTES
from gateway.features.attachments.upload_files import UploadFiles
from gateway.features.attachments.uploads import ABANDONED_HOURS, UNUSED_HOURS, Held, Upload, Uploads
from gateway.protocol.errors import AMTPError, Code
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.row_ids import Mint

SMALL = b"small"
LARGE = bytes(range(256)) * (5 * BLOCK_BYTES // 512)  # two blocks and a half
DAYS = 30
ALICES: Any = {
    "owner": "alice@acme.test",
    "filename": "a.bin",
    "content_type": "x/y",
    "bytes_max": 10**8,
}
EITHER = pytest.mark.parametrize("in_files", [True, False], ids=["files", "rows"])


async def pieces_of(content: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(content), 100_000):
        yield content[start : start + 100_000]


async def breaking_off(content: bytes) -> AsyncGenerator[bytes, None]:
    async for piece in pieces_of(content):
        yield piece
    raise ConnectionResetError


@dataclass
class Store:
    """Uploads of one gateway, and what is left of them where they lie."""

    database: Database
    mint: Mint
    clock: Clock
    folder: Path

    def uploads(
        self, *, in_files: bool = True, unsent: int = 10**9, total: int = 10**9, room: bool = True
    ) -> Uploads:
        return Uploads(
            self.database,
            self.mint,
            UploadFiles(self.folder),
            in_files=in_files,
            unsent_bytes_max=unsent,
            total_bytes_max=total,
            room=lambda: room,
        )

    async def keep(self, content: bytes, *, in_files: bool = True) -> Upload:
        return await self.uploads(in_files=in_files).keep(pieces_of(content), **ALICES)

    async def read(self, upload: Upload) -> bytes:
        return b"".join([block async for block in self.uploads().blocks(upload)])

    async def left(self) -> tuple[int, int, int]:
        """Rows, blocks and files."""
        rows = await self.database.fetchval("select count(*) from attachments")
        blocks = await self.database.fetchval("select count(*) from attachment_chunks")
        return rows, blocks, len(list(self.folder.iterdir())) if self.folder.exists() else 0

    async def message(self) -> UUID:
        row = self.mint()
        await self.database.execute(
            "insert into messages (id, sender, proven, body, accepted_at)"
            " values ($1, 'alice@acme.test', true, '', amtp_now())",
            row,
        )
        return row

    async def hold(self, message: UUID, *uploads: Upload) -> None:
        async with self.database.transaction() as line:
            await Held.write(line, [Held(message, upload.id) for upload in uploads])

    async def turn(self, hours: float) -> None:
        self.clock.offset += timedelta(hours=hours)
        await self.uploads().clear(DAYS)
        await self.uploads().clear_strays()


@pytest.fixture
async def second(dsn: str, clock: Clock) -> AsyncGenerator[Database, None]:
    """The same database, as another process reaches it."""
    database = Database(dsn, clock=clock)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
def store(database: Database, mint: Mint, clock: Clock, tmp_path: Path) -> Store:
    return Store(database, mint, clock, tmp_path / "attachments")


@EITHER
@pytest.mark.parametrize("content", [b"", SMALL, LARGE[:BLOCK_BYTES], LARGE], ids=len)
async def test_an_upload_is_found_by_its_token_and_read_as_it_came(
    store: Store, content: bytes, in_files: bool
) -> None:
    upload = await store.keep(content, in_files=in_files)
    assert (upload.size, upload.digest) == (len(content), hashlib.sha256(content).digest())
    assert await store.uploads().find([upload.token, "another"]) == {upload.token: upload}
    assert await store.read(upload) == content


async def test_large_ones_lie_in_files_where_there_is_a_disk_and_small_ones_never(store: Store) -> None:
    await store.keep(SMALL)
    assert await store.left() == (1, 1, 0)
    await store.keep(LARGE)
    assert await store.left() == (2, 1, 1)
    await store.keep(LARGE, in_files=False)
    assert await store.left() == (3, 4, 1)


async def test_tokens_can_not_be_guessed_from_one_another(store: Store) -> None:
    tokens = {(await store.keep(SMALL)).token for _ in range(5)}
    assert len({token[:8] for token in tokens}) == 5
    assert all(len(token) == 43 for token in tokens)


@EITHER
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
async def test_an_upload_that_breaks_off_leaves_nothing(store: Store, content: bytes, in_files: bool) -> None:
    with pytest.raises(ConnectionResetError):
        await store.uploads(in_files=in_files).keep(breaking_off(content), **ALICES)
    assert await store.left() == (0, 0, 0)


@EITHER
async def test_an_upload_is_not_found_before_its_last_byte_is_kept(store: Store, in_files: bool) -> None:
    found = []

    async def looking() -> AsyncGenerator[bytes, None]:
        async for piece in pieces_of(LARGE):
            yield piece
            tokens = [row["token"] for row in await store.database.fetch("select token from attachments")]
            found.append((len(tokens), await store.uploads().find(tokens)))

    await store.uploads(in_files=in_files).keep(looking(), **ALICES)
    assert found[-1] == (1, {})


async def test_a_disk_that_is_nearly_full_takes_nothing(store: Store) -> None:
    with pytest.raises(AMTPError) as refusal:
        await store.uploads(room=False).keep(pieces_of(LARGE), **ALICES)
    assert (refusal.value.status, refusal.value.retry_after) == (503, 60)
    assert await store.left() == (0, 0, 0)


async def test_a_disk_that_fails_on_the_way_is_told_as_temporary(store: Store) -> None:
    store.folder.write_text("no folder")
    with pytest.raises(AMTPError) as refusal:
        await store.keep(LARGE)
    assert refusal.value.code is Code.TEMPORARY_FAILURE
    assert await store.database.fetchval("select count(*) from attachments") == 0


async def refused(keeping: Awaitable[Upload]) -> bool:
    """Whether there is no room for it in what its owner may have."""
    try:
        await keeping
    except AMTPError as refusal:
        return refusal.code is Code.RATE_LIMIT_EXCEEDED
    return False


async def test_an_agent_has_so_much_that_it_never_sent(store: Store) -> None:
    uploads = store.uploads(unsent=len(LARGE))
    first = await uploads.keep(pieces_of(LARGE), **ALICES | {"bytes_max": len(LARGE)})
    assert await refused(uploads.keep(pieces_of(SMALL), **ALICES))
    await uploads.keep(pieces_of(SMALL), **ALICES | {"owner": "bob@acme.test"})
    await store.hold(await store.message(), first)
    await uploads.keep(pieces_of(SMALL), **ALICES)


async def test_an_agent_has_so_much_in_all_until_the_messages_go_that_hold_it(store: Store) -> None:
    uploads = store.uploads(total=2 * len(LARGE))
    about = ALICES | {"bytes_max": len(LARGE)}
    message = await store.message()
    for _ in range(2):
        await store.hold(message, await uploads.keep(pieces_of(LARGE), **about))
    assert await refused(uploads.keep(pieces_of(SMALL), **about))
    await uploads.keep(pieces_of(SMALL), **about | {"owner": "bob@acme.test"})
    await store.database.execute("delete from messages where id = $1", message)
    await store.turn((DAYS + 2) * 24)
    await uploads.keep(pieces_of(LARGE), **about)


@pytest.mark.parametrize("quota", ["unsent", "total"])
async def test_uploads_that_come_side_by_side_pass_no_limit_together(
    store: Store, second: Database, quota: str
) -> None:
    """At two gateways on one database, all of them begun before one has ended."""
    go = asyncio.Event()

    async def waiting() -> AsyncGenerator[bytes, None]:
        yield LARGE[:BLOCK_BYTES]
        await go.wait()
        yield LARGE[BLOCK_BYTES:]

    limits: Any = {quota: 3 * len(LARGE)}
    houses = [store.uploads(**limits), replace(store, database=second).uploads(**limits)]
    about = ALICES | {"bytes_max": len(LARGE)}
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        keeping = [group.create_task(refused(house.keep(waiting(), **about))) for house in houses * 4]
        first = [await done for done in islice(asyncio.as_completed(keeping), 5)]
        go.set()
    assert first == [True] * 5
    assert sum(task.result() for task in keeping) == 5


async def test_an_upload_of_unknown_size_counts_as_the_largest_there_may_be_until_it_ends(
    store: Store,
) -> None:
    inner = []

    async def looking() -> AsyncGenerator[bytes, None]:
        async for piece in pieces_of(LARGE):
            yield piece
        inner.append(await refused(uploads.keep(pieces_of(SMALL), **ALICES)))

    uploads = store.uploads(unsent=2 * len(LARGE))
    await uploads.keep(looking(), **ALICES | {"bytes_max": 2 * len(LARGE)})
    assert inner == [True]
    await uploads.keep(pieces_of(SMALL), **ALICES)


async def test_what_a_crash_left_unfinished_counts_no_longer_than_an_upload_may_take(store: Store) -> None:
    await store.database.execute(
        "insert into attachments (id, token, owner, filename, content_type, place, size)"
        " values ($1, 't', 'alice@acme.test', 'a', 'x/y', 'file', $2)",
        store.mint(),
        len(LARGE),
    )
    uploads = store.uploads(total=len(LARGE))
    await store.turn(ABANDONED_HOURS / 2)
    assert await refused(uploads.keep(pieces_of(SMALL), **ALICES))
    await store.turn(ABANDONED_HOURS)
    await uploads.keep(pieces_of(SMALL), **ALICES)


async def test_even_an_empty_upload_counts(store: Store) -> None:
    uploads = store.uploads(unsent=2 * 4096)
    kept = [await refused(uploads.keep(pieces_of(b""), **ALICES)) for _ in range(3)]
    assert kept == [False, False, True]


@EITHER
async def test_what_no_message_refers_to_goes_within_a_day(store: Store, in_files: bool) -> None:
    await store.keep(LARGE, in_files=in_files)
    await store.turn(UNUSED_HOURS - 1)
    assert (await store.left())[0] == 1
    await store.turn(2)
    assert await store.left() == (0, 0, 0)


@EITHER
async def test_what_a_message_refers_to_stays_as_long_as_the_message(store: Store, in_files: bool) -> None:
    upload = await store.keep(LARGE, in_files=in_files)
    first, second = await store.message(), await store.message()
    await store.hold(first, upload)
    await store.hold(second, upload)
    await store.turn((DAYS + 2) * 24)
    assert await store.read(upload) == LARGE
    await store.database.execute("delete from messages where id = $1", first)
    await store.turn(1)
    assert await store.read(upload) == LARGE
    await store.database.execute("delete from messages where id = $1", second)
    await store.turn(1)
    assert await store.left() == (0, 0, 0)
    assert await store.database.fetchval("select count(*) from attachment_uses") == 0


async def test_what_a_message_that_repeats_refers_to_stays_until_that_ends(store: Store) -> None:
    upload, schedule = await store.keep(SMALL), store.mint()
    await store.database.execute(
        "with a as (insert into agents (local, domain, created_at)"
        " values ('alice', 'acme.test', amtp_now()) returning id)"
        " insert into schedules (id, agent, repeat, body, created_at, next_at)"
        " select $1, id, '0 0 1 1 *', '', amtp_now(), amtp_now() from a",
        schedule,
    )
    await store.hold(schedule, upload)
    await store.turn(400 * 24)
    assert await store.read(upload) == SMALL
    await store.database.execute("update schedules set next_at = null, ended_at = amtp_now()")
    await store.turn(1)
    assert await store.left() == (0, 0, 0)


async def test_a_message_can_not_hold_what_has_gone(store: Store) -> None:
    upload = await store.keep(SMALL)
    await store.turn(UNUSED_HOURS + 1)
    with pytest.raises(Exception, match="foreign key"):
        await store.hold(await store.message(), upload)


async def test_whoever_takes_hold_of_an_upload_while_it_is_let_go_keeps_it(store: Store) -> None:
    upload = await store.keep(SMALL)
    message = await store.message()
    store.clock.offset += timedelta(hours=UNUSED_HOURS + 1)
    async with store.database.transaction() as line:
        await Held.write(line, [Held(message, upload.id)])
        clearing = asyncio.create_task(store.uploads().clear(DAYS))
        while not await store.database.fetchval(
            "select count(*) from pg_stat_activity where datname = current_database()"
            " and wait_event_type = 'Lock'"
        ):
            assert not clearing.done()
    await clearing
    assert await store.read(upload) == SMALL


async def test_a_crash_between_the_file_and_its_row_leaves_nothing_for_long(store: Store) -> None:
    """Before the row is whole; after the row is gone. Files of uploads still on their way stay."""
    files = UploadFiles(store.folder)
    unfinished, stray = store.mint(), store.mint()
    await store.database.execute(
        "insert into attachments (id, token, owner, filename, content_type, place)"
        " values ($1, 't', 'a@b', 'a', 'x/y', 'file')",
        unfinished,
    )
    for upload in (unfinished, stray):
        await files.append(upload, 0, LARGE)
    await store.turn(ABANDONED_HOURS / 2)
    assert (await store.left())[2] == 2
    await store.turn(UNUSED_HOURS - ABANDONED_HOURS)
    assert (await store.left())[2] == 1
    young = store.mint()
    await files.append(young, 0, SMALL)
    await store.turn(2)
    assert [path.name for path in store.folder.iterdir()] == [str(young)]


async def test_a_file_that_lies_on_another_gateways_disk_is_told_of_as_temporary(
    store: Store, tmp_path: Path
) -> None:
    upload = await store.keep(LARGE)
    store.folder = tmp_path / "elsewhere"
    with pytest.raises(AMTPError, match="not on the disk of this gateway") as refusal:
        await store.read(upload)
    assert refusal.value.status == 503


async def test_a_file_of_ours_is_for_nobody_else_and_never_follows_a_link(store: Store) -> None:
    await store.keep(LARGE)
    (file,) = store.folder.iterdir()
    assert (file.stat().st_mode & 0o777, store.folder.stat().st_mode & 0o777) == (0o600, 0o700)
    victim, upload = store.folder.parent / "victim", store.mint()
    (store.folder / str(upload)).symlink_to(victim)
    with pytest.raises(AMTPError):
        await UploadFiles(store.folder).append(upload, 0, SMALL)
    assert not victim.exists()


@EITHER
async def test_memory_holds_a_few_blocks_of_an_upload_whatever_its_size(store: Store, in_files: bool) -> None:
    piece = b"x" * 65_536
    size = 32 * 1024 * 1024

    async def many() -> AsyncGenerator[bytes, None]:
        for _ in range(size // len(piece)):
            yield piece

    tracemalloc.start()
    upload = await store.uploads(in_files=in_files).keep(many(), **ALICES)
    async for block in store.uploads().blocks(upload):
        assert len(block) <= BLOCK_BYTES
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert upload.size == size
    assert peak < 10 * BLOCK_BYTES
