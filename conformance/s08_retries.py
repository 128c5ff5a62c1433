"""Section 8: what a gateway does when another one does not take a message at once."""

import asyncio
import itertools
import json
from typing import Any
from uuid import UUID

from conformance.abroad import Abroad, arrived
from conformance.check import core, extended, holds, same
from conformance.fake_peer import (
    Behaviour,
    Exchange,
    accepts,
    answers,
    receipt,
    refuses,
    resets_after_body,
    resets_before_body,
    writes,
)
from conformance.target import Agent, Target

SPREAD = 0.25
EARLY_SECONDS = 0.1  # clocks are read at both ends
LATE_SECONDS = 5.0  # a busy machine
STEPS = 3

GARBAGE = b"SMTP/9 yes\r\n\r\n"
NO_WORD: dict[str, Behaviour] = {
    "400 without an envelope": answers(400, b"<html>Bad request</html>", content_type="text/html"),
    "404 without an envelope": answers(404, b"<html>Not found</html>", content_type="text/html"),
    "401 with an envelope": refuses(401, "AUTHENTICATION_FAILED"),
    "403 with an envelope": refuses(403, "POLICY_DENIED"),
    "404 with an envelope": refuses(404, "NOT_FOUND"),
    "405 with an envelope": refuses(405, "METHOD_NOT_ALLOWED"),
    "200 that is no JSON": answers(200, b"Welcome!", content_type="text/html"),
    "202 that is cut": writes(b'HTTP/1.1 202 Accepted\r\nContent-Length: 99\r\n\r\n{"mess'),
    "no HTTP": writes(GARBAGE),
}
TROUBLE: dict[str, Behaviour] = {
    "429": refuses(429, "RATE_LIMIT_EXCEEDED"),
    "500": answers(500),
    "502": answers(502, b"<html>Bad gateway</html>", content_type="text/html"),
    "503": refuses(503, "TEMPORARY_FAILURE"),
    "504": answers(504),
    "a reset before the body": resets_before_body,
    "a reset after the body": resets_after_body,
}
FINAL = {400: "INVALID_MESSAGE_FORMAT", 409: "MESSAGE_ID_CONFLICT", 413: "MESSAGE_TOO_LARGE", 422: "CONFLICT"}


def tells(status: int = 202, /, **codes: str) -> Behaviour:
    """Answers for each recipient alone: a code for those named, delivered for the others."""

    async def behave(exchange: Exchange) -> None:
        request = await exchange.read_body()
        told: dict[str, Any] = receipt(request.messages[0], **codes)
        if status >= 400:
            told = {"error": {"code": next(iter(codes.values())), "message": "No."}, **told}
        await exchange.answer(status, json.dumps(told).encode())

    return behave


async def _tried_again(alice: Agent, abroad: Abroad, fault: str, behave: Behaviour) -> None:
    async with abroad.peer() as peer:
        peer.will(behave, accepts)
        message_id = await alice.sent(f"bob@{peer.domain}")
        same((await alice.ended(message_id))["status"], "delivered", f"the status after {fault}")
        same(len(peer.posts), 2, f"the number of attempts with {fault}")


@core
async def trouble_of_a_peer_is_temporary(target: Target, abroad: Abroad) -> None:
    """After 429, a 5xx or a connection that breaks, a message is handed over again and arrives."""
    alice = await target.agent()
    await asyncio.gather(*(_tried_again(alice, abroad, *each) for each in TROUBLE.items()))


@extended
async def what_is_no_word_of_a_gateway_is_temporary(target: Target, abroad: Abroad) -> None:
    """D: Answers about access, without an envelope or without sense are temporary, too: a message waits, and arrives."""
    alice = await target.agent()
    await asyncio.gather(*(_tried_again(alice, abroad, *each) for each in NO_WORD.items()))


@core
async def a_gateway_that_is_down_gets_its_mail_later(target: Target, abroad: Abroad) -> None:
    """A message for a gateway that takes no connections waits, tells why, and arrives when it is back."""
    alice = await target.agent()
    peer = abroad.prepare()
    async with peer.listening():
        pass  # now it has a port where nobody listens
    abroad.publish(peer)
    message_id = await alice.sent(f"bob@{peer.domain}")
    told = await alice.delayed(message_id)
    holds(told["next_retry"], "next_retry is told")
    async with peer.listening():
        same((await alice.ended(message_id))["status"], "delivered", "the status when it is back")


@core
async def each_attempt_is_the_same_message(target: Target, abroad: Abroad) -> None:
    """Every attempt has the same bytes: id, key and timestamp, given by the sender or not."""
    alice = await target.agent()
    for given in ({}, {"idempotency_key": target.name(), "message_id": target.name()}):
        async with abroad.peer(features=frozenset({"ids"})) as peer:
            peer.will(refuses(503, "TEMPORARY_FAILURE"), resets_after_body, accepts)
            message_id = await alice.sent(f"bob@{peer.domain}", **given)
            await alice.ended(message_id)
            posts = await arrived(peer, 3)
            same(len({post.body for post in posts}), 1, "the number of different bodies")
            same(posts[0].messages[0]["message_id"], message_id, "the id")


