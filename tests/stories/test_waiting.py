"""Agents that ask and wait for the answer with the request that asks."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import asyncpg
import pytest

from conformance.fake_peer import answers
from gateway.admit.api_key import mint_key
from gateway.config.sections import LimitSettings
from gateway.store.agents.keys import NamedKeys, NewKey
from gateway.store.wakeups import bell
from tests.federation import Ground, federation
from tests.telling import LONG_SECONDS, ask, pushed, receiver, until, waiting
from tests.world import LISTEN, Agent, Gateway, World

PATIENCE_SECONDS = 20.0
MANY = 2000


async def answer_one(agent: Agent, payload: Any = "pong", to: str | None = None) -> dict[str, Any]:
    """Answers the first message that comes, and returns it."""
    item = (await agent.inbox(f"?wait={LONG_SECONDS}&status=unread&limit=1"))[0]
    reply = await agent.send(to or item["sender"], in_reply_to=item["message_id"], payload=payload)
    assert reply.status == 202, reply.text
    return item


async def pair(gateway: Gateway) -> tuple[Agent, Agent]:
    return await gateway.register("alice"), await gateway.register("bob")


@pytest.fixture
def rare_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what wakes is a notice."""
    monkeypatch.setattr(bell, "POLL_SECONDS", PATIENCE_SECONDS * 3)


async def test_a_reply_in_time_is_the_answer_and_lies_in_the_inbox_too(
    world: World, rare_polls: None
) -> None:
    async with world.gateway() as gateway:
        alice, bob = await pair(gateway)
        reply, _ = await asyncio.gather(ask(alice, bob.address), answer_one(bob))
        assert (reply.status, reply.headers["preference-applied"]) == (200, f"wait={LONG_SECONDS}")
        assert reply.json["status"] == "delivered"
        answer = reply.json["reply"]
        assert (answer["sender"], answer["payload"]) == (bob.address, "pong")
        assert answer["in_reply_to"] == reply.json["message_id"]
        (item,) = await alice.inbox()
        assert item == answer


