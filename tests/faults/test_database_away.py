"""A database that is busy, slow or read-only: senders are told to come back, and then all goes on."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest

from gateway.config.sections import DatabaseSettings as DatabaseSettings
from tests.faults.watching import PATIENCE_SECONDS
from tests.world import Agent, Reply, World

MESSAGES = 20


async def send_all(sender: Agent, recipient: Agent) -> Sequence[Reply]:
    """The same messages each time, under keys of their own."""
    return await asyncio.gather(
        *(sender.send(recipient.address, idempotency_key=f"k-{n}") for n in range(MESSAGES))
    )


def told_to_come_back(replies: Sequence[Reply]) -> bool:
    assert all(int(reply.headers["retry-after"]) > 0 for reply in replies)
    return {(reply.status, reply.code) for reply in replies} == {(503, "TEMPORARY_FAILURE")}


async def prove_recovery(sender: Agent, recipient: Agent) -> None:
    """Soon every message is accepted, and each is there once."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        replies = await send_all(sender, recipient)
        while any(reply.status == 503 for reply in replies):
            replies = await send_all(sender, recipient)
    assert {reply.status for reply in replies} == {202}
    found = [message["message_id"] for message in await recipient.inbox("?limit=1000")]
    assert sorted(found) == sorted(reply.json["message_id"] for reply in replies)


async def administer(dsn: str, *statements: str) -> None:
    """Beside the gateway, and whatever is forbidden to it."""
    connection = await asyncpg.connect(dsn, server_settings={"default_transaction_read_only": "off"})
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


CUT = (
    "select pg_terminate_backend(pid) from pg_stat_activity"
    " where datname = current_database() and pid <> pg_backend_pid()"
)


@asynccontextmanager
async def locked(dsn: str, table: str) -> AsyncIterator[None]:
    """Nobody writes to the table while the block lasts."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute(f"lock table {table} in share mode")
            yield
    finally:
        await connection.close()


async def test_a_read_only_database_means_come_back_until_it_is_writable_again(
    world: World, dsn: str
) -> None:
    name = dsn.split("///")[1].split("?")[0]
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        await administer(dsn, f"alter database {name} set default_transaction_read_only = on", CUT)
        assert told_to_come_back(await send_all(alice, bob))
        assert told_to_come_back(await send_all(alice, bob))
        assert await gateway.app.database.fetchval("select count(*) from messages") == 0
        await administer(dsn, f"alter database {name} reset default_transaction_read_only", CUT)
        await prove_recovery(alice, bob)


async def test_a_store_that_takes_too_long_means_come_back_and_nothing_is_there_twice(
    world: World, dsn: str
) -> None:
    async with world.gateway(database=DatabaseSettings(statement_timeout_seconds=1)) as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        async with locked(dsn, "messages"):
            assert told_to_come_back(await send_all(alice, bob))
        await prove_recovery(alice, bob)


async def test_an_exhausted_pool_means_come_back_and_an_inbox_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        async with AsyncExitStack() as held:
            for _ in range(gateway.app.config.database.pool_size):
                await held.enter_async_context(gateway.app.database.connection())
            monkeypatch.setattr("gateway.store.database.ACQUIRE_SECONDS_MAX", 0.1)
            reads = [gateway.call("GET", f"/v1/inbox/{bob.address}", key=bob.key) for _ in range(MESSAGES)]
            assert told_to_come_back(await asyncio.gather(*reads))
            assert {reply.status for reply in await send_all(alice, bob)} <= {202, 503}
        await prove_recovery(alice, bob)
