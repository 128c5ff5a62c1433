"""Messages for later, and messages that repeat: each moment is served once, whoever is up when it comes."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.config.sections import LimitSettings
from gateway.protocol.timestamp import render_timestamp
from gateway.store.clock import Clock
from tests.world import Agent, Gateway, World

MINUTE = 60


def ahead(gateway: Gateway, seconds: float) -> str:
    return render_timestamp(gateway.app.clock.now() + timedelta(seconds=seconds))


async def tick(*gateways: Gateway) -> None:
    """All processes do their chores at the same time."""
    await asyncio.gather(*(gateway.app.housekeeping.once() for gateway in gateways))


async def schedules(agent: Agent) -> list[dict[str, Any]]:
    reply = await agent.gateway.call("GET", "/v1/schedules", key=agent.key)
    assert reply.status == 200, reply.text
    found: list[dict[str, Any]] = reply.json["schedules"]
    return found


async def repeat(agent: Agent, recipient: Agent, cron: str = "* * * * *", **headers: Any) -> dict[str, Any]:
    reply = await agent.send(recipient.address, headers={"repeat": cron, **headers})
    assert reply.status == 202, reply.text
    found: dict[str, Any] = reply.json
    return found


def a_round_minute() -> Clock:
    """A clock that shows the middle of a minute, so that none ends while a test looks."""
    clock = Clock()
    now = clock.now()
    clock.offset = now.replace(second=20, microsecond=0) - now
    return clock


async def test_a_tick_is_sent_once_by_two_processes_and_across_a_restart(world: World) -> None:
    clock = a_round_minute()
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(world.gateway(clock=clock))
        alice, bob = await one.register("alice"), await one.register("bob")
        set_up = await repeat(alice, bob)
        async with world.gateway(clock=clock) as other:
            for minute in range(1, 4):
                one.turn(MINUTE)
                await tick(one, other)
                assert len(await bob.inbox()) == minute
        async with world.gateway(clock=clock) as restarted:
            await tick(one, restarted)
            assert len(await bob.inbox()) == 3
            one.turn(MINUTE)
            await tick(restarted, one)
        messages = await bob.inbox()
        assert len({message["message_id"] for message in messages}) == 4
        assert len({message["idempotency_key"] for message in messages}) == 4
        assert all("repeat" not in message["headers"] for message in messages)
        (schedule,) = await schedules(alice)
        assert (schedule["id"], schedule["ticks"]) == (set_up["schedule"]["id"], 4)


async def test_ticks_that_were_missed_are_sent_once(world: World) -> None:
    clock = a_round_minute()
    async with world.gateway(clock=clock) as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        await repeat(alice, bob)
    clock.offset += timedelta(minutes=30)
    async with world.gateway(clock=clock) as later:
        await tick(later)
        assert len(await bob.at(later).inbox()) == 1
        next_at = datetime.fromisoformat((await schedules(alice.at(later)))[0]["next_at"])
        assert timedelta(0) < next_at - clock.now() <= timedelta(minutes=1)


async def test_a_message_for_later_comes_once_with_two_processes_and_a_restart_between(world: World) -> None:
    clock = a_round_minute()
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(world.gateway(clock=clock))
        alice, bob = await one.register("alice"), await one.register("bob")
        async with world.gateway(clock=clock) as other:
            sent = await alice.at(other).send(bob.address, headers={"deliver-after": ahead(one, 3600)})
            assert (await bob.inbox()) == []
        one.turn(3601)
        async with world.gateway(clock=clock) as restarted:
            (message,) = await bob.at(restarted).inbox("?wait=20")
            assert message["message_id"] == sent.json["message_id"]
            await tick(one, restarted)
            assert len(await bob.inbox()) == 1


async def test_a_schedule_begins_and_ends_when_it_says(world: World) -> None:
    clock = a_round_minute()
    async with world.gateway(clock=clock) as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        bounds: dict[str, Any] = {
            "deliver-after": ahead(gateway, 180),
            "expires-at": ahead(gateway, 290),
            "ttl": 30,
        }
        set_up = await repeat(alice, bob, **bounds)
        assert set_up["schedule"]["ends_at"] == bounds["expires-at"]
        counts = []
        for _ in range(7):
            gateway.turn(MINUTE)
            await tick(gateway)
            counts.append(len(await bob.inbox()))
        # Two ticks in its time, each message gone after its half minute.
        assert counts == [0, 0, 0, 1, 1, 0, 0]
        assert await schedules(alice) == []


async def test_what_repeats_is_listed_and_cancelled_by_its_agent_and_by_operators(world: World) -> None:
    async with world.gateway(clock=a_round_minute()) as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        own = await repeat(alice, bob, "0 9 * * MON-FRI")
        other = await repeat(alice, bob)
        assert await schedules(bob) == []
        assert [each["id"] for each in await schedules(alice)] == [
            own["schedule"]["id"],
            other["schedule"]["id"],
        ]
        path = f"/v1/schedules/{own['schedule']['id']}"
        assert (await gateway.call("DELETE", path, key=bob.key)).status == 404
        for _ in range(2):
            reply = await gateway.call("DELETE", path, key=alice.key)
            assert (reply.status, reply.json["next_at"]) == (200, None)
        reply = await gateway.call(
            "DELETE", f"/v1/schedules/{other['schedule']['id']}", key=gateway.admin_key
        )
        assert reply.json["end_reason"] == "Cancelled by an operator."
        gateway.turn(MINUTE)
        await tick(gateway)
        assert await bob.inbox() == []
        assert await schedules(alice) == []


async def test_what_a_retired_agent_repeats_ends_with_it(world: World) -> None:
    async with world.gateway(clock=a_round_minute()) as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        await repeat(alice, bob)
        reply = await gateway.call("DELETE", "/v1/admin/agents/alice", key=gateway.admin_key)
        assert reply.status == 200
        alice = await gateway.register("alice")
        gateway.turn(MINUTE)
        await tick(gateway)
        assert await bob.inbox() == []
        assert await schedules(alice) == []


async def test_a_schedule_handed_in_again_is_the_same_one(world: World) -> None:
    async with world.gateway(clock=a_round_minute()) as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        one, two = [
            await alice.send(bob.address, idempotency_key="daily", headers={"repeat": "0 9 * * *"})
            for _ in range(2)
        ]
        assert one.json == two.json
        changed = await alice.send(bob.address, idempotency_key="daily", headers={"repeat": "0 8 * * *"})
        assert changed.code == "IDEMPOTENCY_CONFLICT"
        assert len(await schedules(alice)) == 1


async def test_what_no_tick_can_be_sent_to_is_reported_to_the_agent_that_repeats_it(world: World) -> None:
    async with world.gateway(clock=a_round_minute()) as gateway:
        alice, bob, carol = [await gateway.register(name) for name in ("alice", "bob", "carol")]
        reply = await alice.send(bob.address, carol.address, headers={"repeat": "* * * * *"})
        assert reply.status == 202
        for name in ("carol", "bob"):
            path = f"/v1/admin/agents/{name}?mail=drop"
            await gateway.call("DELETE", path, key=gateway.admin_key)
            gateway.turn(MINUTE)
            await tick(gateway)
        reports = await alice.inbox()
        assert [report["payload"]["failed_recipients"] for report in reports] == [
            [carol.address],
            [bob.address, carol.address],
        ]
        assert {report["payload"]["error_code"] for report in reports} == {"AGENT_UNKNOWN"}


async def test_what_can_not_repeat_is_refused_by_name(world: World) -> None:
    async with world.gateway(clock=a_round_minute()) as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        past = render_timestamp(datetime(2020, 1, 1, tzinfo=UTC))
        cases: list[tuple[str, dict[str, Any]]] = [
            ("headers.repeat", {"repeat": "99 * * * *"}),
            ("headers.repeat", {"repeat": "0 0 30 2 *"}),
            ("headers.repeat", {"repeat": "often"}),
            ("headers.repeat", {"repeat": "* * * * * *"}),
            ("headers.expires-at", {"repeat": "* * * * *", "expires-at": past}),
            ("headers.repeat", {"repeat": "* * * * *", "delivery": "best_effort"}),
        ]
        for field, headers in cases:
            reply = await alice.send(bob.address, headers=headers)
            assert reply.code == "INVALID_MESSAGE_FORMAT"
            assert reply.json["error"]["details"]["field"] == field
            assert ":" in reply.json["error"]["message"]
        assert (await alice.send("nobody@acme.test", headers={"repeat": "* * * * *"})).code == "AGENT_UNKNOWN"
        assert await schedules(alice) == []


async def test_nobody_waits_for_the_reply_to_what_is_sent_later(world: World) -> None:
    async with world.gateway(clock=a_round_minute()) as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        message = {
            "sender": alice.address,
            "recipients": [bob.address],
            "headers": {"repeat": "* * * * *"},
        }
        async with asyncio.timeout(10):
            reply = await gateway.call(
                "POST", "/v1/messages", key=alice.key, json=message, headers={"Prefer": "wait=60"}
            )
        assert (reply.status, reply.json["schedule"]["repeat"]) == (202, "* * * * *")


async def test_an_agent_has_a_bounded_number_of_schedules(world: World) -> None:
    limits = LimitSettings(schedules_per_agent=2)
    async with world.gateway(clock=a_round_minute(), limits=limits) as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        sending = [alice.send(bob.address, payload=n, headers={"repeat": "0 9 * * *"}) for n in range(5)]
        replies = await asyncio.gather(*sending)
        assert sorted(reply.status for reply in replies) == [202, 202, 403, 403, 403]
        (first, _) = await schedules(alice)
        await gateway.call("DELETE", f"/v1/schedules/{first['id']}", key=alice.key)
        await repeat(alice, bob)

        gateway.app.adopt(replace(gateway.app.config, limits=LimitSettings(schedules_per_agent=3)))
        await repeat(alice, bob)
        assert (await alice.send(bob.address, headers={"repeat": "0 9 * * *"})).status == 403


async def test_the_files_of_what_repeats_stay_while_it_does(world: World) -> None:
    async with world.gateway(clock=a_round_minute()) as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        path = "/v1/attachments?filename=list.txt"
        file = await gateway.call(
            "POST", path, key=alice.key, body=b"apples", headers={"Content-Type": "text/plain"}
        )
        headers = {"repeat": "* * * * *"}
        reply = await alice.send(bob.address, headers=headers, attachments=[file.json])
        assert reply.status == 202, reply.text
        gateway.turn(2 * 86_400)
        await tick(gateway)
        (message,) = await bob.inbox()
        fetched = await gateway.call(
            "GET", f"/v1/messages/{message['message_id']}/attachments/0", key=bob.key
        )
        assert fetched.text == "apples"