async def test_a_slow_agent_means_202_at_the_deadline_and_its_reply_in_the_inbox(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await pair(gateway)
        reply = await ask(alice, bob.address, seconds=1)
        assert (reply.status, reply.json["status"]) == (202, "delivered")
        assert "reply" not in reply.json
        await answer_one(bob)
        (item,) = await alice.inbox()
        assert item["in_reply_to"] == reply.json["message_id"]


async def test_a_waiter_whose_connection_breaks_finds_the_reply_in_its_inbox(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await pair(gateway)
        asking = asyncio.create_task(ask(alice, bob.address))
        await waiting(gateway)
        asking.cancel()
        await waiting(gateway, 0)
        item = await answer_one(bob)
        (found,) = await alice.inbox()
        assert found["in_reply_to"] == item["message_id"]


async def test_a_repeated_key_waits_again_and_finds_what_is_there_at_once(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await pair(gateway)
        first = await ask(alice, bob.address, seconds=1, idempotency_key="once")
        again, item = await asyncio.gather(ask(alice, bob.address, idempotency_key="once"), answer_one(bob))
        late = await ask(alice, bob.address, idempotency_key="once", message_id=None)
        assert [reply.status for reply in (first, again, late)] == [202, 200, 200]
        assert {reply.json["message_id"] for reply in (first, again, late)} == {item["message_id"]}
        assert again.json["reply"]["message_id"] == late.json["reply"]["message_id"]
        assert len(await bob.inbox()) == 1


async def test_an_acknowledged_reply_is_still_the_answer_to_a_repetition(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await pair(gateway)
        first, _ = await asyncio.gather(ask(alice, bob.address, message_id="order:7"), answer_one(bob))
        reply_id = first.json["reply"]["message_id"]
        await gateway.call("DELETE", f"/v1/inbox/{alice.address}/{reply_id}", key=alice.key)
        again = await ask(alice, bob.address, message_id="order:7")
        assert again.json["reply"]["message_id"] == reply_id


async def test_a_reply_committed_by_another_process_wakes_the_waiter(world: World, rare_polls: None) -> None:
    async with world.gateway() as one, world.gateway() as other:
        alice, bob = await pair(one)
        reply, _ = await asyncio.gather(ask(alice, bob.address), answer_one(bob.at(other)))
        assert reply.json["reply"]["sender"] == bob.address


async def test_an_agent_of_another_domain_answers_a_waiter_on_another_process(
    world: World, ground: Ground, rare_polls: None
) -> None:
    """Its reply comes by the door of one process, while the other one keeps the waiter."""
    async with (
        federation(world, ground) as net,
        net.gateway("acme.test") as acme,
        net.gateway("acme.test", listen=LISTEN) as second,
        net.gateway("umbrella.test") as umbrella,
    ):
        alice, bob = await acme.register("alice"), await umbrella.register("bob")
        asking = asyncio.create_task(ask(alice.at(second), bob.address))
        await waiting(second)
        item = await answer_one(bob)
        reply = await asking
        assert reply.status == 200, reply.text
        assert (reply.json["message_id"], reply.json["status"]) == (item["message_id"], "delivered")
        assert reply.json["reply"]["gateway"]["untrusted"]


async def test_the_response_of_a_webhook_answers_a_waiter_on_another_domain_and_process(
    world: World, ground: Ground, rare_polls: None
) -> None:
    async with (
        federation(world, ground) as net,
        net.gateway("acme.test") as acme,
        net.gateway("umbrella.test") as umbrella,
        net.gateway("umbrella.test", listen=LISTEN) as second,
        receiver(net) as hook,
    ):
        hook.will(answers(200, {"status": "accepted", "response": "pong"}))
        alice, (bob, _) = await umbrella.register("alice"), await pushed(acme, hook)
        reply = await ask(alice.at(second), bob.address)
        assert reply.status == 200, reply.text
        assert (reply.json["reply"]["sender"], reply.json["reply"]["payload"]) == (bob.address, "pong")
        assert len(hook.posts) == 1


async def test_an_agent_with_a_webhook_may_wait_too(world: World, ground: Ground, rare_polls: None) -> None:
    async with federation(world, ground) as net, net.gateway("acme.test") as acme, receiver(net) as hook:
        bob, (alice, _) = await acme.register("bob"), await pushed(acme, hook, "alice")
        reply, item = await asyncio.gather(ask(alice, bob.address), answer_one(bob))
        assert reply.json["reply"]["in_reply_to"] == item["message_id"]

        async def received() -> bool:
            return len(hook.posts) == 1

        await until(received, PATIENCE_SECONDS)


async def test_a_failure_ends_the_wait_and_says_why(world: World, ground: Ground, rare_polls: None) -> None:
    async with federation(world, ground) as net, net.gateway("acme.test") as acme:
        alice = await acme.register("alice")
        reply = await ask(alice, "bob@nowhere.test")
        assert (reply.status, reply.json["status"]) == (202, "failed")
        assert reply.json["recipients"][0]["error"]["code"] == "RECIPIENT_NOT_FOUND"
        (report,) = await alice.inbox()
        assert report["message_type"] == "delivery_failure"


async def test_whoever_else_was_asked_may_still_answer_when_one_fails(world: World, ground: Ground) -> None:
    async with federation(world, ground) as net, net.gateway("acme.test") as acme:
        alice, bob = await pair(acme)
        asking = asyncio.create_task(ask(alice, "bob@nowhere.test", bob.address))
        await until(alice.inbox, PATIENCE_SECONDS)  # the report is there
        await answer_one(bob)
        reply = await asking
        assert (reply.status, reply.json["status"]) == (200, "partial")
        assert reply.json["reply"]["sender"] == bob.address


async def test_only_an_asked_recipient_answers_and_only_to_the_sender(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await pair(gateway)
        eve = await gateway.register("eve")
        asking = asyncio.create_task(ask(alice, bob.address, seconds=3))
        await waiting(gateway)
        item = (await bob.inbox())[0]
        reply_to = {"in_reply_to": item["message_id"]}
        await eve.send(alice.address, payload="not asked", **reply_to)
        await bob.send(eve.address, payload="not for alice", **reply_to)
        await bob.send(alice.address, payload="about nothing")
        await bob.send(alice.address, payload="about another", in_reply_to="another")
        assert not asking.done()
        assert (await asking).status == 202


async def test_a_reply_to_somebody_elses_message_is_never_shown_to_who_guesses_its_id(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await pair(gateway)
        eve = await gateway.register("eve")
        reply, item = await asyncio.gather(ask(alice, bob.address), answer_one(bob, "secret"))
        assert reply.status == 200
        guessed = await ask(eve, bob.address, seconds=1, message_id=item["message_id"])
        assert guessed.status == 202
        assert "secret" not in guessed.text


async def test_a_key_that_only_submits_waits_for_nothing(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await pair(gateway)
        key, app = mint_key(), gateway.app
        named = NamedKeys(app.database, app.audit)
        await named.add(NewKey(key.id, key.digest), "submitter", ["submit"], "tests")
        asking = asyncio.create_task(ask(replace(alice, key=key.text), bob.address))
        item = await answer_one(bob)
        reply = await asking
        assert (reply.status, reply.json["message_id"]) == (202, item["message_id"])
        assert "reply" not in reply.json


async def test_a_key_that_was_revoked_meanwhile_is_shown_nothing(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await pair(gateway)
        asking = asyncio.create_task(ask(alice, bob.address))
        await waiting(gateway)
        retired = await gateway.call("DELETE", f"/v1/admin/agents/{alice.address}", key=gateway.admin_key)
        assert retired.status == 200, retired.text
        await answer_one(bob)
        reply = await asking
        assert reply.status == 202
        assert "pong" not in reply.text


@pytest.mark.parametrize("prefer", ["", "respond-async", "wait", "wait=-1", "wait=x", "wait=0"])
async def test_a_preference_that_says_no_time_is_none(world: World, prefer: str) -> None:
    async with world.gateway() as gateway:
        alice, bob = await pair(gateway)
        message = {"sender": alice.address, "recipients": [bob.address], "payload": 1}
        async with asyncio.timeout(PATIENCE_SECONDS):
            reply = await gateway.call(
                "POST", "/v1/messages", key=alice.key, json=message, headers={"Prefer": prefer}
            )
        assert reply.status == 202
        assert "preference-applied" not in reply.headers


async def test_lines_wait_for_nothing(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await pair(gateway)
        line = json.dumps({"sender": alice.address, "recipients": [bob.address], "payload": 1}).encode()
        headers = {"Prefer": "wait=60", "Content-Type": "application/x-ndjson"}
        async with asyncio.timeout(PATIENCE_SECONDS):
            reply = await gateway.call(
                "POST", "/v1/messages", key=alice.key, body=line + b"\n" + line, headers=headers
            )
        assert reply.status == 200
        assert len(await bob.inbox()) == 2


async def test_waiting_takes_no_place_in_admission_and_holds_no_body(world: World) -> None:
    limits = LimitSettings(
        requests_in_admission=1, bodies_in_flight_bytes=1024 * 1024, owner_share_percent=100
    )
    async with world.gateway(limits=limits) as gateway:
        alice, bob = await pair(gateway)
        big = "x" * 600_000
        asking = []
        for count in range(1, 4):
            asking.append(asyncio.create_task(ask(alice, bob.address, payload=big)))
            await waiting(gateway, count)
        for item in await bob.inbox():
            await bob.send(alice.address, in_reply_to=item["message_id"])
        assert {reply.status for reply in await asyncio.gather(*asking)} == {200}


async def test_a_gateway_that_stops_answers_those_who_wait(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await pair(gateway)
        asking = asyncio.create_task(ask(alice, bob.address))
        await waiting(gateway)
    assert (await asking).status == 202


async def test_a_database_that_is_away_for_a_while_costs_no_waiter_its_reply(world: World, dsn: str) -> None:
    async with world.gateway() as gateway:
        alice, bob = await pair(gateway)
        asking = asyncio.create_task(ask(alice, bob.address))
        await waiting(gateway)
        connection = await asyncpg.connect(dsn)
        await connection.execute(CUT)
        await connection.close()

        async def answered() -> bool:
            reply = await bob.send(alice.address, in_reply_to=message_id, idempotency_key="once")
            return reply.status == 202

        async def asked() -> Any:
            reply = await gateway.call("GET", f"/v1/inbox/{bob.address}", key=bob.key)
            return reply.status == 200 and reply.json["messages"]

        message_id = (await until(asked, PATIENCE_SECONDS))[0]["message_id"]
        await until(answered, PATIENCE_SECONDS)
        assert (await asking).json["reply"]["in_reply_to"] == message_id


CUT = (
    "select pg_terminate_backend(pid) from pg_stat_activity"
    " where datname = current_database() and pid <> pg_backend_pid()"
)


async def test_two_thousand_requests_at_once_each_get_their_own_reply(world: World) -> None:
    """Half of them wait at a process that commits none of the replies."""
    limits = LimitSettings(
        connections=MANY * 4, requests_in_admission=MANY, address_share_percent=50, owner_share_percent=100
    )
    async with (
        world.gateway(limits=limits) as one,
        world.gateway(limits=limits) as other,
        crowd() as session,
    ):
        alice, bob = await pair(one)
        answering = asyncio.create_task(answer_all(bob, MANY))
        gateways = [(one, other)[n % 2] for n in range(MANY)]
        crowded = [Gateway(each.app, each.admin_key, session, each.log) for each in gateways]
        replies = await asyncio.gather(
            *(ask(alice.at(each), bob.address, payload=n) for n, each in enumerate(crowded))
        )
        assert await answering == MANY
        assert {reply.status for reply in replies} == {200}
        assert [reply.json["reply"]["payload"] for reply in replies] == [n * n for n in range(MANY)]


@asynccontextmanager
async def crowd() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


async def answer_all(agent: Agent, count: int) -> int:
    """Squares what it is asked, in hundreds: one batch of replies, one acknowledgement."""
    done = 0
    while done < count:
        items = await agent.inbox(f"?wait={LONG_SECONDS}&limit=100")
        assert items
        await post_lines(agent, [_squared(agent, item) for item in items])
        ids = [item["message_id"] for item in items]
        body = {"message_ids": ids}
        reply = await agent.gateway.call("POST", f"/v1/inbox/{agent.address}/ack", key=agent.key, json=body)
        assert reply.json["acknowledged"] == len(ids)
        done += len(ids)
    return done


def _squared(agent: Agent, item: dict[str, Any]) -> dict[str, Any]:
    payload = item["payload"] ** 2
    return {
        "sender": agent.address,
        "recipients": [item["sender"]],
        "in_reply_to": item["message_id"],
        "payload": payload,
    }


async def post_lines(agent: Agent, messages: Sequence[dict[str, Any]]) -> None:
    body = b"".join(json.dumps(message).encode() + b"\n" for message in messages)
    reply = await agent.gateway.call(
        "POST", "/v1/messages", key=agent.key, body=body, headers={"Content-Type": "application/x-ndjson"}
    )
    assert reply.status == 200, reply.text
