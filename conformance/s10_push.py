"""Section 10.2: messages that are posted to an agent's own URL."""

import asyncio
import json
from typing import Any

from conformance.abroad import Abroad, arrived
from conformance.check import core, extended, holds, same
from conformance.fake_peer import FakePeer, answers, redirects
from conformance.target import ELSEWHERE, Agent, Target
from conformance.webhook_signature import is_signed, require_signed

MEMBERS = (
    *("message_id", "sender", "recipient", "subject", "schema", "timestamp", "in_reply_to"),
    *("headers", "payload", "attachments", "coordination"),
)
LEARNT_SECONDS = 2.5  # until every process knows
OWN_SECRET = "a-secret/of+the_agent's:own"


async def pushed(target: Target, hook: FakePeer, **profile: Any) -> Agent:
    """An agent behind that URL."""
    return await target.agent(delivery_mode="push", push_target=hook.url, **profile)


@core
async def a_push_agent_gets_its_messages_posted(target: Target, abroad: Abroad) -> None:
    """A message for a push agent is posted to its URL as JSON, with all its members, and is then delivered."""
    alice = await target.agent()
    async with abroad.hook() as hook:
        bob = await pushed(target, hook)
        given = {"subject": "Hello", "headers": {"x-a": 1}, "payload": {"n": [1.50, None]}}
        message_id = await alice.sent(bob.address, **given)
        same((await alice.ended(message_id))["status"], "delivered", "the status")
        (post,) = await arrived(hook)
        same((post.method, post.path), ("POST", "/hook"), "the request")
        holds(post.headers["content-type"].startswith("application/json"), "Content-Type is JSON")
        body = json.loads(post.body)
        same(set(MEMBERS) - set(body), set(), "members that are missing")
        head = (body["message_id"], body["sender"], body["recipient"])
        same(head, (message_id, alice.address, bob.address), "the head")
        same({name: body[name] for name in given}, given, "what the sender wrote")
        same(await bob.inbox(), [], "the inbox")


@core
async def what_is_pushed_is_signed(target: Target, abroad: Abroad) -> None:
    """A push is signed as Standard Webhooks has it, with the secret that the registration was answered with."""
    alice = await target.agent()
    async with abroad.hook() as hook:
        bob = await pushed(target, hook)
        holds(bob.secret.startswith("whsec_"), "the secret begins with whsec_")
        await alice.sent(bob.address)
        (post,) = await arrived(hook)
        require_signed(post, bob.secret)
        same(is_signed(post, "whsec_" + "AAAA" * 8), False, "another secret signs it, too")


@extended
async def agents_may_bring_their_secret(target: Target, abroad: Abroad) -> None:
    """D: A secret of the agent's own, of 16 to 128 characters, signs as its UTF-8 bytes, and is not told again."""
    alice = await target.agent()
    async with abroad.hook() as hook:
        bob = await pushed(target, hook, push_secret=OWN_SECRET)
        same(bob.secret, "", "the secret in the answer")
        await alice.sent(bob.address)
        (post,) = await arrived(hook)
        require_signed(post, OWN_SECRET)
        for bad in ("short", "x" * 129):
            profile = {"delivery_mode": "push", "push_target": hook.url, "push_secret": bad}
            (await target.register(address=target.address(), **profile)).refused("INVALID_MESSAGE_FORMAT")


@core
async def a_push_that_fails_is_repeated(target: Target, abroad: Abroad) -> None:
    """A push that fails is tried again, with the same webhook-id and the same body, until the agent takes it."""
    alice = await target.agent()
    async with abroad.hook(answers(500), answers(503), answers(200)) as hook:
        bob = await pushed(target, hook)
        same((await alice.ended(await alice.sent(bob.address)))["status"], "delivered", "the status")
        posts = await arrived(hook, 3)
        same(len({(post.headers["webhook-id"], post.body) for post in posts}), 1, "different ids and bodies")
        for post in posts:
            require_signed(post, bob.secret)


@core
async def redirects_of_an_agent_are_not_followed(target: Target, abroad: Abroad) -> None:
    """Where an agent's URL answers with a redirect, nothing is sent to where it points."""
    alice = await target.agent()
    async with abroad.hook() as elsewhere, abroad.hook(redirects(elsewhere.url), answers(200)) as hook:
        bob = await pushed(target, hook)
        same((await alice.ended(await alice.sent(bob.address)))["status"], "delivered", "the status")
        same(elsewhere.requests, [], "what arrived where the redirect points")


@core
async def a_response_becomes_a_reply(target: Target, abroad: Abroad) -> None:
    """What an agent answers as its response is sent to the sender, as a message from the agent in reply to it."""
    alice = await target.agent()
    response = {"status": "accepted", "response": {"payload": {"price": 12}, "subject": "Offer"}}
    async with abroad.hook(answers(200, response)) as hook:
        bob = await pushed(target, hook)
        message_id = await alice.sent(bob.address, payload="How much?")
        (reply,) = await alice.mail()
        same((reply["sender"], reply["in_reply_to"]), (bob.address, message_id), "the reply")
        holds("price" in json.dumps(reply["payload"]), "the reply has what the agent answered")


