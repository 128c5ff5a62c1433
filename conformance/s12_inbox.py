"""Section 12: the inbox, fetched, waited for, leased, streamed and acknowledged."""

import asyncio
import json
import time
from datetime import datetime
from typing import Any

import aiohttp

from conformance.check import core, extended, holds, same
from conformance.moments import from_now
from conformance.target import Agent, Target, eventually

EVENT_SECONDS_MAX = 15.0


async def send_some(sender: Agent, recipient: Agent, count: int) -> list[str]:
    return [await sender.sent(recipient.address, payload=number) for number in range(count)]


def ids_of(messages: list[dict[str, Any]]) -> list[str]:
    return [message["message_id"] for message in messages]


async def next_event(stream: aiohttp.StreamReader) -> tuple[str, dict[str, Any]]:
    """Id and message of the next event; comments and the retry line are passed over."""
    fields: dict[str, str] = {}
    async with asyncio.timeout(EVENT_SECONDS_MAX):
        while line := (await stream.readline()).decode():
            name, _, value = line.rstrip("\r\n").partition(":")
            if name:
                fields[name] = fields.get(name, "") + value.removeprefix(" ")
            elif "data" in fields:
                return fields["id"], json.loads(fields["data"])
            else:
                fields = {}
    raise AssertionError("the stream ended")


@core
async def an_inbox_answers_in_its_form(target: Target) -> None:
    """The answer holds messages, message_count, count, recipient and has_more."""
    alice, bob = await target.agents(2)
    empty = await bob.page()
    same((empty["messages"], empty["message_count"], empty["has_more"]), ([], 0, False), "an empty inbox")
    await send_some(alice, bob, 2)
    page = await bob.page()
    same(
        (page["message_count"], page["count"], page["recipient"]), (2, 2, bob.address), "counts and recipient"
    )
    same(page["has_more"], False, "has_more")


@core
async def the_oldest_message_comes_first(target: Target) -> None:
    """An inbox lists the oldest message first."""
    alice, bob = await target.agents(2)
    ids = await send_some(alice, bob, 5)
    same(ids_of(await bob.inbox()), ids, "the order")


@core
async def an_inbox_has_pages(target: Target) -> None:
    """limit and offset page through an inbox, and has_more says whether to go on."""
    alice, bob = await target.agents(2)
    ids = await send_some(alice, bob, 5)
    found = []
    for offset, more in ((0, True), (2, True), (4, False)):
        page = await bob.page(f"?limit=2&offset={offset}")
        same(page["has_more"], more, f"has_more at {offset}")
        found += ids_of(page["messages"])
    same(found, ids, "the pages together")


@extended
async def an_inbox_has_cursors(target: Target) -> None:
    """D: The cursor of a page leads to the next one, also where messages were acknowledged meanwhile."""
    alice, bob = await target.agents(2)
    ids = await send_some(alice, bob, 5)
    first = await bob.page("?limit=2")
    (await bob.delete(f"{bob.box}/{ids[0]}")).expect(200)
    rest = await bob.page(f"?cursor={first['cursor']}")
    same(ids_of(first["messages"]) + ids_of(rest["messages"]), ids, "the pages together")


@core
async def since_leaves_older_mail_out(target: Target) -> None:
    """since leaves out what came before it."""
    alice, bob = await target.agents(2)
    await send_some(alice, bob, 2)
    same(len(await bob.inbox(f"?since={from_now(hours=-1)}")), 2, "the mail since an hour ago")
    same(await bob.inbox(f"?since={from_now(hours=1)}"), [], "the mail since an hour ahead")


@core
async def fetching_marks_read(target: Target) -> None:
    """What was fetched is read; status=unread and status=read tell the two apart."""
    alice, bob = await target.agents(2)
    ids = await send_some(alice, bob, 3)
    same(await bob.inbox("?status=read"), [], "what is read before the first look")
    same(ids_of(await bob.inbox("?status=unread&limit=2")), ids[:2], "what is fetched")
    same(ids_of(await bob.inbox("?status=read")), ids[:2], "what is read")
    same(ids_of(await bob.inbox("?status=unread")), ids[2:], "what is unread")


@core
async def what_is_read_stays_until_it_is_acknowledged(target: Target) -> None:
    """A message that was fetched is there at the next look, until it is acknowledged."""
    alice, bob = await target.agents(2)
    (message_id,) = await send_some(alice, bob, 1)
    for _ in range(2):
        same(ids_of(await bob.inbox()), [message_id], "the inbox")
    answer = (await bob.delete(f"{bob.box}/{message_id}")).expect(200)
    same((answer["message_id"], answer["status"]), (message_id, "acknowledged"), "the acknowledgement")
    holds(datetime.fromisoformat(answer["timestamp"]).tzinfo, "timestamp is a time with a zone")
    same(await bob.inbox(), [], "the inbox")


@core
async def acknowledging_again_changes_nothing(target: Target) -> None:
    """An acknowledgement that is sent again is answered as the first one."""
    alice, bob = await target.agents(2)
    (message_id,) = await send_some(alice, bob, 1)
    path = f"{bob.box}/{message_id}"
    first, second = (await bob.delete(path)).expect(200), (await bob.delete(path)).expect(200)
    same(second["timestamp"], first["timestamp"], "the timestamp of the second answer")


@core
async def an_unknown_message_can_not_be_acknowledged(target: Target) -> None:
    """The acknowledgement of what does not lie in the inbox is NOT_FOUND."""
    alice, bob = await target.agents(2)
    message_id = await alice.sent(alice.address)
    for unknown in (message_id, target.name()):
        (await bob.delete(f"{bob.box}/{unknown}")).refused("NOT_FOUND")
    await alice.only()


