"""Agents that answer as they acknowledge: what they say goes out once, whatever happens to them in between."""

import asyncio
import random
from collections import Counter
from typing import Any

from tests.world import Agent, Gateway, Reply, World

CRASHES = 0.3  # of consumers, before they acknowledge
LEASE_SECONDS = 30


async def acknowledge(agent: Agent, message_id: str, body: Any = None, lease: str | None = None) -> Reply:
    query = f"?lease={lease}" if lease else ""
    path = f"/v1/inbox/{agent.address}/{message_id}{query}"
    return await agent.gateway.call("DELETE", path, key=agent.key, json=body)


async def take(agent: Agent, limit: int) -> tuple[str, list[dict[str, Any]]]:
    """What the agent gets under a new lease, and its token."""
    path = f"/v1/inbox/{agent.address}?lease={LEASE_SECONDS}&limit={limit}"
    reply = await agent.gateway.call("GET", path, key=agent.key)
    assert reply.status == 200, reply.text
    return reply.json.get("lease", {}).get("token", ""), reply.json["messages"]


def answer_to(message: dict[str, Any], worker: str, teller: Agent) -> dict[str, Any]:
    """A reply, and word to the storehouse."""
    told = {"sender": worker, "recipients": [teller.address], "payload": message["payload"]}
    return {"reply": {"payload": {"done": message["payload"]}}, "messages": [told]}


async def test_consumers_that_crash_leave_one_reply_and_one_set_of_messages_each(world: World) -> None:
    chance = random.Random(7)
    async with world.gateway() as one, world.gateway(clock=one.app.clock) as other:
        alice, bob, store = [await one.register(name) for name in ("alice", "bob", "store")]
        sent = [
            (await alice.send(bob.address, payload=n, headers={"delivery": "exactly_once"})).json[
                "message_id"
            ]
            for n in range(30)
        ]
        seen, crashed = Counter[str](), 0
        while len(await store.inbox("?limit=1000")) < len(sent):
            for consumer in (bob, bob.at(other)):
                lease, messages = await take(consumer, 8)
                for message in messages:
                    seen[message["message_id"]] += 1
                    if chance.random() < CRASHES:
                        crashed += 1
                        continue
                    said = answer_to(message, bob.address, store)
                    # The answer to an acknowledgement may get lost, so it is sent again, here or there.
                    twice = [consumer, bob.at(one)] if chance.random() < CRASHES else [consumer]
                    replies = await asyncio.gather(
                        *(acknowledge(each, message["message_id"], said, lease) for each in twice)
                    )
                    assert {reply.status for reply in replies} == {200}
                    assert len({tuple(reply.json["sent"]) for reply in replies}) == 1
            one.turn(LEASE_SECONDS + 1)
        answers = await alice.inbox("?limit=1000")
        assert crashed
        assert sum(seen.values()) == len(sent) + crashed
        assert sorted(answer["in_reply_to"] for answer in answers) == sorted(sent)
        assert sorted(told["payload"] for told in await store.inbox("?limit=1000")) == list(range(30))
        assert await bob.inbox() == []


async def test_consumers_that_crash_see_every_message_at_least_once(world: World) -> None:
    chance = random.Random(11)
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        sent = [(await alice.send(bob.address)).json["message_id"] for _ in range(20)]
        done = Counter[str]()
        seen = Counter[str]()
        while len(done) < len(sent):
            lease, messages = await take(bob, 20)
            for message in messages:
                seen[message["message_id"]] += 1
                if chance.random() >= CRASHES:
                    reply = await acknowledge(bob, message["message_id"], lease=lease)
                    assert reply.status == 200
                    done[message["message_id"]] += 1
            gateway.turn(LEASE_SECONDS + 1)
        assert set(seen) == set(done) == set(sent)
        assert max(seen.values()) > 1


