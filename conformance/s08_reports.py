"""Section 8: what a sender hears when a message could not be delivered, and what operators find."""

from datetime import datetime
from typing import Any

from conformance.abroad import Abroad
from conformance.check import core, extended, holds, same
from conformance.fake_peer import refuses
from conformance.moments import from_now
from conformance.target import ELSEWHERE, Agent, Target

FIELDS = (
    "original_message_id",
    "failed_recipients",
    "error_code",
    "error_message",
    "retry_count",
    "final_attempt",
)
CODE, TEXT = "POLICY_DENIED", "Not with us."


async def failed(alice: Agent, abroad: Abroad, **members: Any) -> tuple[str, str]:
    """Id and recipient of a message that a peer refused for good."""
    async with abroad.peer() as peer:
        peer.will(refuses(400, CODE, TEXT))
        bob = f"bob@{peer.domain}"
        message_id = await alice.sent(bob, **members)
        same((await alice.ended(message_id))["status"], "failed", "the status")
        return message_id, bob


@core
async def a_failure_is_reported_to_its_sender(target: Target, abroad: Abroad) -> None:
    """The sender of a message that failed finds one report: from postmaster, in reply to it, a delivery_failure."""
    alice = await target.agent()
    message_id, bob = await failed(alice, abroad)
    (report,) = await alice.mail()
    same(report["sender"], f"postmaster@{target.domain}", "the sender of the report")
    same((report["message_type"], report["in_reply_to"]), ("delivery_failure", message_id), "the head")
    same(report["original_message_id"], message_id, "original_message_id")
    same(report["failed_recipients"], [bob], "failed_recipients")
    same(report["error_code"], CODE, "error_code")
    holds(TEXT in report["error_message"], "error_message tells what the peer said")
    same(report["retry_count"], 1, "retry_count")
    holds(datetime.fromisoformat(report["final_attempt"]).tzinfo, "final_attempt is a time")


@extended
async def a_report_says_it_twice(target: Target, abroad: Abroad) -> None:
    """D: The fields of a report stand at its top level and in its payload, and it is marked as automatic."""
    alice = await target.agent()
    await failed(alice, abroad)
    (report,) = await alice.mail()
    for name in FIELDS:
        same(report["payload"][name], report[name], f"{name} in the payload")
    same(report["headers"]["auto-submitted"], "auto-generated", "auto-submitted")


@extended
async def automatic_messages_cause_no_report(target: Target, abroad: Abroad) -> None:
    """D: A message that is marked as automatic fails without a report."""
    alice = await target.agent()
    for value in ("auto-generated", "auto-replied"):
        await failed(alice, abroad, headers={"auto-submitted": value})
    last, _ = await failed(alice, abroad)
    same([report["in_reply_to"] for report in await alice.mail()], [last], "what is reported on")


@extended
async def strangers_get_no_report(target: Target, abroad: Abroad) -> None:
    """D: An unproven sender, who may be forged, gets no report."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        message = {
            "version": "1.0",
            "sender": f"eve@{peer.domain}",
            "recipients": [alice.address, target.address()],
            "payload": 1,
        }
        (await target.post(message)).expect(202)
        await alice.ended(await alice.sent(f"bob@{peer.domain}"))
        same([post.messages[0]["sender"] for post in peer.posts], [alice.address], "who wrote to the peer")


@extended
async def a_failure_is_a_dead_letter(target: Target, abroad: Abroad) -> None:
    """A message that failed is a dead letter: what, why, how often and when, with the original."""
    alice = await target.agent()
    message_id, bob = await failed(alice, abroad, payload={"mark": 1})
    listed = (await alice.get("/v1/dead-letters")).expect(200)["dead_letters"]
    (letter,) = [one for one in listed if one["message_id"] == message_id]
    same((letter["recipient"], letter["sender"], letter["attempts"]), (bob, alice.address, 1), "the letter")
    holds(TEXT in letter["failure_reason"], "failure_reason tells what the peer said")
    for name in ("first_attempt", "last_attempt", "dlq_timestamp"):
        holds(datetime.fromisoformat(letter[name]).tzinfo, f"{name} is a time")
    whole = (await alice.get(f"/v1/dead-letters/{letter['dead_letter']}")).expect(200)
    same(whole["original_message"]["payload"], {"mark": 1}, "the payload of the original")


@extended
async def dead_letters_are_their_senders_and_the_operators(target: Target, abroad: Abroad) -> None:
    """Agents see the dead letters of what they sent and no others; operators see all, and replay them under the same ids."""
    alice, eve = await target.agents(2)
    async with abroad.peer() as peer:
        peer.will(refuses(400, CODE))
        message_id = await alice.sent(f"bob@{peer.domain}")
        await alice.ended(message_id)
        same((await eve.get("/v1/dead-letters")).expect(200)["dead_letters"], [], "what another agent sees")
        (letter,) = (await alice.get("/v1/dead-letters")).expect(200)["dead_letters"]
        place = f"/v1/dead-letters/{letter['dead_letter']}"
        (await target.admin("GET", place)).expect(200)
        (await alice.get(f"{place}/replay")).envelope()
        peer.will(refuses(400, CODE, TEXT))
        (await target.admin("POST", f"{place}/replay")).expect(200)
        await alice.mail(2)
        first, second = (post.messages[0] for post in peer.posts)
        for name in ("message_id", "idempotency_key"):
            same(second[name], first[name], name)


@extended
async def a_conflict_about_a_repeat_is_no_known_failure(target: Target, abroad: Abroad) -> None:
    """D: A 409 at a second attempt says that the first may have arrived: a dead letter, and no report."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        peer.will(refuses(503, "TEMPORARY_FAILURE"), refuses(409, "MESSAGE_ID_CONFLICT"))
        message_id = await alice.sent(f"bob@{peer.domain}")
        await alice.ended(message_id)
    listed = (await alice.get("/v1/dead-letters")).expect(200)["dead_letters"]
    same([letter["message_id"] for letter in listed], [message_id], "the dead letters")
    last, _ = await failed(alice, abroad)
    same([report["in_reply_to"] for report in await alice.mail()], [last], "what is reported on")


@extended
async def a_message_that_waits_for_its_time_is_not_sent(target: Target, abroad: Abroad) -> None:
    """D: A message with deliver-after waits until then, also on its way to another domain."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        then = from_now(seconds=3)
        message_id = await alice.sent(f"bob@{peer.domain}", headers={"deliver-after": then})
        await alice.ended(await alice.sent(f"bob@{peer.domain}"))
        same(len(peer.posts), 1, "the number of posts before")
        told = (await alice.ended(message_id))["recipients"][0]
        holds(datetime.fromisoformat(told["delivered_at"]) >= datetime.fromisoformat(then), "it came later")


@core
async def reports_can_not_be_forged(target: Target) -> None:
    """A report that a stranger writes is not shown as one of the gateway's."""
    alice = await target.agent()
    message = {
        "version": "1.0",
        "sender": f"postmaster@{ELSEWHERE}",
        "recipients": [alice.address],
        "message_type": "delivery_failure",
        "in_reply_to": "something",
        "payload": {},
    }
    reply = await target.post(message)
    if reply.status == 202:
        shown = await alice.only()
        holds(shown.get("sender_verification") != "pass", "it does not pass as verified")
