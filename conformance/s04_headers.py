"""Section 4: headers that mean something to a gateway. All of it is decided by this project (D)."""

from typing import Any

from conformance.check import core, extended, holds, same
from conformance.moments import from_now
from conformance.target import Target, eventually

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
    headers = {"X-Custom": {"deep": [1, 2.50]}, "Priority": "whatever", "trace_id": None}
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
