"""Section 4: headers that mean something to a gateway. All of it is decided by this project (D)."""

from typing import Any

from conformance.check import core, extended, holds, same
from conformance.moments import from_now
from conformance.target import Target, encoded, eventually

GOOD: tuple[tuple[str, Any], ...] = (
    ("priority", "low"),
    ("priority", "normal"),
    ("priority", "high"),
    ("priority", "urgent"),
    ("ttl", 60),
    ("delivery", "at_least_once"),
    ("kind", "request"),
    ("kind", "response"),
    ("kind", "broadcast"),
    ("kind", "negotiation"),
    ("correlation-id", "c-1"),
    ("thread-id", "t-1"),
    ("receipt", "none"),
    ("auto-submitted", "no"),
    ("auto-submitted", "auto-generated"),
    ("auto-submitted", "auto-replied"),
)
BAD: tuple[tuple[str, Any], ...] = (
    ("priority", "highest"),
    ("priority", 1),
    ("ttl", 0),
    ("ttl", -1),
    ("ttl", "soon"),
    ("ttl", True),
    ("expires-at", "tomorrow"),
    ("expires-at", "2026-01-01"),
    ("deliver-after", "2026-01-01 10:00"),
    ("deliver-after", 1),
    ("repeat", "every day"),
    ("repeat", "* * * *"),
    ("delivery", "twice"),
    ("kind", "letter"),
    ("correlation-id", 7),
    ("thread-id", []),
    ("reply-to", "nobody"),
    ("receipt", "yes"),
    ("auto-submitted", True),
)


@core
async def unknown_headers_pass_untouched(target: Target) -> None:
    """Headers that a gateway does not know reach the recipient untouched."""
    alice, bob = await target.agents(2)
    headers = {"X-Custom": {"deep": [1, 2.50]}, "x-priority": "whatever", "trace_id": None}
    await alice.sent(bob.address, headers=headers)
    same((await bob.only())["headers"], headers, "headers")


@extended
async def known_headers_with_a_good_value_are_accepted(target: Target) -> None:
    """D: The values that a known header may have are accepted, and arrive as sent."""
    alice, bob = await target.agents(2)
    for name, value in GOOD:
        await alice.sent(bob.address, headers={name: value})
    found = [message["headers"] for message in await bob.inbox()]
    same(found, [{name: value} for name, value in GOOD], "the headers in the inbox")


@extended
async def known_headers_with_a_bad_value_are_refused(target: Target) -> None:
    """D: A known header with a value it can't have makes the message invalid."""
    alice = await target.agent()
    for name, value in BAD:
        reply = await alice.send(alice.address, headers={name: value})
        holds(reply.status == 400, f"{name}: {value!r} is refused")
        reply.refused("INVALID_MESSAGE_FORMAT")


@extended
async def unread_mail_past_its_ttl_is_hidden(target: Target) -> None:
    """D: An unread entry is no longer shown when its ttl is over."""
    alice, bob = await target.agents(2)
    await alice.sent(bob.address, headers={"ttl": 1})
    await alice.sent(bob.address, headers={"ttl": 600})

    async def alone() -> bool:
        return len(await bob.inbox("?status=unread&lease=1")) == 1

    await eventually(alone, "only the message with time left is shown")


@extended
async def mail_for_later_waits(target: Target) -> None:
    """D: deliver-after holds a message back until that time, and delivers it then."""
    alice, bob = await target.agents(2)
    receipt = (await alice.send(bob.address, headers={"deliver-after": from_now(seconds=2)})).expect(202)
    same(receipt["status"], "queued", "status")
    same(await bob.inbox(), [], "the inbox before the time")
    found = await bob.inbox("?wait=15")
    same([message["message_id"] for message in found], [receipt["message_id"]], "the inbox after the time")


@extended
async def mail_for_much_later_is_refused(target: Target) -> None:
    """D: deliver-after reaches at most 30 days ahead."""
    alice = await target.agent()
    receipt = (await alice.send(alice.address, headers={"deliver-after": from_now(days=29)})).expect(202)
    (await alice.delete(f"/v1/messages/{receipt['message_id']}")).expect(200)
    reply = await alice.send(alice.address, headers={"deliver-after": from_now(days=31)})
    reply.refused("INVALID_MESSAGE_FORMAT")


