"""Section 5.1: the durable path, the immediate path, and waiting for an answer."""

import asyncio
import time
from typing import Any

from conformance.abroad import Abroad
from conformance.check import core, extended, holds, same
from conformance.fake_peer import accepts, refuses
from conformance.s05_from_elsewhere import foreign
from conformance.target import JSON, LINES, Agent, Reply, Target, encoded, eventually

BEST = {"delivery": "best_effort"}
SOON_SECONDS = 10.0


async def asked(alice: Agent, *recipients: str, seconds: int, **members: Any) -> Reply:
    """The answer to a message whose sender waits for the reply."""
    return await alice.post(encoded(alice.message(*recipients, **members)), Prefer=f"wait={seconds}")


async def answering(bob: Agent, payload: Any) -> str:
    """Replies to the first message that comes, as an agent does; the reply's id."""
    (message,) = await eventually(bob.inbox, "the question in the inbox")
    return await bob.sent(message["sender"], in_reply_to=message["message_id"], payload=payload)


@core
async def the_durable_path_is_the_usual_one(target: Target) -> None:
    """Without a wish for anything else the answer is 202, and the message is there already."""
    alice, bob = await target.agents(2)
    (await alice.send(bob.address)).expect(202)
    await bob.only()


@extended
async def a_reply_that_comes_in_time_is_the_answer(target: Target) -> None:
    """D: With Prefer: wait the answer to a request is 200, its receipt and the reply, as soon as that is there."""
    alice, bob = await target.agents(2)
    reply, answer_id = await asyncio.gather(
        asked(alice, bob.address, seconds=30, payload="How much?"), answering(bob, "12")
    )
    told = reply.expect(200)
    same([one["status"] for one in told["recipients"]], ["delivered"], "the receipt beside the reply")
    same((told["reply"]["message_id"], told["reply"]["payload"]), (answer_id, "12"), "the reply")
    same(told["reply"]["in_reply_to"], told["message_id"], "in_reply_to of the reply")
    same((await alice.only())["message_id"], answer_id, "what is in the sender's inbox, too")


@extended
async def without_a_reply_the_answer_is_the_receipt(target: Target) -> None:
    """D: When the time is over and no reply came, the answer is 202 and the receipt; the reply comes to the inbox."""
    alice, bob = await target.agents(2)
    begun = time.monotonic()
    told = (await asked(alice, bob.address, seconds=1)).expect(202)
    holds(1 <= time.monotonic() - begun < SOON_SECONDS, "it took a second")
    holds("reply" not in told, "there is no reply in the answer")
    answer_id = await answering(bob, "late")
    same((await alice.only())["message_id"], answer_id, "the reply in the inbox")


@extended
async def only_who_was_asked_can_end_the_wait(target: Target) -> None:
    """D: A message from somebody who was not asked is no reply, whatever it refers to."""
    alice, bob, eve = await target.agents(3)
    message_id = target.name()
    waiting = asyncio.create_task(asked(alice, bob.address, seconds=2, message_id=message_id))
    await eventually(bob.inbox, "the question in the inbox")
    await eve.sent(alice.address, in_reply_to=message_id, payload="false")
    same((await waiting).status, 202, "the status")


@extended
async def a_repetition_waits_again(target: Target) -> None:
    """D: A request that is sent again under its key waits again, and gets a reply that came meanwhile at once."""
    alice, bob = await target.agents(2)
    await alice.sent(bob.address, idempotency_key="k")
    answer_id = await answering(bob, "12")
    told = (await asked(alice, bob.address, seconds=30, idempotency_key="k")).expect(200)
    same(told["reply"]["message_id"], answer_id, "the reply")
    await bob.only()


@extended
async def a_failure_ends_the_wait(target: Target, abroad: Abroad) -> None:
    """D: When what was asked can't be delivered, nobody waits for a reply any longer."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        peer.will(refuses(400, "POLICY_DENIED"))
        begun = time.monotonic()
        reply = await asked(alice, f"bob@{peer.domain}", seconds=30)
        holds(time.monotonic() - begun < 2 * SOON_SECONDS, "it did not take all the time")
        holds(reply.status in (200, 202), "it was accepted, and the answer says so")


@extended
async def a_reply_from_another_domain_is_the_answer(target: Target, abroad: Abroad) -> None:
    """D: The reply that a waiting sender hears may come from another domain."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        bob = f"bob@{peer.domain}"
        waiting = asyncio.create_task(asked(alice, bob, seconds=30))
        (post,) = await eventually(lambda: _whole(peer.posts), "the question at the peer")
        answer = foreign(alice.address, sender=bob, in_reply_to=post.messages[0]["message_id"])
        (await target.post(answer)).expect(202)
        same((await waiting).expect(200)["reply"]["sender"], bob, "the sender of the reply")


async def _whole(posts: list[Any]) -> list[Any]:
    return [post for post in posts if post.body]


@extended
async def strangers_and_batches_do_not_wait(target: Target) -> None:
    """D: Prefer is for local callers: to strangers, and to batches, the answer is immediate."""
    alice = await target.agent()
    begun = time.monotonic()
    (await target.post(foreign(alice.address), Prefer="wait=30")).expect(202)
    line = encoded(alice.message(alice.address))
    same((await alice.post(line, LINES, Prefer="wait=30")).status, 200, "the status of the batch")
    holds(time.monotonic() - begun < SOON_SECONDS, "nobody waited")


@extended
async def other_preferences_are_ignored(target: Target) -> None:
    """D: A preference that is not understood is as if it were not there."""
    alice, bob = await target.agents(2)
    for preference in ("wait=soon", "wait=-1", "return=minimal", "wait", ""):
        body = encoded(alice.message(bob.address))
        (await alice.post(body, JSON, Prefer=preference)).expect(202)


@extended
async def the_immediate_path_tells_the_outcome(target: Target, abroad: Abroad) -> None:
    """D: A message with delivery best_effort is answered by 200 and what came of each of its recipients."""
    alice, local = await target.agents(2)
    async with abroad.peer() as peer, abroad.peer() as sick:
        sick.will(refuses(503, "TEMPORARY_FAILURE"))
        recipients = (local.address, f"bob@{peer.domain}", f"carol@{sick.domain}")
        told = (await alice.send(*recipients, headers=BEST)).expect(200)
        statuses = [one["status"] for one in told["recipients"]]
        same(statuses, ["delivered", "delivered", "failed"], "the statuses")
        holds(told["recipients"][2]["error"]["code"], "the one that failed has an error")
        same(len(peer.posts), 1, "the number of attempts that went well")
        await local.only()


@extended
async def the_immediate_path_is_one_attempt(target: Target, abroad: Abroad) -> None:
    """D: On the immediate path nothing is queued: where it fails for all, the answer is their error, and final."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        peer.will(refuses(503, "TEMPORARY_FAILURE"), accepts)
        reply = await alice.send(f"bob@{peer.domain}", headers=BEST)
        holds(reply.status >= 400, "the answer is an error")
        reply.envelope()
        await asyncio.sleep(2)
        same(len(peer.posts), 1, "the number of attempts")


@extended
async def what_the_immediate_path_delivers_is_not_repeated(target: Target, abroad: Abroad) -> None:
    """D: A message sent again under its key on the immediate path tells how it went, and goes nowhere again."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        for _ in range(2):
            told = (await alice.send(f"bob@{peer.domain}", headers=BEST, idempotency_key="k")).expect(200)
            same(told["recipients"][0]["status"], "delivered", "the status")
        same(len(peer.posts), 1, "the number of posts")
