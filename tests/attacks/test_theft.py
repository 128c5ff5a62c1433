"""What a thief of a key has at work ends with the key: streams, waits, webhooks, schedules, queued mail."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from gateway.admit.api_key import mint_key
from gateway.store.agents.keys import NamedKeys, NewKey
from gateway.store.tallies import balance
from gateway.wiring.features import LEAVINGS
from tests.telling import ask, in_an_hour, waiting
from tests.world import Agent, Gateway, Reply, World

PATIENCE_SECONDS = 20.0  # far less than a stream goes without a look of its own
LONG_SECONDS = 60
HOOK = {"url": "https://thief.test/hook", "events": ["message.delivered"]}


async def rotate(gateway: Gateway, local: str = "alice", **said: Any) -> dict[str, Any]:
    path = f"/v1/admin/agents/{local}/rotate-key"
    reply = await gateway.call("POST", path, key=gateway.admin_key, json={"grace_seconds": 0, **said})
    assert reply.status == 200, reply.text
    answer: dict[str, Any] = reply.json
    return answer


async def stream_of(agent: Agent) -> aiohttp.ClientResponse:
    headers = {"Authorization": f"Bearer {agent.key}", "Accept": "text/event-stream"}
    response = await agent.gateway.session.get(
        f"{agent.gateway.url}/v1/inbox/{agent.address}", headers=headers
    )
    assert response.status == 200
    await response.content.readline()  # it has begun
    return response


async def ends(response: aiohttp.ClientResponse) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await response.content.readline():
            pass


async def waits(agent: Agent) -> Reply:
    path = f"/v1/inbox/{agent.address}?wait={LONG_SECONDS}"
    return await agent.gateway.call("GET", path, key=agent.key)


async def hooks(gateway: Gateway) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await gateway.call("GET", "/v1/webhooks", key=gateway.admin_key)).json[
        "webhooks"
    ]
    return found


async def at_work(gateway: Gateway) -> tuple[Agent, dict[str, str]]:
    """Alice, and what somebody left at work with her key; the operator made a webhook for her, too."""
    alice = await gateway.register("alice")
    hook = await gateway.call("POST", "/v1/webhooks", key=alice.key, json=HOOK)
    owned = await gateway.call(
        "POST", "/v1/webhooks", key=gateway.admin_key, json={**HOOK, "owner": alice.address}
    )
    repeats = await alice.send("x@p.test", headers={"repeat": "0 0 1 1 *"})
    queued = await alice.send("x@p.test", headers={"deliver-after": in_an_hour(gateway)})
    assert {hook.status, owned.status, repeats.status, queued.status} == {201, 202}
    return alice, {
        "hook": hook.json["webhook"]["webhook_id"],
        "operators": owned.json["webhook"]["webhook_id"],
        "schedule": repeats.json["schedule"]["id"],
        "queued": queued.json["message_id"],
    }


@pytest.mark.parametrize("act", ["rotate", "retire"])
async def test_a_stream_of_a_key_that_was_taken_back_ends_at_once(world: World, act: str) -> None:
    async with world.gateway() as one, world.gateway() as other:
        alice = await one.register("alice")
        here, there = await stream_of(alice), await stream_of(alice.at(other))
        if act == "rotate":
            await rotate(one)
        else:
            await one.call("DELETE", "/v1/admin/agents/alice", key=one.admin_key)
        await asyncio.gather(ends(here), ends(there))


async def test_a_wait_of_a_key_that_was_taken_back_ends_at_once_and_hands_out_nothing(world: World) -> None:
    async with world.gateway() as one, world.gateway() as other:
        alice, bob = await one.register("alice"), await one.register("bob")
        waiting = [asyncio.create_task(waits(each)) for each in (alice, alice.at(other))]
        for each in (alice, alice.at(other)):  # the waits, which were sent before, have begun by then
            assert await each.inbox() == []
        await rotate(one)
        async with asyncio.timeout(PATIENCE_SECONDS):
            replies = await asyncio.gather(*waiting)
        assert [reply.status for reply in replies] == [401, 401]
        assert (await bob.send(alice.address)).status == 202


async def test_a_wait_for_a_reply_with_a_key_that_was_taken_back_ends_at_once_and_without_the_reply(
    world: World,
) -> None:
    async with world.gateway() as one, world.gateway() as other:
        alice, bob = await one.register("alice"), await one.register("bob")
        asking = [
            asyncio.create_task(ask(each, bob.address, message_id=f"asked-{place}", seconds=LONG_SECONDS))
            for place, each in enumerate((alice, alice.at(other)))
        ]
        await waiting(one)
        await waiting(other)
        await rotate(one)
        async with asyncio.timeout(PATIENCE_SECONDS):
            replies = await asyncio.gather(*asking)
        assert [(reply.status, "reply" in reply.json) for reply in replies] == [(202, False)] * 2


async def test_a_revoked_key_of_a_program_lists_the_schedules_it_made_for_agents_and_drops_them(
    gw: Gateway,
) -> None:
    alice, robot = await gw.register("alice"), mint_key()
    named = NamedKeys(gw.app.database, gw.app.audit, LEAVINGS)
    await named.add(NewKey(robot.id, robot.digest), "robot", ["submit"], "tests")
    message = {"sender": alice.address, "recipients": ["x@p.test"], "headers": {"repeat": "0 0 1 1 *"}}
    by_robot = await gw.call("POST", "/v1/messages", key=robot.text, json=message)
    by_alice = await alice.send("x@p.test", headers={"repeat": "0 0 2 2 *"})
    revoked = await named.revoke("robot", "tests", drop=True)
    assert revoked is not None
    assert [str(each.id) for each in revoked[1].left["schedules"]] == [by_robot.json["schedule"]["id"]]
    left = (await gw.call("GET", "/v1/schedules", key=gw.admin_key)).json["schedules"]
    assert [schedule["id"] for schedule in left] == [by_alice.json["schedule"]["id"]]


async def test_an_operator_sees_which_keys_an_agent_has_and_when_they_were_used(gw: Gateway) -> None:
    alice = await gw.register("alice")
    await alice.inbox()
    await rotate(gw, grace_seconds=3600)
    await gw.app.housekeeping.once()
    shown = await gw.call("GET", "/v1/admin/agents/alice", key=gw.admin_key)
    used, fresh = shown.json["agent"]["keys"]
    assert (used["key"], set(used)) == (
        alice.key.split("_")[1],
        {"key", "created_at", "expires_at", "last_used_at"},
    )
    assert set(fresh) == {"key", "created_at"}


async def test_another_agents_stream_goes_on(gw: Gateway) -> None:
    alice, bob = await gw.register("alice"), await gw.register("bob")
    stream = await stream_of(bob)
    await rotate(gw)
    assert (await alice.send(bob.address)).status == 401
    assert (await bob.send(bob.address, payload="still here")).status == 202
    async with asyncio.timeout(PATIENCE_SECONDS):
        while b"still here" not in await stream.content.readline():
            pass
    stream.close()


async def test_a_rotation_lists_what_the_key_made_and_leaves_it_unless_told(gw: Gateway) -> None:
    alice, made = await at_work(gw)
    answer = (await rotate(gw))["made_before"]
    (hook,), (schedule,) = answer["webhooks"], answer["schedules"]
    key = alice.key.split("_")[1]
    assert (hook["webhook_id"], hook["url"], hook["key"]) == (made["hook"], HOOK["url"], key)
    assert (schedule["id"], schedule["key"]) == (made["schedule"], key)
    assert (answer["queued"], answer["dropped"]) == (1, False)
    assert len(await hooks(gw)) == 2


async def test_a_rotation_that_drops_leaves_nothing_of_the_thief_at_work(gw: Gateway) -> None:
    _, made = await at_work(gw)
    answer = await rotate(gw, drop=True)
    again = await rotate(gw)
    assert (answer["made_before"]["dropped"], again["made_before"]["queued"]) == (True, 0)
    assert (again["made_before"]["webhooks"], again["made_before"]["schedules"]) == ([], [])
    assert [hook["webhook_id"] for hook in await hooks(gw)] == [made["operators"]]
    schedules = await gw.call("GET", "/v1/schedules", key=gw.admin_key)
    assert schedules.json["schedules"] == []
    status = await gw.call("GET", f"/v1/messages/{made['queued']}/status", key=gw.admin_key)
    assert status.json["recipients"][0]["status"] == "cancelled"
    assert (await balance(gw.app.database)).unaccounted == 0
    details = await gw.app.database.fetchval(
        "select details from audit where act = 'agent.key_rotated' order by number limit 1"
    )
    assert json.loads(details)["dropped"] == {"webhooks": 1, "schedules": 1, "queued": 1}


async def test_a_name_that_is_registered_again_says_what_it_brings_back_and_tells_no_old_webhook(
    gw: Gateway,
) -> None:
    alice, made = await at_work(gw)
    bob = await gw.register("bob")
    await gw.app.database.execute("update subscriptions set status = 'active', proven_at = amtp_now()")
    await bob.send(alice.address)
    await gw.call("DELETE", "/v1/admin/agents/alice", key=gw.admin_key)
    reply = await gw.call("POST", "/v1/admin/agents", key=gw.admin_key, json={"address": "alice"})
    back = reply.json["brought_back"]
    assert (reply.status, back["unread"]) == (201, 1)
    assert set(back["disabled_webhooks"]) == {made["hook"], made["operators"]}
    assert "again" in reply.json["message"]
    assert {hook["status"] for hook in await hooks(gw)} == {"disabled"}
    fresh = await gw.call("POST", "/v1/admin/agents", key=gw.admin_key, json={"address": "carol"})
    assert "brought_back" not in fresh.json
