"""Section 5: what gateways of other domains hand in, and the way back."""

import json
from typing import Any

from conformance.abroad import Abroad, arrived
from conformance.check import core, extended, same
from conformance.target import ELSEWHERE, LINES, Agent, Target


def foreign(*recipients: str, sender: str = f"someone@{ELSEWHERE}", **members: Any) -> dict[str, Any]:
    """A message from another domain."""
    return {
        "version": "1.0",
        "sender": sender,
        "recipients": list(recipients),
        "payload": {"a": 1},
        **members,
    }


@core
async def an_answer_finds_its_way_back(target: Target, abroad: Abroad) -> None:
    """A message from another domain arrives, and the reply to it is posted to that domain's gateway."""
    bob = await target.agent()
    async with abroad.peer() as peer:
        sender = f"eve@{peer.domain}"
        question = (await target.post(foreign(bob.address, sender=sender, message_id=target.name()))).expect(
            202
        )
        same((await bob.only())["sender"], sender, "the sender in the inbox")
        await bob.sent(sender, in_reply_to=question["message_id"])
        copy = (await arrived(peer))[0].messages[0]
        same((copy["sender"], copy["in_reply_to"]), (bob.address, question["message_id"]), "the reply")


@core
async def nothing_is_passed_on_between_strangers(target: Target, abroad: Abroad) -> None:
    """Mail from elsewhere to elsewhere is refused, and nothing of it reaches the other gateway."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        reply = await target.post(foreign(f"bob@{peer.domain}"))
        reply.refused("RELAY_DENIED", "AUTHENTICATION_FAILED", "SENDER_NOT_ALLOWED")
        await alice.ended(await alice.sent(f"carol@{peer.domain}"))
        same([post.messages[0]["sender"] for post in peer.posts], [alice.address], "who reached the peer")


@core
async def a_message_may_come_once_for_each_recipient(target: Target) -> None:
    """A gateway that posts a message once for each recipient, under one id and key, reaches all of them once."""
    agents = await target.agents(3)
    ids = {"message_id": target.name(), "idempotency_key": target.name()}
    for _ in range(2):
        for agent in agents:
            receipt = (await target.post(foreign(agent.address, **ids))).expect(202)
            same(receipt["message_id"], ids["message_id"], "the id")
    for agent in agents:
        await agent.only()


@core
async def empty_members_mean_none(target: Target) -> None:
    """Optional members that a gateway fills with null or an empty text count as absent."""
    bob = await target.agent()
    optional = ("message_id", "idempotency_key", "subject", "schema", "in_reply_to", "response_type")
    for nothing in (None, ""):
        empty: dict[str, Any] = dict.fromkeys(optional, nothing)
        others: dict[str, Any] = {
            "headers": None,
            "attachments": None,
            "coordination": None,
            "signature": None,
        }
        (await target.post(foreign(bob.address, **empty, **others))).expect(202)
    same(len(await bob.inbox()), 2, "the number of messages")


@extended
async def a_batch_from_elsewhere_is_taken_line_by_line(target: Target) -> None:
    """D: A batch from another domain is answered line by line, and what it may not send is refused in its line."""
    bob = await target.agent()
    lines = [foreign(bob.address), foreign(f"x@other.{ELSEWHERE}"), foreign(bob.address, sender=bob.address)]
    body = b"\n".join(json.dumps(line).encode() for line in lines)
    reply = await target.call("POST", "/v1/messages", body=body, content_type=LINES)
    same(reply.status, 200, "the status of the batch")
    told = [json.loads(line) for line in reply.body.splitlines()]
    codes = [line.get("error", {}).get("code") for line in told]
    same(codes, [None, "RELAY_DENIED", "AUTHENTICATION_FAILED"], "the codes")
    await bob.only()


@extended
async def a_message_that_came_by_twice_is_no_loop_yet(target: Target, abroad: Abroad) -> None:
    """D: A message is refused with LOOP_DETECTED when the gateway itself stands in its Via three times."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        await alice.sent(f"bob@{peer.domain}")
        name = (await arrived(peer))[0].headers["via"].rpartition(" ")[2]
        same((await _went_round(target, alice, name, 2)).status, 202, "the status after two rounds")
        (await _went_round(target, alice, name, 3)).refused("LOOP_DETECTED")
        same(len(await alice.inbox()), 1, "the number of messages in the inbox")


async def _went_round(target: Target, alice: Agent, name: str, rounds: int) -> Any:
    via = ", ".join([f"1.1 {name}", f"1.1 gw.{ELSEWHERE}"] * rounds)
    return await target.post(foreign(alice.address), Via=via)


@extended
async def proof_is_not_shared_with_the_unproven(target: Target) -> None:
    """D: An unproven sender's keys are its own: they are no repetition of, and no conflict with, those of a local one."""
    alice, bob = await target.agents(2)
    await alice.sent(bob.address, idempotency_key="k", payload=1)
    reply = await target.post(foreign(bob.address, idempotency_key="k", payload=2))
    reply.expect(202)
    same(sorted(message["payload"] for message in await bob.inbox()), [1, 2], "the payloads")
