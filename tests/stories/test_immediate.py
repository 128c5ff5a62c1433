"""The immediate path: one attempt for each recipient, and the answer tells what came of it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from conformance.fake_peer import (
    Exchange,
    accepts,
    answers,
    receipt,
    refuses,
    resets_after_body,
)
from gateway.admit.caller import Caller
from gateway.config.sections import PeerSettings, QueueSettings
from gateway.config.values import Secret
from gateway.flow import immediate, lanes
from gateway.protocol.message import parse_message
from tests.federation import Federation
from tests.telling import count, gate, pushed, receiver, settled_books, until
from tests.world import Agent, Reply, World

PATIENCE_SECONDS = 15.0
NOW = {"delivery": "best_effort"}


@pytest.fixture
def poll_seconds() -> float:
    return 0.1


async def send(sender: Agent, *recipients: str, **members: Any) -> Reply:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await sender.send(*recipients, headers=NOW, **members)


def outcomes(reply: Reply) -> list[tuple[str, str | None]]:
    """Status and error code of each recipient."""
    return [(each["status"], each.get("error", {}).get("code")) for each in reply.json["recipients"]]


def one_refused(name: str, code: str) -> Callable[[Exchange], Awaitable[None]]:
    async def behave(exchange: Exchange) -> None:
        request = await exchange.read_body()
        await exchange.answer(202, json.dumps(receipt(request.messages[0], **{name: code})).encode())

    return behave


async def test_what_a_peer_takes_is_told_as_delivered(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.peer() as peer:
        alice, dave = await acme.register("alice"), await acme.register("dave")
        reply = await send(alice, "bob@peer.test", dave.address)
        assert (reply.status, reply.json["status"]) == (200, "delivered")
        assert outcomes(reply) == [("delivered", None)] * 2
        assert len(peer.posts) == len(await dave.inbox()) == 1
        assert (await alice.status(reply.json["message_id"]))["status"] == "delivered"
        await settled_books(acme)


async def test_an_inbox_here_needs_no_attempt(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        reply = await send(alice, bob.address)
        assert (reply.status, outcomes(reply)) == (200, [("delivered", None)])
        assert len(await bob.inbox()) == 1


async def test_one_who_has_it_makes_it_a_success_and_each_outcome_is_told(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.peer() as peer:
        peer.will(one_refused("ghost", "AGENT_UNKNOWN"))
        alice = await acme.register("alice")
        reply = await send(alice, "ghost@peer.test", "bob@peer.test", "nobody@nowhere.test")
        assert (reply.status, reply.json["status"]) == (200, "partial")
        assert outcomes(reply) == [
            ("failed", "AGENT_UNKNOWN"),
            ("delivered", None),
            ("failed", "RECIPIENT_NOT_FOUND"),
        ]
        await settled_books(acme)


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (answers(500), 503, "RECIPIENT_UNAVAILABLE"),
        (refuses(404, "AGENT_UNKNOWN"), 404, "AGENT_UNKNOWN"),
        (refuses(429, "RATE_LIMIT_EXCEEDED", retry_after="60"), 429, "RATE_LIMIT_EXCEEDED"),
        (resets_after_body, 503, "RECIPIENT_UNAVAILABLE"),
    ],
    ids=["broken", "unknown", "busy", "gone"],
)
async def test_a_failure_is_the_answer_and_nothing_else_is_heard_of_it(
    net: Federation, behaviour: Any, status: int, code: str
) -> None:
    async with net.gateway("acme.test") as acme, net.peer() as peer:
        peer.will(behaviour)
        alice = await acme.register("alice")
        reply = await send(alice, "bob@peer.test")
        assert (reply.status, reply.code) == (status, code)
        assert outcomes(reply) == [("failed", code)]
        known = await alice.status(reply.json["message_id"])
        assert (known["status"], known["recipients"][0]["attempts"]) == ("failed", 1)
        assert (len(peer.posts), await count(acme, "dead_letters"), await alice.inbox()) == (1, 0, [])
        await settled_books(acme)


async def test_a_destination_behind_its_breaker_is_not_waited_for(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.peer() as peer:
        alice = await acme.register("alice")
        await acme.app.database.execute(
            "insert into destinations (destination, paused_at, paused_by) values ('peer.test', amtp_now(), 'test')"
        )

        async def known() -> bool:
            return (await send(alice, "bob@peer.test")).status == 503

        await until(known)
        posted, kept = len(peer.posts), await count(acme, "messages")
        reply = await send(alice, "bob@peer.test")
        assert (reply.status, reply.code) == (503, "RECIPIENT_UNAVAILABLE")
        assert "message_id" not in reply.json  # nothing was kept: the same may be sent again
        assert (len(peer.posts), await count(acme, "messages")) == (posted, kept)


async def test_a_repetition_tells_the_outcome_and_tries_nothing(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.peer() as peer:
        peer.will(accepts, refuses(404, "AGENT_UNKNOWN"))
        alice = await acme.register("alice")
        for key, status in (("good", 200), ("bad", 404)):
            first = await send(alice, "bob@peer.test", idempotency_key=key)
            again = await send(alice, "bob@peer.test", idempotency_key=key)
            assert (first.status, again.status) == (status, status)
            assert first.json["message_id"] == again.json["message_id"]
            assert outcomes(first) == outcomes(again)
        assert len(peer.posts) == 2


async def test_a_client_that_hung_up_hears_of_a_failure_by_a_report(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.peer() as peer:
        opened, behave = gate(refuses(404, "AGENT_UNKNOWN"))
        peer.will(behave)
        alice = await acme.register("alice")
        sending = asyncio.create_task(send(alice, "bob@peer.test"))

        async def under_way() -> bool:
            return bool(peer.connections) and await count(acme, "deliveries") > 0

        await until(under_way)
        sending.cancel()

        async def forgotten() -> bool:
            return not acme.app.accept._immediate._hopes

        await until(forgotten)
        opened.set()
        (report,) = await until(alice.inbox)
        assert (report["message_type"], report["error_code"]) == ("delivery_failure", "AGENT_UNKNOWN")
        assert await count(acme, "dead_letters") == 1
        await settled_books(acme)


async def test_what_takes_too_long_is_answered_as_queued_and_reported_when_it_fails(
    net: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(immediate, "IMMEDIATE_SECONDS", 0.3)
    async with net.gateway("acme.test") as acme, net.peer() as peer:
        opened, behave = gate(answers(500))
        peer.will(behave)
        alice = await acme.register("alice")
        reply = await send(alice, "bob@peer.test")
        assert (reply.status, outcomes(reply)) == (202, [("queued", None)])
        opened.set()
        (report,) = await until(alice.inbox)
        assert report["in_reply_to"] == reply.json["message_id"]
        assert (await alice.status(reply.json["message_id"]))["status"] == "failed"


async def test_what_can_not_start_in_time_is_not_started(
    net: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "IMMEDIATE_SECONDS", 20.2)  # a fifth of a second more than an attempt may take
    queue = QueueSettings(per_destination_window_max=1)
    async with net.gateway("acme.test", queue=queue) as acme, net.peer() as peer:
        opened, behave = gate()
        peer.will(behave)
        alice = await acme.register("alice")
        await alice.send("bob@peer.test")
        reply = await send(alice, "bob@peer.test")
        assert (reply.status, reply.code) == (503, "RECIPIENT_UNAVAILABLE")
        assert "in time" in reply.json["recipients"][0]["error"]["message"]
        opened.set()

        async def emptied() -> bool:
            return await count(acme, "deliveries") == 0

        await until(emptied)
        assert len(peer.posts) == 1


async def test_a_gateway_that_dies_after_the_commit_leaves_a_report(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.peer() as peer:
        alice = await acme.register("alice")
        body = {"sender": alice.address, "recipients": ["bob@peer.test"], "headers": NOW, "payload": 1}
        app = acme.app
        message = parse_message(json.dumps(body).encode(), row=app.mint(), now=app.clock.now(), local=True)
        caller = Caller("127.0.0.1", agent=alice.address, name="alice")
        async with app.accept.entering(message, caller) as entrance:
            await app.intake.commit(entrance.admitted)  # and here its process is gone
        net.turn(31)
        (report,) = await until(alice.inbox)
        assert report["in_reply_to"] == message.message_id
        assert (await alice.status(message.message_id))["recipients"][0]["status"] == "expired"
        assert not peer.posts
        await settled_books(acme)


async def test_a_webhook_is_tried_once_too(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, receiver(net) as hook:
        alice, (bob, _) = await acme.register("alice"), await pushed(acme, hook)
        hook.will(answers(500), answers(200))
        replies = [await send(alice, bob.address) for _ in range(2)]
        assert [reply.status for reply in replies] == [503, 200]
        assert len(hook.posts) == 2
        await settled_books(acme)


async def test_each_line_of_a_batch_has_its_outcome(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.peer() as peer:
        peer.will(one_refused("ghost", "AGENT_UNKNOWN"))
        alice = await acme.register("alice")
        lines = [
            json.dumps({"sender": alice.address, "recipients": [to], "payload": 1, "headers": headers})
            for to, headers in (("bob@peer.test", NOW), ("ghost@peer.test", NOW), ("bob@peer.test", {}))
        ]
        async with asyncio.timeout(PATIENCE_SECONDS):
            reply = await acme.call(
                "POST",
                "/v1/messages",
                key=alice.key,
                body="\n".join(lines).encode(),
                headers={"Content-Type": "application/x-ndjson"},
            )
        good, bad, durable = map(json.loads, reply.text.splitlines())
        assert (good["status"], bad["error"]["code"]) == ("delivered", "AGENT_UNKNOWN")
        assert durable["status"] == "queued"


async def test_somebody_elses_gateway_does_not_make_us_wait(net: Federation) -> None:
    peer = net.fake()
    known = PeerSettings(peer.url, proving_key=Secret("a-key-that-proves-the-peer"))
    async with net.gateway("acme.test", peers={"peer.test": known}) as acme:
        alice = await acme.register("alice")
        message = {
            "version": "1.0",
            "sender": "bob@peer.test",
            "recipients": [alice.address],
            "payload": 1,
            "headers": NOW,
        }
        reply = await acme.call("POST", "/v1/messages", key="a-key-that-proves-the-peer", json=message)
        assert (reply.status, outcomes(reply)) == (202, [("delivered", None)])


@pytest.mark.parametrize(
    "later", [{"deliver-after": "2026-01-01T00:00:00Z"}, {"repeat": "0 9 * * *"}], ids=["once", "often"]
)
async def test_now_and_later_exclude_each_other(world: World, later: dict[str, str]) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        reply = await alice.send(bob.address, headers={**NOW, **later})
        assert (reply.status, reply.code) == (400, "INVALID_MESSAGE_FORMAT")
        assert reply.json["error"]["details"]["field"] == f"headers.{next(iter(later))}"


async def test_whoever_has_it_may_be_waited_for(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.gateway("umbrella.test") as umbrella:
        alice, bob = await acme.register("alice"), await umbrella.register("bob")

        async def answer() -> None:
            (item,) = await bob.inbox("?wait=10")
            await bob.send(alice.address, in_reply_to=item["message_id"], payload="pong")

        message = {"sender": alice.address, "recipients": [bob.address], "payload": "ping", "headers": NOW}
        asking = acme.call("POST", "/v1/messages", key=alice.key, json=message, headers={"Prefer": "wait=10"})
        reply, _ = await asyncio.gather(asking, answer())
        assert (reply.status, reply.json["reply"]["payload"]) == (200, "pong")
