"""Section 5: several messages in one request, where a peer says that it takes them."""

import asyncio
import json
from collections.abc import Awaitable, Callable

from conformance.abroad import Abroad, arrived
from conformance.check import core, extended, holds, same
from conformance.fake_peer import Behaviour, Exchange, FakePeer, accepts, receipt
from conformance.target import LINES, Agent, Target, eventually

BATCH = frozenset({"batch"})
MESSAGES = 30
LINES_MAX = 100


def gate(then: Behaviour = accepts) -> tuple[asyncio.Event, Behaviour]:
    """A behaviour that waits for the event: meanwhile messages pile up at the gateway."""
    opened = asyncio.Event()

    async def behave(exchange: Exchange) -> None:
        await opened.wait()
        await then(exchange)

    return opened, behave


async def pile(alice: Agent, peer: FakePeer, then: Behaviour = accepts) -> list[str]:
    """The ids of messages that waited together and went."""
    opened, behave = gate(then)
    peer.will(behave)
    ids = [await alice.sent(f"bob@{peer.domain}", payload=number) for number in range(MESSAGES)]
    opened.set()
    for message_id in ids:
        await alice.ended(message_id)
    return ids


@core
async def nobody_gets_batches_who_did_not_ask(target: Target, abroad: Abroad) -> None:
    """A peer whose record does not say features=batch gets one message in a request, however many wait."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        ids = await pile(alice, peer)
        holds(not any(post.batch for post in peer.posts), "nothing is a batch")
        same(sorted(post.messages[0]["message_id"] for post in peer.posts), sorted(ids), "the messages")


@extended
async def what_waits_together_goes_together(target: Target, abroad: Abroad) -> None:
    """D: Where a record says features=batch, messages that wait go as lines of one request, each of them once."""
    alice = await target.agent()
    async with abroad.peer(features=BATCH) as peer:
        ids = await pile(alice, peer)
        holds(any(post.batch and len(post.messages) > 1 for post in peer.posts), "some went together")
        holds(all(len(post.messages) <= LINES_MAX for post in peer.posts), "no batch has over 100 lines")
        sent = [message["message_id"] for post in peer.posts for message in post.messages]
        same(sorted(sent), sorted(ids), "the messages")


@extended
async def each_line_of_an_answer_counts_for_its_message(target: Target, abroad: Abroad) -> None:
    """D: The answer to a batch has a receipt or an error a line, and each is taken for its own message."""
    alice = await target.agent()

    async def refuses_odd(exchange: Exchange) -> None:
        request = await exchange.read_body()
        told = [_told(message) for message in request.messages]
        if not request.batch:
            await exchange.answer(400 if "error" in told[0] else 202, json.dumps(told[0]).encode())
            return
        lines = b"".join(json.dumps(one).encode() + b"\n" for one in told)
        await exchange.answer(200, lines, content_type=LINES)

    async with abroad.peer(features=BATCH) as peer:
        ids = await pile(alice, peer, refuses_odd)
        statuses = [(await alice.status(message_id))["status"] for message_id in ids]
        same(statuses, ["delivered", "failed"] * (MESSAGES // 2), "the statuses")


def _told(message: dict[str, int]) -> dict[str, object]:
    if message["payload"] % 2:
        return {"error": {"code": "INVALID_MESSAGE_FORMAT", "message": "Odd."}}
    return receipt(message)


@extended
async def a_batch_refused_as_such_goes_in_single_requests(target: Target, abroad: Abroad) -> None:
    """D: Where a batch is refused as a batch, its messages are handed over one by one."""
    alice = await target.agent()

    async def takes_no_lines(exchange: Exchange) -> None:
        if not exchange.request.batch:
            await accepts(exchange)
            return
        await exchange.read_body()
        error = {"error": {"code": "UNSUPPORTED_MEDIA_TYPE", "message": "One by one, please."}}
        await exchange.answer(415, json.dumps(error).encode())

    async with abroad.peer(features=BATCH) as peer:
        for message_id in await pile(alice, peer, takes_no_lines):
            same((await alice.status(message_id))["status"], "delivered", "the status")


@extended
async def a_line_break_travels_alone(target: Target, abroad: Abroad) -> None:
    """D: A message whose bytes contain a line break is in no batch."""
    alice = await target.agent()
    async with abroad.peer(features=BATCH) as peer:
        opened, behave = gate()
        peer.will(behave)
        for number in range(MESSAGES):
            message = alice.message(f"bob@{peer.domain}", payload=["a", number])
            (await alice.post(json.dumps(message, indent=number % 2 or None).encode())).expect(202)
        opened.set()
        sent = await eventually(_all_of(peer, MESSAGES), "all messages at the peer")
        same(sorted(sent), list(range(MESSAGES)), "the messages")


def _all_of(peer: FakePeer, count: int) -> Callable[[], Awaitable[list[int]]]:
    async def look() -> list[int]:
        posts = [post for post in await arrived(peer) if post.body]
        found = [message["payload"][1] for post in posts for message in post.messages]
        return found if len(found) >= count else []

    return look