@extended
async def a_reply_belongs_to_its_conversation(target: Target, abroad: Abroad) -> None:
    """D: A reply of a push agent goes to reply-to, bears correlation-id and thread-id, and is marked as automatic."""
    alice, desk = await target.agents(2)
    headers = {"reply-to": desk.address, "correlation-id": "c-1", "thread-id": "t-1"}
    async with abroad.hook(answers(200, {"status": "accepted", "response": {"payload": 1}})) as hook:
        bob = await pushed(target, hook)
        await alice.sent(bob.address, headers=headers)
        (reply,) = await desk.mail()
        told = {
            name: reply["headers"].get(name) for name in ("correlation-id", "thread-id", "auto-submitted")
        }
        same(told, {"correlation-id": "c-1", "thread-id": "t-1", "auto-submitted": "auto-replied"}, "headers")


@extended
async def automatic_messages_are_not_answered(target: Target, abroad: Abroad) -> None:
    """D: What a push agent answers to an automatic message is sent to nobody."""
    alice = await target.agent()
    async with abroad.hook(answers(200, {"status": "accepted", "response": {"payload": 1}})) as hook:
        bob = await pushed(target, hook)
        for kind in ("auto-generated", "auto-replied"):
            await alice.ended(await alice.sent(bob.address, headers={"auto-submitted": kind}))
        last = await alice.sent(bob.address)
        same([reply["in_reply_to"] for reply in await alice.mail()], [last], "what was answered")


@extended
async def two_secrets_sign_while_one_is_replaced(target: Target, abroad: Abroad) -> None:
    """D: After a rotation the new secret and the old one sign every push, until the old one's time is over."""
    alice = await target.agent()
    async with abroad.hook() as hook:
        bob = await pushed(target, hook)
        place = f"/v1/admin/agents/{bob.local}/rotate-push-secret"
        fresh = (await target.admin("POST", place, {"grace_seconds": 60})).expect(200)["agent"]["push_secret"]
        await alice.sent(bob.address)
        (post,) = await arrived(hook)
        same(is_signed(post, bob.secret, fresh), True, "both sign it")
        (await target.admin("POST", place, {"grace_seconds": 0})).expect(200)
        await alice.sent(bob.address)
        same(is_signed((await arrived(hook, 2))[1], bob.secret), False, "the first still signs")


@extended
async def who_retired_is_pushed_to_no_more(target: Target, abroad: Abroad) -> None:
    """D: A retired agent is pushed nothing; its inbox goes on accepting."""
    alice = await target.agent()
    async with abroad.hook() as hook:
        bob = await pushed(target, hook)
        (await target.admin("DELETE", f"/v1/admin/agents/{bob.local}")).expect(200)
        (told,) = (await alice.ended(await alice.sent(bob.address)))["recipients"]
        same((told["status"], told["via"], hook.requests), ("delivered", "inbox", []), "where it went")


@extended
async def who_is_gone_gets_its_mail_in_the_inbox(target: Target, abroad: Abroad) -> None:
    """D: An agent whose URL answers 410 has this message and those to come in its inbox, and is soon pushed to no more."""
    alice = await target.agent()
    async with abroad.hook(answers(410)) as hook:
        bob = await pushed(target, hook)
        ids = []
        for _ in range(3):
            ids.append(await alice.sent(bob.address))
            same((await alice.ended(ids[-1]))["status"], "delivered", "the status")
        same([message["message_id"] for message in await bob.inbox()], ids, "the inbox")
        await asyncio.sleep(LEARNT_SECONDS)
        posts = len(hook.posts)
        await alice.ended(await alice.sent(bob.address))
        same(len(hook.posts), posts, "the number of posts after a while")


@extended
async def who_has_a_pushed_message_is_told(target: Target, abroad: Abroad) -> None:
    """The status of a message that was pushed says so: via webhook."""
    alice = await target.agent()
    async with abroad.hook() as hook:
        bob = await pushed(target, hook)
        (told,) = (await alice.ended(await alice.sent(bob.address)))["recipients"]
        same(told["via"], "webhook", "via")


@core
async def nobody_is_pushed_to_inside(target: Target) -> None:
    """A URL that is not https, or leads to a private address, is no push target."""
    for url in (
        "http://hooks.example.com/x",
        "ftp://hooks.example.com/x",
        "https://10.0.0.1/x",
        "https://169.254.169.254/latest",
        "https://[::ffff:10.0.0.1]/x",
        "https://user:word@hooks.example.com/x",
        "hooks.example.com",
        "",
    ):
        reply = await target.register(address=target.address(), delivery_mode="push", push_target=url)
        reply.refused("INVALID_MESSAGE_FORMAT")


@extended
async def push_targets_stay_with_the_operators(target: Target, abroad: Abroad) -> None:
    """D: Discovery does not tell where an agent is pushed to, nor does the status of a message, when that fails."""
    alice = await target.agent()
    async with abroad.hook(answers(500)) as hook:
        bob = await pushed(target, hook)
        message_id = await alice.sent(bob.address)
        told = await alice.delayed(message_id)
        found = (await alice.get(f"/v1/discovery/agents/{target.domain}?limit=1000")).expect(200)
        holds(bob.address in json.dumps(found), "the agent can be discovered")
        for text in (json.dumps(found), json.dumps(told)):
            holds(hook.host not in text, f"{text[:40]}… does not tell the URL")


@core
async def mail_from_elsewhere_is_pushed_as_such(target: Target, abroad: Abroad) -> None:
    """A message that a stranger sent is pushed, too, and nothing in it passes for proven."""
    async with abroad.hook() as hook:
        bob = await pushed(target, hook)
        stranger = {"version": "1.0", "sender": f"eve@{ELSEWHERE}", "recipients": [bob.address], "payload": 1}
        (await target.post({**stranger, "sender_verification": "pass"})).expect(202)
        (post,) = await arrived(hook)
        holds(json.loads(post.body).get("sender_verification") != "pass", "it does not pass as verified")
