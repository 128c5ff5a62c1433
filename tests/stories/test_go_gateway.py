"""The Go gateway (agentry) as a peer: it posts once for each recipient, fills what is empty, and answers in its own way.

What it sends has every member, `null` or "" where there is nothing, and one recipient at a time under one id and key. It
takes messages whose id is a UUIDv7 and whose key is a UUIDv4 alone, tells `failed` with 400 and no envelope, and remembers
the first answer to a key.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

import pytest

from conformance.fake_peer import Exchange, FakePeer
from gateway.mint import Mint
from tests.federation import Federation, Ground, federation
from tests.world import Agent, Gateway, World


@pytest.fixture
async def net(world: World, ground: Ground) -> AsyncIterator[Federation]:
    async with federation(world, ground) as built:
        yield built


class GoGateway:
    """Answers to messages as the Go gateway does; `missing` are agents that it can't deliver to."""

    def __init__(self, *missing: str) -> None:
        self.missing = missing
        self.answers: dict[str, tuple[int, dict[str, Any]]] = {}

    async def __call__(self, exchange: Exchange) -> None:
        request = await exchange.read_body()
        if request.method != "POST":
            await exchange.answer(200, b"{}")
            return
        status, body = self._judge(request.messages[0])
        await exchange.answer(
            status, json.dumps(body).encode(), content_type="application/json; charset=utf-8"
        )

    def _judge(self, message: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        fault = _fault(message)
        if fault:
            error = {
                "code": "VALIDATION_FAILED",
                "message": "Request validation failed",
                "details": {"e": fault},
            }
            return 400, {"error": {**error, "timestamp": "2026-01-01T00:00:00Z"}}
        key = message["idempotency_key"]
        if key not in self.answers:
            told = [self._told(address) for address in message["recipients"]]
            failed = any(one["status"] == "failed" for one in told)
            body = {"message_id": message["message_id"], "status": "failed" if failed else "delivered"}
            self.answers[key] = (400 if failed else 200, {**body, "recipients": told})
        return self.answers[key]

    def _told(self, address: str) -> dict[str, Any]:
        told = {
            "address": address,
            "status": "delivered",
            "timestamp": "2026-01-01T00:00:00.123456789Z",
            "attempts": 1,
        }
        if address.partition("@")[0] in self.missing:
            refusal = {"status": "failed", "error_code": "DELIVERY_FAILED", "error_message": "no such agent"}
            return {**told, **refusal}
        return {**told, "delivery_mode": "pull", "local_delivery": True, "inbox_delivered": True}


def _fault(message: dict[str, Any]) -> str | None:
    if UUID(message["message_id"]).version != 7:
        return "invalid message_id format, must be UUIDv7"
    if UUID(message["idempotency_key"]).version != 4:
        return "invalid idempotency_key format, must be UUIDv4"
    if message.get("in_reply_to") and UUID(message["in_reply_to"]).version != 7:
        return "invalid in_reply_to format, must be UUIDv7"
    return None


def go_message(message_id: str, key: str, sender: str, recipient: str, **members: Any) -> dict[str, Any]:
    """What it posts for one recipient."""
    return {
        "attachments": None,
        "coordination": None,
        "headers": None,
        "idempotency_key": key,
        "in_reply_to": "",
        "message_id": message_id,
        "payload": None,
        "recipients": [recipient],
        "response_type": "",
        "schema": "",
        "sender": sender,
        "signature": None,
        "subject": "",
        "timestamp": "2026-01-01T12:00:00Z",
        "version": "1.0",
        **members,
    }


async def settled(alice: Agent, message_id: str) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while (status := await alice.status(message_id))["status"] == "queued":
            await asyncio.sleep(0.02)
    return status


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
        go = GoGateway("ghost")
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
        go.missing, go.answers = (), {}  # a day later
        net.turn(10)
        assert (await settled(alice, message_id))["status"] == "delivered"
        assert peer.posts[-1].messages[0]["recipients"] == ["ghost@go.test"]
