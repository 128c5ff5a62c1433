"""Notifications: a target over TLS that is told of what happens to messages, whatever happens to it or to us."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid5

import pytest
from standardwebhooks import Webhook

from conformance.fake_peer import Behaviour, Exchange, FakePeer, answers, hangs, refuses
from gateway.features.notifications import notifier
from gateway.features.notifications import target as target_module
from gateway.protocol.timestamp import render_timestamp
from tests import telling
from tests.federation import Federation
from tests.telling import sent
from tests.world import LISTEN, Agent, Gateway

PATIENCE_SECONDS = 20.0
HOST = "hooks.test"

until = partial(telling.until, patience_seconds=PATIENCE_SECONDS)


@pytest.fixture
def poll_seconds(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(notifier, "POLL_SECONDS", 0.1)  # the clock is turned by hours here
    return 0.1


async def takes(exchange: Exchange) -> None:
    """What a target does that wants to hear: repeats a challenge, says yes to an event."""
    request = await exchange.read_body()
    body = json.loads(request.body)
    told = {"challenge": body["challenge"]} if body["type"] == "challenge" else {}
    await exchange.answer(200, json.dumps(told).encode())


@dataclass(frozen=True)
class Told:
    """A request that a target got."""

    id: str
    at: datetime
    signature: str
    body: bytes

    @property
    def type(self) -> str:
        return str(json.loads(self.body)["type"])

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)["data"]
        return found

    def fits(self, secret: str) -> bool:
        headers = {
            "webhook-id": self.id,
            "webhook-timestamp": str(int(self.at.timestamp())),
            "webhook-signature": self.signature,
        }
        Webhook(secret).verify(self.body, headers)  # type: ignore[no-untyped-call, unused-ignore]
        return True


@dataclass
class Hook:
    """A target, and what its owner does about it at a gateway."""

    peer: FakePeer
    gateway: Gateway
    key: str
    id: str = ""
    secret: str = ""

    @property
    def told(self) -> list[Told]:
        """All that came, challenges aside."""
        found = [
            Told(
                request.headers["webhook-id"],
                datetime.fromtimestamp(int(request.headers["webhook-timestamp"])).astimezone(),
                request.headers["webhook-signature"],
                request.body,
            )
            for request in self.peer.posts
            if request.body
        ]
        return [told for told in found if told.type != "challenge"]

    @property
    def types(self) -> list[str]:
        return [told.type for told in self.told]

    async def call(self, method: str, act: str = "", **body: Any) -> dict[str, Any]:
        reply = await self.gateway.call(
            method, f"/v1/webhooks/{self.id}{act}", key=self.key, json=body or None
        )
        assert reply.status in (200, 202), reply.text
        answer: dict[str, Any] = reply.json
        return answer

    async def state(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.call("GET"))["webhook"]
        return found

    async def active(self) -> None:
        await until(self._is("active"))
        await self.call("PATCH", description="in use")  # whoever changes one knows at once who listens

    async def disabled(self) -> None:
        await until(self._is("disabled"))

    def _is(self, status: str) -> Callable[[], Awaitable[bool]]:
        async def look() -> bool:
            return bool((await self.state())["status"] == status)

        return look

    async def hears(self, *types: str) -> list[Told]:
        """All that came, once it is as much as this, which it must be, in any order."""

        async def enough() -> bool:
            return len(self.told) >= len(types)

        await until(enough)
        assert sorted(self.types) == sorted(types)
        return self.told

    async def attempts(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.call("GET", "/attempts"))["attempts"]
        return found


@asynccontextmanager
async def hook(
    net: Federation,
    gateway: Gateway,
    key: str,
    *,
    host: str = HOST,
    behaviour: Behaviour = takes,
    active: bool = True,
    **said: Any,
) -> AsyncIterator[Hook]:
    """A target that listens, and is subscribed."""
    peer = net.fake(domain=host, host=host, path="/in?token=secret-in-url")
    net.dns.add(host, "A", peer.address)
    peer.will(behaviour)
    async with peer.listening():
        reply = await gateway.call("POST", "/v1/webhooks", key=key, json={"url": peer.url, **said})
        assert reply.status == 201, reply.text
        made = reply.json["webhook"]
        found = Hook(peer, gateway, key, made["webhook_id"], made["secret"])
        if active:
            await found.active()
        yield found


async def acknowledged(agent: Agent, message_id: str) -> None:
    await agent.inbox()
    reply = await agent.gateway.call("DELETE", f"/v1/inbox/{agent.address}/{message_id}", key=agent.key)
    assert reply.status == 200, reply.text


async def test_each_event_of_a_message_is_told_once_under_an_id_that_follows_from_it(net: Federation) -> None:
    async with net.gateway("acme.test") as acme:
        alice, bob = await acme.register("alice"), await acme.register("bob")
        async with hook(net, acme, alice.key) as target:
            message_id = await sent(alice, bob.address, payload={"secret": "of the message"})
            for _ in range(2):
                await acknowledged(bob, message_id)
            told = await target.hears(
                "message.accepted", "message.delivered", "message.read", "message.acknowledged"
            )
            for one in told:
                assert one.fits(target.secret)
                assert UUID(one.id) == uuid5(
                    UUID(target.id), f"{one.type}\n{UUID(message_id)}\n{bob.address}"
                )
                assert (one.data["message_id"], one.data["recipient"]) == (message_id, bob.address)
                assert one.data["status"] == "delivered"
                assert b"of the message" not in one.body

            async def noted() -> bool:
                return {a["event"] for a in await target.attempts()} == {*target.types, "challenge"}

            await until(noted)


async def test_a_target_hears_nothing_before_it_repeats_its_challenge(net: Federation) -> None:
    async with net.gateway("acme.test") as acme:
        alice, bob = await acme.register("alice"), await acme.register("bob")
        async with hook(net, acme, alice.key, behaviour=answers(200, {}), active=False) as target:

            async def challenged() -> bool:
                return bool(await target.attempts())

            await until(challenged)
            await sent(alice, bob.address)
            (first, *_) = (a for a in reversed(await target.attempts()))
            assert (first["event"], first["result"], first["status"]) == ("challenge", "failed", 200)
            assert (await target.state())["status"] == "pending"
            net.turn(25 * 3600)  # after a day it is asked no more
            await until(told_all(target))
            net.turn(11)  # and never twice in ten seconds
            target.peer.will(takes)
            await target.call("POST", "/challenge")
            await target.active()
            await sent(alice, bob.address)
            await target.hears("message.accepted", "message.delivered")


async def test_a_failure_is_tried_again_under_the_same_id_until_it_is_taken(net: Federation) -> None:
    async with net.gateway("acme.test") as acme:
        alice, bob = await acme.register("alice"), await acme.register("bob")
        async with hook(net, acme, alice.key, events=["message.delivered"]) as target:
            target.peer.will(answers(500), answers(503, retry_after="30"), takes)
            await sent(alice, bob.address)

            async def tried(times: int) -> None:
                async def look() -> bool:
                    return len([a for a in await target.attempts() if a["event"] != "challenge"]) >= times

                await until(look)

            await tried(1)
            net.turn(2)
            await tried(2)
            net.turn(20)
            await acme.app.housekeeping.once()
            assert len(target.told) == 2  # it asked for half a minute
            net.turn(15)
            await tried(3)
            told = await target.hears(*["message.delivered"] * 3)
            assert len({one.id for one in told}) == 1
            assert len({one.body for one in told}) == 1
            newest = [(a["attempt"], a["status"], a["result"]) for a in (await target.attempts())[:3]]
            assert newest == [(3, 200, "delivered"), (2, 503, "failed"), (1, 500, "failed")]


async def test_what_waits_to_be_told_survives_a_restart(net: Federation) -> None:
    async with net.gateway("acme.test") as acme:
        alice, bob = await acme.register("alice"), await acme.register("bob")
        async with hook(net, acme, alice.key, events=["message.delivered"]) as target:
            target.peer.will(hangs)
            ids = [await sent(alice, bob.address) for _ in range(3)]

            async def asked() -> bool:
                return len(target.peer.requests) > 1

            await until(asked)
    net.turn(60)
    peer = target.peer
    peer.will(takes)
    before = len(target.told)
    async with peer.listening(), net.gateway("acme.test") as again:
        target.gateway = again

        async def told() -> bool:
            return {one.data["message_id"] for one in target.told[before:]} == set(ids)

        await until(told)


async def test_who_is_told_of_a_message_are_its_sender_and_its_own_recipients(net: Federation) -> None:
    async with net.gateway("acme.test") as acme:
        agents = {name: await acme.register(name) for name in ("alice", "bob", "carol", "mallory")}
        keys = {name: agent.key for name, agent in agents.items()} | {"operator": acme.admin_key}
        async with AsyncExitStack() as stack:
            hooks = {
                name: await stack.enter_async_context(hook(net, acme, key, host=f"{name}.hooks.test"))
                for name, key in keys.items()
            }
            await sent(agents["alice"], "bob@acme.test", "carol@acme.test")
            await hooks["operator"].hears(*["message.accepted", "message.delivered"] * 2)
            await hooks["alice"].hears(*["message.accepted", "message.delivered"] * 2)
            for name in ("bob", "carol"):
                told = await hooks[name].hears("message.accepted", "message.delivered")
                assert {one.data["recipient"] for one in told} == {f"{name}@acme.test"}
            assert hooks["mallory"].told == []


async def test_what_was_told_is_told_again_on_request_under_its_id(net: Federation) -> None:
    async with net.gateway("acme.test") as acme:
        alice, bob = await acme.register("alice"), await acme.register("bob")
        async with hook(net, acme, alice.key, events=["message.delivered"]) as target:
            await sent(alice, bob.address)
            await until(told_all(target))
            net.turn(3600)
            since = net.clock.now()
            net.turn(30)
            await sent(alice, bob.address)
            await target.hears(*["message.delivered"] * 2)
            await until(told_all(target))
            first, second = target.told
            assert (await target.call("POST", "/replay", since=render_timestamp(since)))["replayed"] == 1
            *_, again = await target.hears(*["message.delivered"] * 3)
            assert (again.id, again.body) == (second.id, second.body)
            await until(told_all(target))
            long_ago = render_timestamp(since - timedelta(days=1))
            assert (await target.call("POST", "/replay", since=long_ago))["replayed"] == 2
            told = await target.hears(*["message.delivered"] * 5)
            assert {one.id for one in told[3:]} == {first.id, second.id}


def told_all(target: Hook) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return not (await target.state())["waiting"]

    return look


async def test_a_dead_target_is_warned_of_then_rests_and_delays_nobody(
    net: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target_module, "TRY_SECONDS", 2.0)  # enough where a packet was lost, too
    async with net.gateway("acme.test") as acme:
        alice, bob = await acme.register("alice"), await acme.register("bob")
        async with (
            hook(net, acme, acme.admin_key, host="house.test", events=WATCHED) as house,
            hook(net, acme, bob.key, host="well.test", events=["message.delivered"]) as well,
            hook(net, acme, alice.key, host="dead.test", events=["message.accepted"]) as dead,
        ):
            dead.peer.will(hangs)
            for _ in range(20):
                await sent(alice, bob.address)
            await well.hears(*["message.delivered"] * 20)
            await until(told_all(well))
            dead.peer.will(refuses(500, "TEMPORARY_FAILURE"))
            # Each time its rest, of five minutes at most, is over.
            for hours, letter in ((0.1, None), (5, "webhook_failing"), (48, "webhook_disabled")):
                net.turn(hours * 3600)
                await until(failing(dead))
                await acme.app.housekeeping.once()
                await acme.app.housekeeping.once()
                letters = [m for m in await alice.inbox() if m.get("message_type") == letter]
                assert len(letters) == (0 if letter is None else 1)
                await until(told_all(house))  # else its notice is late when the clock turns, and comes again
            await dead.disabled()
            told = await house.hears("webhook.failing", "webhook.disabled")
            assert {one.data["webhook_id"] for one in told} == {dead.id}
            assert not any(b"secret-in-url" in one.body for one in told)
            assert sorted(well.types) == ["message.delivered"] * 20
            # What happens meanwhile is kept; switched on again, it is told.
            kept = await sent(alice, bob.address)
            dead.peer.will(takes)
            await dead.call("PATCH", enabled=True)

            async def heard() -> bool:
                return kept in {one.data["message_id"] for one in dead.told}

            await until(heard)


WATCHED = ["webhook.failing", "webhook.disabled"]


def failing(target: Hook) -> Callable[[], Awaitable[bool]]:
    """Whether it failed just now."""
    start = render_timestamp(target.gateway.app.clock.now())

    async def look() -> bool:
        return bool((await target.state()).get("last_failure", "") >= start)

    return look


async def test_who_says_gone_is_switched_off_at_once(net: Federation) -> None:
    async with net.gateway("acme.test") as acme:
        alice, bob = await acme.register("alice"), await acme.register("bob")
        async with hook(net, acme, alice.key, events=["message.delivered"]) as target:
            target.peer.will(answers(410))
            await sent(alice, bob.address)
            await target.disabled()
            await until(alice.inbox)
            (letter,) = await alice.inbox()
            assert letter["message_type"] == "webhook_disabled"
            assert letter["payload"]["webhook_id"] == target.id
            assert target.types == ["message.delivered"]
            assert (await target.state())["waiting"] == 0  # the letter is no event


async def test_an_operators_webhook_that_is_gone_is_a_letter_to_the_postmaster(net: Federation) -> None:
    async with net.gateway("acme.test") as acme:
        alice, bob = await acme.register("alice"), await acme.register("bob")
        async with hook(net, acme, acme.admin_key, about=[alice.address]) as target:
            target.peer.will(answers(410))
            await sent(alice, bob.address)
            await target.disabled()

            async def letters() -> list[dict[str, Any]]:
                reply = await acme.call("GET", "/v1/inbox/postmaster@acme.test", key=acme.admin_key)
                found: list[dict[str, Any]] = reply.json["messages"]
                return found

            (letter,) = await until(letters)
            assert letter["payload"]["webhook_id"] == target.id
            assert letter["payload"]["host"] == target.peer.url.split("/")[2]


async def test_a_test_event_and_two_secrets_at_once_during_a_rotation(net: Federation) -> None:
    async with net.gateway("acme.test") as acme:
        alice = await acme.register("alice")
        async with hook(net, acme, alice.key) as target:
            answer = await target.call("POST", "/rotate", grace_seconds=60)
            fresh = answer["webhook"]["secret"]
            assert fresh != target.secret
            event_id = (await target.call("POST", "/test"))["event_id"]
            (told,) = await target.hears("webhook.test")
            assert told.id == event_id
            assert told.fits(fresh)
            assert told.fits(target.secret)
            await until(told_all(target))
            net.turn(61)
            await target.call("POST", "/test")
            _, later = await target.hears("webhook.test", "webhook.test")
            assert len(later.signature.split()) == 1


async def test_another_process_tells_a_webhook_that_it_did_not_make(net: Federation) -> None:
    async with net.gateway("acme.test") as acme:
        alice, bob = await acme.register("alice"), await acme.register("bob")
        async with (
            net.gateway("acme.test", listen=LISTEN) as other,
            hook(net, acme, alice.key, events=["message.delivered"]) as target,
        ):
            elsewhere = alice.at(other)

            async def heard() -> bool:
                await sent(elsewhere, bob.address)
                return bool(target.told)

            await until(heard)
            await target.call("DELETE")

            waiting = "select count(*) from notices"
            before = await other.app.database.fetchval(waiting)
            await sent(elsewhere, bob.address)
            assert await other.app.database.fetchval(waiting) <= before


async def test_what_ends_badly_is_told_of_as_what_it_is(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.peer() as peer:
        alice = await acme.register("alice")
        async with hook(net, acme, alice.key, events=ENDINGS) as target:
            peer.will(refuses(400, "INVALID_RECIPIENT"))
            failed = await sent(alice, "nobody@peer.test")
            await target.hears("message.failed", "message.dead")
            assert {one.data["error"]["code"] for one in target.told} == {"INVALID_RECIPIENT"}
            peer.will(refuses(503, "TEMPORARY_FAILURE"))
            late = await sent(alice, "bob@peer.test")
            brief = await sent(alice, "bob@peer.test", headers={"ttl": 3 * 3600})
            then = render_timestamp(net.clock.now() + timedelta(hours=1))
            stopped = await sent(alice, "bob@peer.test", headers={"deliver-after": then})
            gone = await acme.call("DELETE", f"/v1/messages/{stopped}", key=alice.key)
            assert gone.status == 200, gone.text
            await until(told_all(target))
            net.turn(4 * 3600 + 60)
            await until(alice.inbox)
            await acme.app.housekeeping.once()
            told = await target.hears(*ENDINGS)
            assert {one.type: one.data["message_id"] for one in told} == {
                "message.failed": failed,
                "message.dead": failed,
                "message.cancelled": stopped,
                "message.expired": brief,
                "message.delayed": late,
            }


ENDINGS = ["message.failed", "message.dead", "message.cancelled", "message.expired", "message.delayed"]


async def test_an_agent_whose_push_target_is_down_is_told_of_as_unavailable(net: Federation) -> None:
    async with net.gateway("acme.test") as acme:
        alice = await acme.register("alice")
        deaf = net.fake(domain="deaf.test", host="deaf.test")
        net.dns.add("deaf.test", "A", deaf.address)  # where nobody listens
        bob = await acme.register("bob", delivery_mode="push", push_target=deaf.url)
        async with hook(net, acme, acme.admin_key, events=["agent.unavailable"]) as target:
            for _ in range(6):
                await sent(alice, bob.address)
            (told,) = await target.hears("agent.unavailable")
            assert told.data["agent"] == bob.address
            assert "deaf.test" not in json.dumps(told.data)
