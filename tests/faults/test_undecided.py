"""COMMIT was sent and the line broke: the batch is decided by its tally, and nobody hears anything wrong."""

import asyncio
from collections import Counter

import pytest

from gateway.store.database import Database
from gateway.store.tallies import balance, unaccounted_entries
from tests.faults.cut_line import CutLine, Fate
from tests.faults.watching import PATIENCE_SECONDS, SOMEBODY_WAITS, until
from tests.world import World

MESSAGES = 20


async def in_balance(database: Database) -> bool:
    return (await balance(database)).unaccounted == 0 and await unaccounted_entries(database) == 0


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.DONE])
async def test_a_batch_of_one_statement_in_doubt_is_decided_too(world: World, dsn: str, fate: Fate) -> None:
    async with CutLine.before(dsn) as line, world.gateway(dsn=line.dsn) as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        earlier = (await alice.send(bob.address)).json["message_id"]
        line.arm(fate)
        replies = await asyncio.gather(*(alice.send(bob.address) for _ in range(MESSAGES)))
        assert line.met == [fate]
        assert {reply.status for reply in replies} == {202}
        found = Counter(message["message_id"] for message in await bob.inbox("?limit=1000"))
        assert found == Counter([earlier, *(reply.json["message_id"] for reply in replies)])
        assert await in_balance(gateway.app.database)


async def test_a_statement_that_arrives_after_its_batch_was_given_up_comes_to_nothing(
    world: World, dsn: str
) -> None:
    async with CutLine.before(dsn) as line, world.gateway(dsn=line.dsn) as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        earlier = (await alice.send(bob.address)).json["message_id"]
        line.arm(Fate.LATE)
        reply = await alice.send(bob.address)
        assert reply.status == 202
        line.release()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not line.met:
                await asyncio.sleep(0.01)
        found = Counter(message["message_id"] for message in await bob.inbox("?limit=1000"))
        assert found == Counter([earlier, reply.json["message_id"]])
        assert await in_balance(gateway.app.database)


@pytest.mark.parametrize("fate", Fate)
async def test_a_batch_in_doubt_is_decided_and_everyone_in_it_hears_the_truth(
    world: World, dsn: str, fate: Fate
) -> None:
    async with CutLine.before(dsn) as line, world.gateway(dsn=line.dsn) as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        earlier = (await alice.send(bob.address, idempotency_key="earlier")).json["message_id"]
        line.arm(fate)
        new = [
            asyncio.ensure_future(alice.send(bob.address, idempotency_key=f"new-{number}"))
            for number in range(MESSAGES)
        ]
        again = asyncio.ensure_future(alice.send(bob.address, idempotency_key="earlier"))
        if fate.hangs:
            await until(dsn, SOMEBODY_WAITS)
            line.release()
        replies = await asyncio.gather(*new, again)
        assert line.met == [fate]
        assert {reply.status for reply in replies} == {202}
        ids = [reply.json["message_id"] for reply in replies]
        assert ids[-1] == earlier
        found = Counter(message["message_id"] for message in await bob.inbox("?limit=1000"))
        assert found == Counter(ids)
        assert await in_balance(gateway.app.database)


async def test_what_could_not_be_decided_in_time_is_refused_and_sent_again_without_a_double(
    world: World, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.intake.intake.UNDECIDED_SECONDS_MAX", 0.0)
    async with CutLine.before(dsn) as line, world.gateway(dsn=line.dsn) as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        line.arm(Fate.DONE)
        line.down = True  # for new connections
        reply = await alice.send(bob.address, idempotency_key="k")
        assert (reply.status, reply.code) == (503, "TEMPORARY_FAILURE")
        assert reply.headers["retry-after"]
        line.down = False
        again = await alice.send(bob.address, idempotency_key="k")
        assert again.status == 202
        (message,) = await bob.inbox()
        assert message["message_id"] == again.json["message_id"]
