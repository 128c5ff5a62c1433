"""Section 12: what became of a message."""

from datetime import datetime

from conformance.check import core, extended, holds, same
from conformance.moments import from_now
from conformance.target import Agent, Target

RECIPIENT_MEMBERS = {
    "address",
    "status",
    "timestamp",
    "attempts",
    "delivered_at",
    "next_retry",
    "last_error",
    "via",
}


async def scheduled(sender: Agent, *recipients: str) -> str:
    """The id of a message that stays queued."""
    return await sender.sent(*recipients, headers={"deliver-after": from_now(hours=1)})


@core
async def a_sender_sees_what_became_of_its_message(target: Target) -> None:
    """GET /v1/messages/{id}/status tells the sender the status of its message and of each recipient."""
    alice, bob, carol = await target.agents(3)
    message_id = await alice.sent(bob.address, carol.address)
    status = await alice.status(message_id)
    same(status["message_id"], message_id, "message_id")
    same(status["status"], "delivered", "status")
    holds(datetime.fromisoformat(status["created_at"]).tzinfo, "created_at is a time with a zone")
    holds(datetime.fromisoformat(status["delivered_at"]).tzinfo, "delivered_at is a time with a zone")
    same({one["address"] for one in status["recipients"]}, {bob.address, carol.address}, "the recipients")
    for one in status["recipients"]:
        holds(set(one) >= RECIPIENT_MEMBERS, f"a recipient has {sorted(RECIPIENT_MEMBERS)}")
        same(one["status"], "delivered", "the status of a recipient")
        same(one["via"], "inbox", "via of a recipient")


@core
async def a_message_is_shown_to_its_sender(target: Target) -> None:
    """GET /v1/messages/{id} shows the sender its message and the status."""
    alice, bob = await target.agents(2)
    message_id = await alice.sent(bob.address, subject="Hello")
    shown = (await alice.get(f"/v1/messages/{message_id}")).expect(200)
    same(shown["message_id"], message_id, "message_id")
    same(shown["status"], "delivered", "status")


@extended
async def recipients_see_their_own_row(target: Target) -> None:
    """D: A recipient sees the status of a message to it, and no other recipient of it."""
    alice, bob, carol = await target.agents(3)
    message_id = await alice.sent(bob.address, carol.address)
    told = (await bob.status(message_id))["recipients"]
    same([one["address"] for one in told], [bob.address], "the recipients that bob sees")


@core
async def a_message_is_hidden_from_all_others(target: Target) -> None:
    """Whoever neither sent nor received a message hears 404, as for an id that does not exist."""
    alice, bob, mallory = await target.agents(3)
    message_id = await alice.sent(bob.address)
    for known in (message_id, target.name()):
        for path in (f"/v1/messages/{known}", f"/v1/messages/{known}/status"):
            (await mallory.get(path)).refused("NOT_FOUND")
            (await target.call("GET", path)).refused("AUTHENTICATION_FAILED")
        (await mallory.delete(f"/v1/messages/{known}")).refused("NOT_FOUND")


@extended
async def operators_see_every_message(target: Target) -> None:
    """D: An admin key sees the status of every message."""
    alice, bob = await target.agents(2)
    message_id = await alice.sent(bob.address)
    status = (await target.admin("GET", f"/v1/messages/{message_id}/status")).expect(200)
    same([one["address"] for one in status["recipients"]], [bob.address], "the recipients")


@core
async def messages_are_listed(target: Target) -> None:
    """GET /v1/messages lists an agent's messages by status, sender and recipient."""
    alice, bob, carol = await target.agents(3)
    one, two = await alice.sent(bob.address), await alice.sent(carol.address)
    for query, ids in (
        ("", {one, two}),
        (f"?sender={alice.address}", {one, two}),
        (f"?recipient={bob.address}", {one}),
        ("?status=delivered", {one, two}),
        ("?status=queued", set()),
        ("?status=pending", set()),
        (f"?since={from_now(hours=1)}", set()),
        (f"?since={from_now(hours=-1)}", {one, two}),
    ):
        page = (await alice.get(f"/v1/messages{query}")).expect(200)
        same({message["message_id"] for message in page["messages"]}, ids, f"the list for {query or 'all'}")
        same(page["count"], len(ids), "count")
    (await bob.get(f"/v1/messages?sender={alice.address}&recipient={carol.address}")).refused("POLICY_DENIED")


@core
async def lists_have_pages(target: Target) -> None:
    """A list has pages by limit and offset, and says whether there is more."""
    alice, bob = await target.agents(2)
    ids = [await alice.sent(bob.address) for _ in range(5)]
    found = []
    for offset, more in ((0, True), (2, True), (4, False)):
        page = (await alice.get(f"/v1/messages?limit=2&offset={offset}")).expect(200)
        same(page["has_more"], more, f"has_more at {offset}")
        found += [message["message_id"] for message in page["messages"]]
    same(sorted(found), sorted(ids), "the pages together")


@extended
async def lists_have_cursors(target: Target) -> None:
    """D: The cursor of a page leads to the next one."""
    alice, bob = await target.agents(2)
    ids = [await alice.sent(bob.address) for _ in range(5)]
    found, query = [], ""
    while True:
        page = (await alice.get(f"/v1/messages?limit=2{query}")).expect(200)
        found += [message["message_id"] for message in page["messages"]]
        if not page["has_more"]:
            break
        query = f"&cursor={page['cursor']}"
    same(sorted(found), sorted(ids), "the pages together")


@extended
async def what_waits_is_queued(target: Target) -> None:
    """D: A message that waits for one of its recipients is queued, whatever became of the others."""
    alice, bob = await target.agents(2)
    message_id = await scheduled(alice, bob.address)
    status = await alice.status(message_id)
    same(status["status"], "queued", "status")
    holds(datetime.fromisoformat(status["next_retry"]).tzinfo, "next_retry is a time with a zone")
    same(status["delivered_at"], None, "delivered_at")
    page = (await alice.get("/v1/messages?status=pending")).expect(200)
    same([message["message_id"] for message in page["messages"]], [message_id], "the pending list")
    (await alice.delete(f"/v1/messages/{message_id}")).expect(200)


@extended
async def a_sender_cancels_what_waits(target: Target) -> None:
    """D: DELETE /v1/messages/{id} cancels what is queued; saying it again changes nothing."""
    alice, bob = await target.agents(2)
    message_id = await scheduled(alice, bob.address)
    (await bob.delete(f"/v1/messages/{message_id}")).refused("NOT_FOUND", "POLICY_DENIED")
    for _ in range(2):
        told = (await alice.delete(f"/v1/messages/{message_id}")).expect(200)
        same([one["status"] for one in told["recipients"]], ["cancelled"], "the recipients' statuses")
    same((await alice.status(message_id))["status"], "failed", "the status of the message")


@extended
async def what_is_delivered_can_not_be_cancelled(target: Target) -> None:
    """D: A message that has arrived everywhere can't be cancelled: CONFLICT."""
    alice, bob = await target.agents(2)
    message_id = await alice.sent(bob.address)
    (await alice.delete(f"/v1/messages/{message_id}")).refused("CONFLICT")
    await bob.only()