async def test_whoever_acknowledges_again_sends_nothing_and_hears_what_the_first_one_sent(
    world: World,
) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        message_id = (await alice.send(bob.address)).json["message_id"]
        first = await acknowledge(bob, message_id, {"reply": {"payload": "yes"}})
        again = await acknowledge(bob, message_id, {"reply": {"payload": "no"}})
        plain = await acknowledge(bob, message_id)
        (reply,) = await alice.inbox()
        assert reply["payload"] == "yes"
        assert (first.json["again"], first.json["sent"]) == (False, [reply["message_id"]])
        for later in (again, plain):
            assert (later.status, later.json["again"], later.json["sent"]) == (200, True, first.json["sent"])


async def test_of_many_who_answer_at_the_same_time_one_is_heard(world: World) -> None:
    async with world.gateway() as one, world.gateway() as other:
        alice, bob = await one.register("alice"), await one.register("bob")
        message_id = (await alice.send(bob.address)).json["message_id"]
        replies = await asyncio.gather(
            *(
                acknowledge(bob.at(gateway), message_id, {"reply": {"payload": n}})
                for n in range(5)
                for gateway in (one, other)
            )
        )
        (heard,) = await alice.inbox()
        assert {(reply.status, *reply.json["sent"]) for reply in replies} == {(200, heard["message_id"])}
        assert sorted(reply.json["again"] for reply in replies) == [False] + [True] * 9