@extended
async def a_sender_who_asks_is_told_who_has_it(target: Target) -> None:
    """D: Who asks for a receipt gets one when the message was delivered, or read: from the postmaster, in reply to it."""
    alice, bob = await target.agents(2)
    for kind in ("delivered", "read"):
        message_id = await alice.sent(bob.address, headers={"receipt": kind, "correlation-id": "c-1"})
        await bob.inbox()
        receipt = (await alice.mail())[-1]
        same(receipt["sender"], f"postmaster@{target.domain}", "the sender of the receipt")
        same((receipt["message_type"], receipt["in_reply_to"]), ("receipt", message_id), "the receipt")
        same(receipt["headers"]["correlation-id"], "c-1", "correlation-id of the receipt")
        same(receipt["headers"]["auto-submitted"], "auto-generated", "auto-submitted of the receipt")
        (await alice.delete(f"{alice.box}/{receipt['message_id']}")).expect(200)


@extended
async def automatic_messages_ask_for_no_receipt(target: Target) -> None:
    """D: Receipts cause no receipts, nor does any automatic message."""
    alice, bob = await target.agents(2)
    await alice.sent(bob.address, headers={"receipt": "delivered", "auto-submitted": "auto-generated"})
    last = await alice.sent(bob.address, headers={"receipt": "delivered"})
    same([receipt["in_reply_to"] for receipt in await alice.mail()], [last], "what was receipted")


@extended
async def a_heartbeat_leaves_no_entry(target: Target) -> None:
    """D: A heartbeat is answered as delivered, and lies in no inbox."""
    alice, bob = await target.agents(2)
    receipt = (await alice.send(bob.address, headers={"kind": "heartbeat"})).expect(202)
    same(receipt["status"], "delivered", "the status")
    same(await bob.inbox(), [], "the inbox")
    (await alice.send(target.address(), headers={"kind": "heartbeat"})).refused("AGENT_UNKNOWN")


@extended
async def now_and_later_exclude_each_other(target: Target) -> None:
    """D: What is tried once, now, can't be meant for later, nor repeat itself."""
    alice = await target.agent()
    for later in ({"deliver-after": from_now(hours=1)}, {"repeat": "0 9 * * *"}):
        reply = await alice.send(alice.address, headers={"delivery": "best_effort", **later})
        reply.refused("INVALID_MESSAGE_FORMAT")


@extended
async def what_repeats_is_listed_and_ends_when_its_sender_says_so(target: Target) -> None:
    """D: A message that repeats is its sender's schedule: listed with its next time, and cancelled by its sender alone."""
    alice, bob = await target.agents(2)
    (await alice.send(bob.address, headers={"repeat": "0 9 29 2 *"})).expect(202)
    same(await bob.inbox(), [], "the inbox before the first time")
    (schedule,) = (await alice.get("/v1/schedules")).expect(200)["schedules"]
    same((schedule["sender"], schedule["ticks"]), (alice.address, 0), "the schedule")
    same((await bob.get("/v1/schedules")).expect(200)["schedules"], [], "the schedules of another")
    place = f"/v1/schedules/{schedule['id']}"
    (await bob.delete(place)).refused("NOT_FOUND")
    (await alice.delete(place)).expect(200)


@extended
async def an_answer_goes_out_with_the_acknowledgement(target: Target) -> None:
    """D: An acknowledgement may carry a reply and messages; who acknowledges again sends nothing more."""
    alice, bob, carol = await target.agents(3)
    message_id = await alice.sent(bob.address, headers={"delivery": "exactly_once"}, payload="work")
    for payload in ("done", "done twice"):
        told = {"sender": bob.address, "recipients": [carol.address], "payload": payload}
        body = encoded({"reply": {"payload": payload}, "messages": [told]})
        path = f"{bob.box}/{message_id}"
        (await target.call("DELETE", path, key=bob.key, body=body)).expect(200)
    reply = await alice.only()
    same((reply["in_reply_to"], reply["payload"]), (message_id, "done"), "the reply")
    same((await carol.only())["payload"], "done", "the message to a third")
    same(await bob.inbox(), [], "the inbox")