@extended
async def ids_of_any_form_reach_a_peer_that_takes_uuids_alone(target: Target, abroad: Abroad) -> None:
    """D: A peer that does not advertise features=ids gets a UUIDv7 as id and a UUIDv4 as key, whatever the sender's."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        peer.will(refuses(503, "TEMPORARY_FAILURE"), accepts)
        given = {"idempotency_key": target.name(), "message_id": target.name()}
        message_id = await alice.sent(f"bob@{peer.domain}", **given)
        same(message_id, given["message_id"], "the id its sender is told")
        await alice.ended(message_id)
        posts = await arrived(peer, 2)
        same(len({post.body for post in posts}), 1, "the number of different bodies")
        copy = posts[0].messages[0]
        same(UUID(copy["message_id"]).version, 7, "the version of the id")
        same(UUID(copy["idempotency_key"]).version, 4, "the version of the key")


@extended
async def attempts_are_spaced_as_agreed(target: Target, abroad: Abroad) -> None:
    """D: The first attempts follow each other after 1, 2 and 4 seconds, each within a quarter."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        peer.will(*[refuses(503, "TEMPORARY_FAILURE")] * STEPS, accepts)
        await alice.ended(await alice.sent(f"bob@{peer.domain}"))
        times = [post.at for post in peer.posts]
        same(len(times), STEPS + 1, "the number of attempts")
        for step, (before, after) in enumerate(itertools.pairwise(times)):
            wanted = 2.0**step
            earliest = wanted * (1 - SPREAD) - EARLY_SECONDS
            latest = wanted * (1 + SPREAD) + LATE_SECONDS
            holds(earliest <= after - before <= latest, f"{after - before:.2f} s are about {wanted:.0f} s")


@core
async def a_wish_for_a_later_time_is_granted(target: Target, abroad: Abroad) -> None:
    """Retry-After of a 429 and of a 503 is kept: nothing is sent before, and next_retry says so."""
    alice = await target.agent()
    for status, code in ((429, "RATE_LIMIT_EXCEEDED"), (503, "TEMPORARY_FAILURE")):
        async with abroad.peer() as peer:
            peer.will(refuses(status, code, retry_after="3"), accepts)
            message_id = await alice.sent(f"bob@{peer.domain}")
            holds((await alice.delayed(message_id))["next_retry"], "next_retry is told")
            await alice.ended(message_id)
            first, second = (post.at for post in peer.posts)
            holds(second - first >= 3 - EARLY_SECONDS, f"{second - first:.2f} s are not less than 3 s")


@core
async def what_is_refused_for_good_is_not_tried_again(target: Target, abroad: Abroad) -> None:
    """A 400, 409, 413 or 422 with an error of the protocol is final: one attempt, and failed."""
    alice = await target.agent()
    for status, code in FINAL.items():
        async with abroad.peer() as peer:
            peer.will(refuses(status, code, "Not with us."), accepts)
            (told,) = (await alice.ended(await alice.sent(f"bob@{peer.domain}")))["recipients"]
            same((told["status"], told["attempts"]), ("failed", 1), f"status and attempts after {status}")
            same(len(peer.posts), 1, f"the number of attempts after {status}")


@core
async def each_recipient_has_its_own_outcome(target: Target, abroad: Abroad) -> None:
    """Where a peer refuses one recipient and takes another, the one fails alone, with the peer's code."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        peer.will(tells(ghost="AGENT_UNKNOWN"))
        status = await alice.ended(await alice.sent(f"bob@{peer.domain}", f"ghost@{peer.domain}"))
        told = {one["address"].partition("@")[0]: one for one in status["recipients"]}
        same(status["status"], "partial", "the status of the message")
        same((told["bob"]["status"], told["ghost"]["status"]), ("delivered", "failed"), "the statuses")
        same(told["ghost"]["error"]["code"], "AGENT_UNKNOWN", "the error")
        same(len(peer.posts), 1, "the number of attempts")


@core
async def only_who_has_not_got_it_is_tried_again(target: Target, abroad: Abroad) -> None:
    """Where a peer can't take one recipient for now, the next attempt is for that one alone, under the same ids."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        peer.will(tells(carol="RECIPIENT_UNAVAILABLE"), accepts)
        await alice.ended(await alice.sent(f"bob@{peer.domain}", f"carol@{peer.domain}"))
        first, second = (post.messages[0] for post in await arrived(peer, 2))
        same(second["recipients"], [f"carol@{peer.domain}"], "the recipients of the second attempt")
        for name in ("message_id", "idempotency_key"):
            same(second[name], first[name], name)


@extended
async def a_refusal_may_be_partial(target: Target, abroad: Abroad) -> None:
    """A 4xx with a list of recipients counts for those it refuses; the others it took."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        peer.will(tells(404, ghost="AGENT_UNKNOWN"))
        status = await alice.ended(await alice.sent(f"bob@{peer.domain}", f"ghost@{peer.domain}"))
        same([one["status"] for one in status["recipients"]], ["delivered", "failed"], "the statuses")


@extended
async def acceptance_without_a_list_is_for_all(target: Target, abroad: Abroad) -> None:
    """A 2xx without a list of recipients is delivery to all of them."""
    alice = await target.agent()
    for status in (200, 201, 202):
        async with abroad.peer() as peer:
            peer.will(answers(status, {"status": "accepted"}))
            told = await alice.ended(await alice.sent(f"bob@{peer.domain}", f"carol@{peer.domain}"))
            same(told["status"], "delivered", f"the status after a bare {status}")


@extended
async def what_was_cancelled_is_not_tried_again(target: Target, abroad: Abroad) -> None:
    """D: A message that its sender cancels while it waits is cancelled, and not handed over any more."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        peer.will(refuses(503, "TEMPORARY_FAILURE", retry_after="2"), accepts)
        message_id = await alice.sent(f"bob@{peer.domain}")
        await alice.delayed(message_id)
        (await alice.delete(f"/v1/messages/{message_id}")).expect(200, 202)
        (told,) = (await alice.status(message_id))["recipients"]
        same(told["status"], "cancelled", "the status")
        await asyncio.sleep(3)
        same(len(peer.posts), 1, "the number of attempts")
