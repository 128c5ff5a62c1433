"""The Go gateway (agentry) as a peer: it takes identifiers of one form alone, posts once for each recipient, fills what
is empty, and answers in its own way. See `tests/go_gateway.py`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest

from conformance.fake_peer import Exchange, FakePeer
from gateway.config.sections import PeerSettings, QueueSettings
from gateway.config.values import Secret
from gateway.protocol.timestamp import render_timestamp
from gateway.store.row_ids import Mint
from tests.federation import Federation
from tests.go_gateway import GoGateway, go_message
from tests.telling import ended, until
from tests.world import Agent, Gateway

KEY = "the-key-that-proves-the-peer"
DAVE = "dave@go.test"

settled = partial(ended, patience_seconds=10)


@asynccontextmanager
async def together(net: Federation, **how: Any) -> AsyncIterator[tuple[Gateway, GoGateway]]:
    """A gateway of ours, and a Go gateway that it knows by DNS."""
    async with net.gateway("acme.test") as acme, net.peer("go.test", **how) as peer:
        peer.will(go := GoGateway())
        yield acme, go


async def test_a_message_it_posts_once_for_each_recipient_is_one_message_in_each_inbox(
    net: Federation, mint: Mint
) -> None:
    async with net.gateway("acme.test") as acme:
        agents = [await acme.register(name) for name in ("alice", "bob", "carol")]
        ids = (str(mint()), str(uuid4()), "dave@go.test")
        for _ in range(2):  # it tries again where it did not hear the answer
            for agent in agents:
                reply = await _post(acme, go_message(*ids, agent.address, payload={"n": 1}))
                assert (reply["message_id"], reply["status"]) == (ids[0], "delivered")
        for agent in agents:
            (item,) = await agent.inbox()
            assert (item["message_id"], item["payload"]) == (ids[0], {"n": 1})
            assert item["recipients"] == [agents[0].address], "as the first copy of it said"


async def _post(acme: Gateway, message: dict[str, Any]) -> dict[str, Any]:
    headers = {"User-Agent": "Agentry/1.0", "Accept": "application/json", "Accept-Encoding": "gzip"}
    reply = await acme.call("POST", "/v1/messages", json=message, headers=headers)
    assert reply.status == 202, reply.text
    found: dict[str, Any] = reply.json
    return found


async def test_what_it_leaves_empty_is_as_if_it_were_not_there(net: Federation, mint: Mint) -> None:
    async with net.gateway("acme.test") as acme, net.peer("go.test") as peer:
        peer.will(GoGateway())
        alice = await acme.register("alice")
        question = str(mint())
        await _post(acme, go_message(question, str(uuid4()), "dave@go.test", alice.address))
        (item,) = await alice.inbox()
        assert (item["payload"], item["subject"], item["headers"]) == (None, "", None)
        answer = (await alice.send(item["sender"], in_reply_to=question)).json["message_id"]
        assert (await settled(alice, answer))["status"] == "delivered"


async def test_it_takes_what_we_send_it(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.peer("go.test") as peer:
        peer.will(GoGateway())
        alice = await acme.register("alice")
        for given in ({}, {"idempotency_key": str(uuid4())}):
            message_id = (await alice.send("dave@go.test", "erin@go.test", **given)).json["message_id"]
            status = await settled(alice, message_id)
            assert status["status"] == "delivered", status
        assert [len(post.messages[0]["recipients"]) for post in peer.posts] == [2, 2]


async def test_whom_it_could_not_deliver_to_waits_and_the_others_have_it(net: Federation) -> None:
    """Its word for that says nothing about whether it is for good: what is unknown is temporary."""
    async with AsyncExitStack() as stack:
        acme = await stack.enter_async_context(net.gateway("acme.test"))
        peer: FakePeer = await stack.enter_async_context(net.peer("go.test"))
        go = GoGateway(missing={"ghost"})
        peer.will(go)
        alice = await acme.register("alice")
        message_id = (await alice.send("dave@go.test", "ghost@go.test")).json["message_id"]
        async with asyncio.timeout(10):
            while True:
                dave, ghost = (await alice.status(message_id))["recipients"]
                if ghost["last_error"] and dave["status"] == "delivered":
                    break
                await asyncio.sleep(0.02)
        assert (ghost["status"], ghost["next_retry"] is not None) == ("queued", True)
        assert "DELIVERY_FAILED: no such agent" in ghost["last_error"]
        go.missing = set()  # a day later
        go.remembered.clear()
        go.stored.clear()
        net.turn(10)
        assert (await settled(alice, message_id))["status"] == "delivered"
        assert peer.posts[-1].messages[0]["recipients"] == ["ghost@go.test"]


# Ids, keys and addresses that are legal here, and refused for good there.
STRANGE: list[dict[str, Any]] = [
    {"message_id": "order-17"},
    {"idempotency_key": "order-17"},
    {"message_id": str(uuid4()), "idempotency_key": str(uuid4())},
    {"message_id": str(uuid4()).upper(), "idempotency_key": "Auftrag Nº 17", "headers": {"x": 1}},
    {"in_reply_to": "a conversation"},
]


@pytest.mark.parametrize("can", [frozenset(), frozenset({"batch"})], ids=["one by one", "batches"])
async def test_it_takes_whatever_ids_agents_here_chose(net: Federation, can: frozenset[str]) -> None:
    async with together(net, features=can) as (acme, go):
        alice = await acme.register("alice")
        said = [*STRANGE, *({"idempotency_key": f"order-{n}"} for n in range(20, 60))]
        ids = []
        for members in said:
            reply = await alice.send(DAVE, **members)
            ids.append(reply.json["message_id"])
            assert ids[-1] == members.get("message_id", ids[-1])
        for message_id in ids:
            assert (await settled(alice, message_id))["status"] == "delivered"
        assert len(go.inbox(DAVE)) == len(said)
        assert {message["idempotency_key"] for message in go.stored.values()} == go.remembered.keys()


async def test_a_domain_as_somebody_typed_it_is_found_there_and_echoed_here(net: Federation) -> None:
    async with together(net) as (acme, go):
        alice = await acme.register("alice")
        reply = await alice.send("dave@GO.Test")
        assert reply.json["recipients"][0]["address"] == "dave@GO.Test"
        status = await settled(alice, reply.json["message_id"])
        assert (status["status"], status["recipients"][0]["address"]) == ("delivered", "dave@GO.Test")
        assert len(go.inbox(DAVE)) == 1


async def test_it_takes_the_ticks_of_what_repeats(net: Federation) -> None:
    async with together(net) as (acme, go):
        alice = await acme.register("alice")
        reply = await alice.send(DAVE, message_id="daily", headers={"repeat": "* * * * *"})
        assert reply.status == 202, reply.text
        for ticks in (1, 2):
            net.turn(60)
            await acme.app.housekeeping.once()
            await until(partial(arrived, go, ticks))
        ids = [UUID(message["message_id"]) for message in go.inbox(DAVE)]
        moments = [datetime.fromtimestamp((each.int >> 80) / 1000, UTC) for each in ids]
        assert [moment.second for moment in moments] == [0, 0]
        assert moments[1] - moments[0] == timedelta(minutes=1)


async def arrived(go: GoGateway, count: int = 1, address: str = DAVE) -> list[dict[str, Any]]:
    found = go.inbox(address)
    return found if len(found) >= count else []


async def test_it_takes_what_repeats_again_as_the_same_message(net: Federation) -> None:
    async with together(net) as (acme, go):
        alice = await acme.register("alice")
        for _ in range(2):
            reply = await alice.send(DAVE, message_id="order-17", idempotency_key="order-17")
            assert (await settled(alice, reply.json["message_id"]))["status"] == "delivered"
        assert len(go.stored) == 1


async def test_whom_it_passes_over_is_not_taken_for_delivered(net: Federation) -> None:
    """It answers to a key as it did the first time, and does not see that the second copy has another recipient."""
    async with (
        net.gateway("acme.test", queue=QueueSettings(attempts_max=2)) as acme,
        net.peer("go.test") as peer,
    ):
        peer.will(go := GoGateway())
        alice = await acme.register("alice")
        await alice.send(DAVE, idempotency_key="order-17")
        await until(lambda: arrived(go))
        message_id = (await alice.send("erin@go.test", idempotency_key="order-17")).json["message_id"]

        async def over() -> dict[str, Any] | None:
            net.turn(1)
            status = await alice.status(message_id)
            return None if status["status"] == "queued" else status

        told = {row["address"]: row["status"] for row in (await until(over))["recipients"]}
        assert told == {DAVE: "delivered", "erin@go.test": "failed"}
        assert len(await alice.inbox()) == 1


@pytest.mark.parametrize("message_id", [str(UUID(int=17, version=4)), "order-17", None])
async def test_a_reply_from_there_is_known_by_the_id_that_the_asker_chose(
    net: Federation, mint: Mint, message_id: str | None
) -> None:
    async with together(net) as (acme, go):
        alice = await acme.register("alice")
        question = {"sender": alice.address, "recipients": [DAVE], "payload": "?", "message_id": message_id}
        asking = asyncio.create_task(
            acme.call("POST", "/v1/messages", key=alice.key, json=question, headers={"Prefer": "wait=30"})
        )
        (asked,) = await until(lambda: arrived(go))
        reply = go_message(str(mint()), str(uuid4()), DAVE, alice.address, in_reply_to=asked["message_id"])
        for _ in range(2):  # its answer was lost
            await _post(acme, reply)
        answer = await asking
        assert answer.status == 200, answer.text
        assert answer.json["message_id"] == (message_id or asked["message_id"])
        assert answer.json["reply"]["in_reply_to"] == answer.json["message_id"]
        (item,) = await alice.inbox()
        assert (item["message_id"], item["in_reply_to"]) == (reply["message_id"], answer.json["message_id"])
        further = (await alice.send(DAVE, in_reply_to=answer.json["message_id"])).json["message_id"]
        assert (await settled(alice, further))["status"] == "delivered"
        assert go.inbox(DAVE)[-1]["in_reply_to"] == asked["message_id"], "as it knows the message"


async def test_what_it_never_saw_it_is_not_told_of(net: Federation) -> None:
    async with together(net) as (acme, go):
        alice, bob = await acme.register("alice"), await acme.register("bob")
        await alice.send(bob.address, message_id="between-us")
        message_id = (await bob.send(DAVE, in_reply_to="nobody's")).json["message_id"]
        assert (await settled(bob, message_id))["status"] == "delivered"
        assert "in_reply_to" not in go.inbox(DAVE)[0]


async def test_receipts_and_reports_that_we_write_it_are_of_its_form(net: Federation, mint: Mint) -> None:
    peer = net.fake("go.test")
    net.introduce(peer)
    known = {"go.test": PeerSettings(peer.url, proving_key=Secret(KEY))}
    async with net.gateway("acme.test", peers=known) as acme, peer.listening():
        peer.will(go := GoGateway())
        bob = await acme.register("bob")
        later = {"deliver-after": render_timestamp(net.clock.now() + timedelta(hours=1))}
        ids = [str(mint()), str(mint())]
        for message_id, headers in zip(ids, ({"receipt": "delivered"}, later), strict=True):
            message = go_message(message_id, str(uuid4()), DAVE, bob.address, headers=headers)
            assert (await acme.call("POST", "/v1/messages", key=KEY, json=message)).status == 202
        await acme.app.housekeeping.once()
        gone = await acme.call("DELETE", f"/v1/admin/agents/{bob.address}?mail=return", key=acme.admin_key)
        assert gone.status == 200, gone.text
        net.turn(3700)
        told = await until(lambda: arrived(go, 2))
        assert {message["message_type"]: message["in_reply_to"] for message in told} == {
            "receipt": ids[0],
            "delivery_failure": ids[1],
        }


async def test_a_program_of_the_python_sdk_asks_an_agent_there_and_knows_the_answer(
    net: Federation, mint: Mint
) -> None:
    """It mints a UUIDv4 for each message, leaves out what is empty, and polls."""
    async with together(net) as (acme, go):
        program = await acme.register("program")
        message = {
            "version": "1.0",
            "message_id": str(uuid4()),
            "idempotency_key": str(uuid4()),
            "timestamp": datetime.now(UTC).isoformat(),
            "sender": program.address,
            "recipients": [DAVE],
            "subject": "Hello",
            "payload": {"question": "How are you?"},
        }
        reply = await acme.call("POST", "/v1/messages", key=program.key, json=message)
        assert (reply.status, reply.json["message_id"]) == (202, message["message_id"])
        (asked,) = await until(lambda: arrived(go))
        assert (asked["subject"], asked["payload"]) == (message["subject"], message["payload"])
        answer = {"in_reply_to": asked["message_id"], "payload": {"answer": "Fine"}}
        await _post(acme, go_message(str(mint()), str(uuid4()), DAVE, program.address, **answer))
        (item,) = await program.inbox()
        assert (item["in_reply_to"], item["payload"]) == (message["message_id"], {"answer": "Fine"})
        back = {**message, "message_id": str(uuid4()), "idempotency_key": str(uuid4())}
        back["in_reply_to"] = item["message_id"]
        assert (await acme.call("POST", "/v1/messages", key=program.key, json=back)).status == 202
        _, last = await until(lambda: arrived(go, 2))
        assert last["in_reply_to"] == item["message_id"]


def forgetful(go: GoGateway) -> Callable[[Exchange], Awaitable[None]]:
    """Takes a message, breaks off and starts anew: from then on it fails on every repeat, though it has the message."""

    async def behave(exchange: Exchange) -> None:
        request = await exchange.read_body()
        go.take(request.messages[0])
        go.restart()
        exchange.reset()

    return behave


@pytest.mark.parametrize(
    ("queue", "headers"),
    [(QueueSettings(attempts_max=3), {}), (QueueSettings(), {"ttl": 30})],
    ids=["attempts", "time"],
)
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "lost"])
async def test_what_it_has_and_fails_to_repeat_is_asked_for_before_it_is_given_up(
    net: Federation, queue: QueueSettings, headers: dict[str, Any], stored: bool
) -> None:
    async with net.gateway("acme.test", queue=queue) as acme, net.peer("go.test") as peer:
        go = GoGateway()
        peer.will(forgetful(go), go)
        alice = await acme.register("alice")
        message_id = (await alice.send(DAVE, message_id="order-17", headers=headers)).json["message_id"]
        await until(lambda: tried(alice, message_id, 1))
        if not stored:
            go.states.clear()
        status = await carried_to_the_end(net, alice, message_id)
        asked = [request for request in peer.requests if request.path.endswith("/status")]
        (row,) = status["recipients"]
        assert len(asked) in (1, 2), "the spread of the delays may leave one attempt more"
        if stored:
            assert (row["status"], row["via"]) == ("delivered", "amtp:amtp.go.test")
            assert await alice.inbox() == []
        else:
            assert row["status"] == ("expired" if headers else "failed")
            assert len(await alice.inbox()) == 1


async def carried_to_the_end(net: Federation, sender: Agent, message_id: str) -> dict[str, Any]:
    """Turns the clock from attempt to attempt; returns the status when it is final."""
    while (status := await sender.status(message_id))["status"] == "queued":
        (row,) = status["recipients"]
        left = datetime.fromisoformat(row["next_retry"]) - net.clock.now()
        net.turn(max(left.total_seconds(), 0) + 0.01)
        await until(partial(tried, sender, message_id, row["attempts"] + 1))
    return status


async def tried(sender: Agent, message_id: str, attempts: int) -> bool:
    """Whether so many attempts are over, or it is."""
    waits = "select attempts >= $1 and token is null from deliveries"
    over: bool | None = await sender.gateway.app.database.fetchval(waits, attempts)
    return over or (await sender.status(message_id))["status"] != "queued"
