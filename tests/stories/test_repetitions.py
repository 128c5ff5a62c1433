"""Senders that repeat themselves: many at once, with something new among it, and days later."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.store.clock import Clock
from tests.world import World

DAY = 86_400


async def test_a_storm_of_repetitions_is_answered_together(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        keys = [f"order-{number}" for number in range(100)]
        first = await asyncio.gather(*(alice.send(bob.address, idempotency_key=key) for key in keys))
        database, lent = gateway.app.database, 0
        connection = database.connection

        @asynccontextmanager
        async def counted() -> AsyncIterator[Any]:
            nonlocal lent
            lent += 1
            async with connection() as borrowed:
                yield borrowed

        monkeypatch.setattr(database, "connection", counted)
        again = await asyncio.gather(*(alice.send(bob.address, idempotency_key=key) for key in keys))
        assert lent < len(keys)  # one by one each takes three at least
        assert [reply.status for reply in again] == [202] * len(keys)
        assert [reply.json["message_id"] for reply in again] == [reply.json["message_id"] for reply in first]
        assert [reply.json["status"] for reply in again] == ["delivered"] * len(keys)
        monkeypatch.undo()
        assert len(await bob.inbox("?limit=1000")) == len(keys)


async def test_beside_repetitions_new_recipients_and_conflicts_are_told_apart(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        carol = await gateway.register("carol")
        for key in ("one", "two", "three"):
            await alice.send(bob.address, idempotency_key=key)
        same, more, other, new = await asyncio.gather(
            alice.send(bob.address, idempotency_key="one"),
            alice.send(bob.address, carol.address, idempotency_key="two"),
            alice.send(bob.address, idempotency_key="three", payload={"n": 2}),
            alice.send(bob.address, idempotency_key="four"),
        )
        assert (same.status, more.status, new.status) == (202, 202, 202)
        assert other.code == "IDEMPOTENCY_CONFLICT"
        assert len(await bob.inbox()) == 4
        assert [item["message_id"] for item in await carol.inbox()] == [more.json["message_id"]]


async def test_what_was_acknowledged_a_week_ago_does_not_come_again(world: World) -> None:
    async with world.gateway(clock=Clock()) as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        first = await alice.send(bob.address, idempotency_key="order-1")
        path = f"/v1/inbox/{bob.address}/{first.json['message_id']}"
        assert (await gateway.call("DELETE", path, key=bob.key)).status == 200
        gateway.turn(8 * DAY)
        await gateway.app.housekeeping.once()
        again = await alice.send(bob.address, idempotency_key="order-1")
        assert (again.status, again.json["message_id"]) == (202, first.json["message_id"])
        assert await bob.inbox() == []
        assert (await alice.status(first.json["message_id"]))["status"] == "delivered"
