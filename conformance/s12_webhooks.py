"""Section 12: who wants to be told of what happens to messages, and is told."""

import json
from typing import Any

from conformance.abroad import Abroad
from conformance.check import core, extended, holds, same
from conformance.fake_peer import Behaviour, Exchange, FakePeer, Received, answers
from conformance.moments import from_now
from conformance.target import Agent, Reply, Target, encoded, eventually
from conformance.webhook_signature import require_signed

HOOKS = "/v1/webhooks"


async def echoes(exchange: Exchange) -> None:
    """Wants what it is sent: repeats a challenge, takes every event."""
    await exchange.read_body()
    await _echo(exchange)


async def _echo(exchange: Exchange) -> None:
    said = json.loads(exchange.request.body)
    await exchange.answer(200, encoded({"challenge": said.get("challenge")}))


def stumbles(times: int) -> Behaviour:
    """Repeats challenges, and fails so many events before it takes them."""
    left = times

    async def behave(exchange: Exchange) -> None:
        nonlocal left
        request = await exchange.read_body()
        if "challenge" in json.loads(request.body) or left == 0:
            await _echo(exchange)
            return
        left -= 1
        await exchange.answer(500)

    return behave


async def ask(agent: Agent, method: str, path: str, body: Any = None) -> Reply:
    raw = None if body is None else encoded(body)
    return await agent.target.call(method, path, key=agent.key, body=raw)


async def subscribed(agent: Agent, hook: FakePeer, *events: str) -> dict[str, Any]:
    """A webhook of the agent's own, once its target has answered the challenge."""
    added = (await ask(agent, "POST", HOOKS, {"url": hook.url, "events": list(events)})).expect(201)[
        "webhook"
    ]
    place = f"{HOOKS}/{added['webhook_id']}"

    async def active() -> bool:
        status: str = (await ask(agent, "GET", place)).expect(200)["webhook"]["status"]
        return status == "active"

    await eventually(active, "the webhook becomes active")
    return {**added, "place": place}


async def told(hook: FakePeer, kind: str, count: int = 1) -> list[Received]:
    """The events of this type that were posted, once there are so many."""

    async def look() -> list[Received]:
        posts = [post for post in hook.posts if post.body and json.loads(post.body)["type"] == kind]
        return posts if len(posts) >= count else []

    found: list[Received] = await eventually(look, f"{count} of {kind}")
    return found


@core
async def a_sender_is_told_of_its_messages(target: Target, abroad: Abroad) -> None:
    """Who subscribed to message.delivered is posted it when a message was delivered: which one, to whom."""
    alice, bob = await target.agents(2)
    async with abroad.hook(echoes) as hook:
        await subscribed(alice, hook, "message.delivered")
        message_id = await alice.sent(bob.address)
        (post,) = await told(hook, "message.delivered")
        event = json.loads(post.body)
        same((event["data"]["message_id"], event["data"]["recipient"]), (message_id, bob.address), "the data")
        holds(event["timestamp"], "the event has a time")
        holds("check" not in json.dumps(event), "the event holds nothing of the payload")


@core
async def events_are_signed(target: Target, abroad: Abroad) -> None:
    """Events are signed as Standard Webhooks has it, with the secret that was told when the webhook was made."""
    alice = await target.agent()
    async with abroad.hook(echoes) as hook:
        webhook = await subscribed(alice, hook, "message.accepted")
        await alice.sent(alice.address)
        (post,) = await told(hook, "message.accepted")
        require_signed(post, webhook["secret"])


@core
async def failures_are_told(target: Target, abroad: Abroad) -> None:
    """A message that can't be delivered is told as message.failed, with the reason."""
    alice = await target.agent()
    async with abroad.hook(echoes) as hook:
        await subscribed(alice, hook, "message.failed")
        await alice.send(f"bob@{abroad.domain()}", alice.address)
        (post,) = await told(hook, "message.failed")
        same(json.loads(post.body)["data"]["error"]["code"], "RECIPIENT_NOT_FOUND", "the code")


@extended
async def nobody_is_told_who_does_not_want_it(target: Target, abroad: Abroad) -> None:
    """D: A webhook is pending, and its target hears of nothing, until it has answered a challenge."""
    alice = await target.agent()
    async with abroad.hook(answers(200, {"challenge": "something else"})) as hook:
        added = (await ask(alice, "POST", HOOKS, {"url": hook.url})).expect(201)["webhook"]
        same(added["status"], "pending", "the status")
        await told(hook, "challenge")
        await alice.sent(alice.address)
        place = f"{HOOKS}/{added['webhook_id']}"
        (await ask(alice, "POST", f"{place}/test")).refused("CONFLICT")
        same((await ask(alice, "GET", place)).expect(200)["webhook"]["status"], "pending", "the status")
        same({json.loads(post.body)["type"] for post in hook.posts if post.body}, {"challenge"}, "the posts")