async def test_a_consumer_whose_lease_is_anothers_by_now_sends_nothing(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        message_id = (await alice.send(bob.address)).json["message_id"]
        stale, _ = await take(bob, 1)
        gateway.turn(LEASE_SECONDS + 1)
        lease, _ = await take(bob, 1)
        late = await acknowledge(bob, message_id, {"reply": {"payload": "late"}}, stale)
        assert (late.status, late.code) == (409, "CONFLICT")
        assert await alice.inbox() == []
        assert (await acknowledge(bob, message_id, {"reply": {"payload": "good"}}, lease)).status == 200
        assert [reply["payload"] for reply in await alice.inbox()] == ["good"]


async def test_one_refused_recipient_refuses_the_whole_acknowledgement_and_is_named(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        message_id = (await alice.send(bob.address)).json["message_id"]
        good = {"sender": bob.address, "recipients": [alice.address], "payload": 1}
        bad = good | {"recipients": [alice.address, "nobody@acme.test"]}
        said = {"reply": {"payload": "yes"}, "messages": [good, good, bad]}
        refused = await acknowledge(bob, message_id, said)
        assert (refused.status, refused.code) == (404, "AGENT_UNKNOWN")
        assert refused.json["error"]["details"]["field"] == "messages[2].recipients[1]"
        assert await alice.inbox() == []
        assert [message["message_id"] for message in await bob.inbox()] == [message_id]


async def test_a_reply_goes_where_the_message_says_and_copies_what_threads_it(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob, desk = [await gateway.register(name) for name in ("alice", "bob", "desk")]
        headers = {"reply-to": "desk+7@acme.test", "correlation-id": "c-1", "thread-id": "t-1"}
        message_id = (await alice.send(bob.address, subject="An offer", headers=headers)).json["message_id"]
        said = {"reply": {"payload": 1, "schema": "acme:bid.v1", "headers": {"priority": "high"}}}
        assert (await acknowledge(bob, message_id, said)).status == 200
        (reply,) = await desk.inbox()
        assert await alice.inbox() == []
        assert (reply["sender"], reply["in_reply_to"], reply["subject"]) == (
            bob.address,
            message_id,
            "Re: An offer",
        )
        assert reply["schema"] == "acme:bid.v1"
        assert reply["headers"] == {
            "correlation-id": "c-1",
            "thread-id": "t-1",
            "kind": "response",
            "auto-submitted": "no",
            "priority": "high",
        }


async def test_many_are_acknowledged_with_their_answers_and_each_has_its_result(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        ids = [(await alice.send(bob.address, payload=n)).json["message_id"] for n in range(4)]
        await bob.inbox()
        stranger = {"sender": alice.address, "recipients": [alice.address], "payload": 1}
        reply = await gateway.call(
            "POST",
            f"/v1/inbox/{bob.address}/ack",
            key=bob.key,
            json={
                "message_ids": [
                    {"message_id": ids[0], "reply": {"payload": "zero"}},
                    ids[1],
                    {"message_id": ids[2], "messages": [stranger]},
                    {"message_id": "unheard-of", "reply": {"payload": "?"}},
                    {"message_id": ids[3], "sender": alice.address, "reply": {"payload": "three"}},
                    {"message_id": ids[3], "reply": {"payload": "three again"}},
                ]
            },
        )
        results = reply.json["results"]
        assert reply.json["acknowledged"] == 4
        assert [result.get("error", {}).get("code") for result in results] == [
            None,
            None,
            "SENDER_NOT_ALLOWED",
            "NOT_FOUND",
            None,
            None,
        ]
        assert results[2]["error"]["details"]["field"] == "message_ids[2].messages[0].sender"
        assert "sent" not in results[1]
        assert results[4]["sent"] == results[5]["sent"]
        assert sorted(each["payload"] for each in await alice.inbox()) == ["three", "zero"]
        assert [message["message_id"] for message in await bob.inbox()] == [ids[2]]


async def test_a_key_counts_once_also_where_it_comes_with_an_acknowledgement(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        ids = [(await alice.send(bob.address, payload=n)).json["message_id"] for n in range(3)]
        order = {"recipients": [alice.address], "idempotency_key": "order", "payload": "one"}
        posted = await bob.send(alice.address, idempotency_key="order", payload="one")
        same = await acknowledge(bob, ids[0], {"messages": [{"sender": bob.address, **order}]})
        assert same.json["sent"] == [posted.json["message_id"]]
        other = {"sender": bob.address, **order, "payload": "two"}
        refused = await acknowledge(bob, ids[1], {"reply": {"payload": 1}, "messages": [other]})
        assert (refused.status, refused.code) == (409, "IDEMPOTENCY_CONFLICT")
        assert refused.json["error"]["details"]["field"] == "messages[0].idempotency_key"
        assert [each["payload"] for each in await alice.inbox()] == ["one"]
        assert [message["message_id"] for message in await bob.inbox()] == ids[1:]


async def refused_field(gateway: Gateway, bob: Agent, message_id: str, message: dict[str, Any]) -> str:
    reply = await acknowledge(bob, message_id, {"messages": [message]})
    assert reply.status in (400, 403), reply.text
    return str(reply.json["error"]["details"]["field"])


async def test_what_cannot_go_with_an_acknowledgement_is_refused_by_name(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        message_id = (await alice.send(bob.address)).json["message_id"]
        good: dict[str, Any] = {"sender": bob.address, "recipients": [alice.address], "payload": 1}
        cases: dict[str, dict[str, Any]] = {
            "messages[0].headers.repeat": {"headers": {"repeat": "0 9 * * *"}},
            "messages[0].headers.delivery": {"headers": {"delivery": "best_effort"}},
            "messages[0].coordination": {"coordination": {"type": "sequential"}},
            "messages[0].sender": {"sender": alice.address},
            "messages[0].subject": {"subject": "two\nlines"},
            "messages[0].recipients": {"recipients": []},
        }
        for field, members in cases.items():
            assert await refused_field(gateway, bob, message_id, good | members) == field
        for body in ({"reply": {"body": 1}}, {"reply": 1}, {"answer": 1}, [1]):
            assert (await acknowledge(bob, message_id, body)).code == "INVALID_MESSAGE_FORMAT"
        many = await acknowledge(bob, message_id, {"messages": [good] * 101})
        assert many.json["error"]["details"]["limit"] == 100
        assert [message["message_id"] for message in await bob.inbox()] == [message_id]
        assert await alice.inbox() == []