@core
async def each_recipient_acknowledges_for_itself(target: Target) -> None:
    """One recipient's acknowledgement leaves the message in the others' inboxes."""
    alice, bob, carol = await target.agents(3)
    message_id = await alice.sent(bob.address, carol.address)
    (await bob.delete(f"{bob.box}/{message_id}")).expect(200)
    same(await bob.inbox(), [], "the inbox of who acknowledged")
    await carol.only()


@extended
async def the_sender_tells_namesakes_apart(target: Target) -> None:
    """D: Where two messages share a public id, ?sender= says which one is acknowledged."""
    alice, carol, bob = await target.agents(3)
    message_id = target.name()
    for sender in (alice, carol):
        await sender.sent(bob.address, message_id=message_id)
    await bob.inbox()
    (await bob.delete(f"{bob.box}/{message_id}?sender={carol.address}")).expect(200)
    same((await bob.only())["sender"], alice.address, "the sender of what is left")


@extended
async def many_are_acknowledged_at_once(target: Target) -> None:
    """D: POST /v1/inbox/{address}/ack acknowledges many and tells of each one."""
    alice, bob = await target.agents(2)
    ids = await send_some(alice, bob, 3)
    body = json.dumps({"message_ids": [*ids[:2], target.name()]}).encode()
    answer = (await target.call("POST", f"{bob.box}/ack", key=bob.key, body=body)).expect(200)
    same(
        [one["status"] for one in answer["results"]],
        ["acknowledged", "acknowledged", "failed"],
        "the results",
    )
    same(answer["acknowledged"], 2, "acknowledged")
    same(ids_of(await bob.inbox()), ids[2:], "the inbox")


@extended
async def whoever_waits_is_woken(target: Target) -> None:
    """D: wait holds the answer until a message comes, and no longer."""
    alice, bob = await target.agents(2)
    started = time.monotonic()
    waiting = asyncio.create_task(bob.inbox("?wait=30"))
    await asyncio.sleep(0.2)  # so that the other request is there first, as far as anybody can tell
    message_id = await alice.sent(bob.address)
    same(ids_of(await waiting), [message_id], "what the waiting request got")
    holds(time.monotonic() - started < 15, "it came long before the end of the wait")


@extended
async def waiting_ends(target: Target) -> None:
    """D: wait ends with an empty answer when its time is over."""
    bob = await target.agent()
    started = time.monotonic()
    same(await bob.inbox("?wait=1"), [], "the inbox")
    holds(time.monotonic() - started >= 0.9, "the answer waited")


@extended
async def a_lease_hides_what_it_holds(target: Target) -> None:
    """D: What is leased is shown to nobody else until the lease ends, and then again."""
    alice, bob = await target.agents(2)
    ids = await send_some(alice, bob, 3)
    page = await bob.page("?lease=2&limit=2")
    same(ids_of(page["messages"]), ids[:2], "what is leased")
    holds(page["lease"]["token"] and page["lease"]["until"], "the lease has a token and an end")
    same(ids_of(await bob.inbox("?lease=60")), ids[2:], "what is left for another consumer")

    async def again() -> list[str]:
        return ids_of(await bob.inbox("?lease=60"))

    same(await eventually(again, "the first lease ends"), ids[:2], "what comes back")


@extended
async def a_lease_is_shared_by_nobody(target: Target) -> None:
    """D: Consumers that lease at the same time get different messages."""
    alice, bob = await target.agents(2)
    ids = await send_some(alice, bob, 12)
    pages = await asyncio.gather(*(bob.inbox("?lease=60&limit=3") for _ in range(6)))
    held = [message_id for page in pages for message_id in ids_of(page)]
    holds(len(held) == len(set(held)), "no message is held twice")
    while page := await bob.inbox("?lease=60"):
        held += ids_of(page)
    same(sorted(held), sorted(ids), "all that is held")


@extended
async def a_lease_can_be_prolonged_and_given_back(target: Target) -> None:
    """D: A lease is given back with seconds 0, and what it held is shown at once."""
    alice, bob = await target.agents(2)
    ids = await send_some(alice, bob, 2)
    page = await bob.page("?lease=60")
    for seconds in (120, 0):
        body = json.dumps({"lease": page["lease"]["token"], "seconds": seconds}).encode()
        answer = await target.call("POST", f"{bob.box}/lease", key=bob.key, body=body)
        same(answer.expect(200)["message_count"], 2, "message_count")
    same(ids_of(await bob.inbox("?lease=60")), ids, "what is shown")


@extended
async def an_inbox_can_be_streamed(target: Target) -> None:
    """D: As text/event-stream an inbox sends what lies in it, and then what comes."""
    alice, bob = await target.agents(2)
    before = await alice.sent(bob.address, payload="line\nbreak")
    async with target.stream(bob) as stream:
        _, message = await next_event(stream)
        same((message["message_id"], message["payload"]), (before, "line\nbreak"), "the first event")
        after = await alice.sent(bob.address)
        same((await next_event(stream))[1]["message_id"], after, "the second event")


@extended
async def a_stream_sends_all_that_is_open(target: Target) -> None:
    """D: After a reconnect a stream sends all that is unacknowledged; Last-Event-ID spares only the last."""
    alice, bob = await target.agents(2)
    ids = await send_some(alice, bob, 3)
    async with target.stream(bob) as stream:
        events = [await next_event(stream) for _ in ids]
    same([message["message_id"] for _, message in events], ids, "the first stream")
    (await bob.delete(f"{bob.box}/{ids[0]}")).expect(200)
    async with target.stream(bob, **{"Last-Event-ID": events[2][0]}) as stream:
        same((await next_event(stream))[1]["message_id"], ids[1], "the first event after the reconnect")
        after = await alice.sent(bob.address)
        same((await next_event(stream))[1]["message_id"], after, "the second event after the reconnect")