@core
async def an_event_that_fails_is_repeated(target: Target, abroad: Abroad) -> None:
    """An event that its target did not take is posted again, under the same webhook-id."""
    alice = await target.agent()
    async with abroad.hook(stumbles(2)) as hook:
        await subscribed(alice, hook, "message.accepted")
        await alice.sent(alice.address)
        posts = await told(hook, "message.accepted", 3)
        same(len({(post.headers["webhook-id"], post.body) for post in posts}), 1, "different ids and bodies")


@extended
async def a_replay_is_told_under_the_same_ids(target: Target, abroad: Abroad) -> None:
    """D: Events since a time can be posted again, each under the id it had."""
    alice = await target.agent()
    async with abroad.hook(echoes) as hook:
        webhook = await subscribed(alice, hook, "message.accepted")
        since = from_now(seconds=-1)
        await alice.sent(alice.address)
        (first,) = await told(hook, "message.accepted")
        await eventually(lambda: _replayed(alice, webhook, since), "something to replay")
        again = await told(hook, "message.accepted", 2)
        same({post.headers["webhook-id"] for post in again}, {first.headers["webhook-id"]}, "the ids")


async def _replayed(alice: Agent, webhook: dict[str, Any], since: str) -> int:
    reply = await ask(alice, "POST", f"{webhook['place']}/replay", {"since": since})
    count: int = reply.expect(202)["replayed"]
    return count


@extended
async def a_webhook_can_be_tried(target: Target, abroad: Abroad) -> None:
    """D: A test event is posted at its owner's wish, and stands among the attempts."""
    alice = await target.agent()
    async with abroad.hook(echoes) as hook:
        webhook = await subscribed(alice, hook, "message.dead")
        sent = (await ask(alice, "POST", f"{webhook['place']}/test")).expect(202)["event_id"]
        await told(hook, "webhook.test")

        async def listed() -> bool:
            attempts = (await ask(alice, "GET", f"{webhook['place']}/attempts")).expect(200)["attempts"]
            return any(one["event_id"] == sent and one["result"] == "delivered" for one in attempts)

        await eventually(listed, "the attempt in the list")


@core
async def agents_hear_of_their_own_alone(target: Target, abroad: Abroad) -> None:
    """An agent's webhook hears of messages that it sent or received, and of nobody else's."""
    alice, bob, carol = await target.agents(3)
    async with abroad.hook(echoes) as hook:
        await subscribed(alice, hook, "message.accepted")
        await bob.sent(carol.address)
        ids = {await alice.sent(bob.address), await bob.sent(alice.address)}
        posts = await told(hook, "message.accepted", 2)
        same({json.loads(post.body)["data"]["message_id"] for post in posts}, ids, "the messages")


@core
async def webhooks_belong_to_their_owner(target: Target, abroad: Abroad) -> None:
    """To another agent a webhook does not exist; its owner lists, changes and removes it, and the secret is told once."""
    alice, eve = await target.agents(2)
    async with abroad.hook(echoes) as hook:
        webhook = await subscribed(alice, hook, "message.accepted")
        for method, body in (("GET", None), ("PATCH", {"description": "mine"}), ("DELETE", None)):
            (await ask(eve, method, webhook["place"], body)).refused("NOT_FOUND")
        same((await ask(eve, "GET", HOOKS)).expect(200)["webhooks"], [], "what another agent sees")
        (await target.call("GET", HOOKS)).refused("AUTHENTICATION_FAILED")
        changed = (await ask(alice, "PATCH", webhook["place"], {"description": "mine"})).expect(200)[
            "webhook"
        ]
        same(changed["description"], "mine", "the description")
        (listed,) = (await ask(alice, "GET", HOOKS)).expect(200)["webhooks"]
        holds("secret" not in listed, "the secret is not told again")
        (await ask(alice, "DELETE", webhook["place"])).expect(200)
        (await ask(alice, "GET", webhook["place"])).refused("NOT_FOUND")


@core
async def nobody_is_notified_inside(target: Target) -> None:
    """A URL that is not https, or leads to a private address, gets no webhook; nor does an event that is none."""
    alice = await target.agent()
    for url in ("http://hooks.example.com/x", "https://10.0.0.1/x", "https://[fe80::1]/x", "nothing", ""):
        (await ask(alice, "POST", HOOKS, {"url": url})).refused("INVALID_MESSAGE_FORMAT")
    body = {"url": "https://hooks.example.com/x", "events": ["message.enjoyed"]}
    (await ask(alice, "POST", HOOKS, body)).refused("INVALID_MESSAGE_FORMAT")
