"""A reply reaches its request once, on whichever way it comes."""

import asyncio
import json
from typing import Any

import pytest

from gateway.client import expecting
from gateway.client.errors import NoReply, Refused, Undelivered
from tests.client.joined import alice_at
from tests.client.moody import CUT, Answer, moody, page, receipt, refusal, reply, said

PATIENCE_SECONDS = 20.0


@pytest.fixture(autouse=True)
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expecting, "LOOK_SECONDS", 0.02)


def waited(asked: str) -> bytes:
    """What a gateway that waits answers."""
    return receipt(asked, reply=reply(asked))


async def test_the_gateway_waits_and_its_copy_in_the_inbox_is_acknowledged() -> None:
    async with moody(waited) as gateway:
        async with alice_at(gateway) as agent:
            assert (await agent.request("bob@acme.test", 1)).payload == "yes"
        assert gateway.acknowledged == ["r-1"]
        (request,) = gateway.posted
        assert request.headers["prefer"] == "wait=50"


@pytest.mark.parametrize(
    "trouble",
    [CUT, refusal(503, "TEMPORARY_FAILURE", Retry_After="0"), said(502, "")],
    ids=["cut", "503", "502"],
)
async def test_a_wait_that_breaks_is_begun_again_with_the_same_key(trouble: bytes) -> None:
    async with moody(trouble, trouble, waited) as gateway, alice_at(gateway) as agent:
        assert (await agent.request("bob@acme.test", 1)).payload == "yes"
        bodies = {request.body for request in gateway.posted}
        assert (len(gateway.posted), len(bodies)) == (3, 1)


async def test_from_a_gateway_that_does_not_wait_the_inbox_is_looked_through() -> None:
    looks: list[Answer] = [
        page(),
        lambda asked: page({"message_id": "x", "sender": "eve@acme.test"}, reply(asked)),
    ]
    async with moody(receipt, looks=looks) as gateway:
        async with alice_at(gateway) as agent:
            assert (await agent.request("Bob+session@ACME.test", 1)).payload == "yes"
        assert gateway.acknowledged == ["r-1"]
        assert len(gateway.posted) == 1


async def test_a_gateway_that_ended_its_wait_early_is_asked_again() -> None:
    async with moody(receipt, waited) as gateway, alice_at(gateway) as agent:
        assert (await agent.request("bob@acme.test", 1)).payload == "yes"
        assert len(gateway.posted) == 2


async def test_a_hundred_requests_share_their_looks() -> None:
    async with moody(receipt, looks=[page()]) as gateway, alice_at(gateway) as agent:
        asking = [asyncio.create_task(agent.request("bob@acme.test", n)) for n in range(100)]
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(gateway.posted) < 100:
                await asyncio.sleep(0.01)
        ids = [json.loads(request.body)["message_id"] for request in gateway.posted]
        gateway.looks[0] = page(*(reply(asked, f"r-{asked}", payload=asked) for asked in ids))
        replies = [answered.payload for answered in await asyncio.gather(*asking)]
        assert sorted(replies) == sorted(ids)
        assert len(gateway.requests) - len(gateway.posted) < 100


async def test_what_can_not_wait_at_the_gateway_waits_at_the_inbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expecting, "WAITS_MAX", 0)
    looks: list[Answer] = [page(), lambda asked: page(reply(asked))]
    async with moody(receipt, looks=looks) as gateway, alice_at(gateway) as agent:
        assert (await agent.request("bob@acme.test", 1)).payload == "yes"
        (request,) = gateway.posted
        assert "prefer" not in request.headers


async def test_of_two_replies_the_first_counts_and_both_are_acknowledged() -> None:
    looks = [lambda asked: page(reply(asked, "r-1"), reply(asked, "r-2", payload="no"))]
    async with moody(receipt, looks=looks) as gateway:
        async with alice_at(gateway) as agent:
            assert (await agent.request("bob@acme.test", 1)).payload == "yes"
        assert gateway.acknowledged == ["r-1", "r-2"]


async def test_a_reply_of_somebody_else_is_left_in_the_inbox() -> None:
    looks = [lambda asked: page(reply(asked, "r-1", sender="eve@acme.test"))]
    async with moody(receipt, looks=looks) as gateway:
        async with alice_at(gateway) as agent:
            with pytest.raises(NoReply):
                await agent.request("bob@acme.test", 1, timeout=0.2)
        assert gateway.acknowledged == []


def report(asked: str, **members: Any) -> bytes:
    said_so = {"error_code": "AGENT_UNKNOWN", "error_message": "Nobody there."}
    about = {"sender": "postmaster@acme.test", "message_type": "delivery_failure", "payload": said_so}
    return page(reply(asked, "d-1", **about, **members))


async def test_a_failure_report_ends_the_wait() -> None:
    looks = [lambda asked: report(asked, sender_verification="pass")]
    async with moody(receipt, looks=looks) as gateway:
        async with alice_at(gateway) as agent:
            with pytest.raises(Undelivered, match="Nobody there") as failure:
                await agent.request("bob@acme.test", 1)
            assert failure.value.code == "AGENT_UNKNOWN"
        assert gateway.acknowledged == ["d-1"]


async def test_a_forged_report_ends_nothing() -> None:
    looks = [lambda asked: report(asked, sender_verification="none")]
    async with moody(receipt, looks=looks) as gateway, alice_at(gateway) as agent:
        with pytest.raises(NoReply):
            await agent.request("bob@acme.test", 1, timeout=0.2)


async def test_a_receipt_that_says_it_failed_ends_the_wait() -> None:
    async with moody(lambda asked: receipt(asked, "cancelled")) as gateway, alice_at(gateway) as agent:
        with pytest.raises(Undelivered, match="cancelled"):
            await agent.request("bob@acme.test", 1)


async def test_asked_again_after_a_crash_the_reply_to_the_first_time_counts() -> None:
    async with moody(receipt("m-1"), looks=[page(reply("m-1"))]) as gateway:
        async with alice_at(gateway) as agent:
            answered = await agent.request("bob@acme.test", 1, idempotency_key="order-1")
        assert answered.in_reply_to == "m-1"


async def test_a_refused_request_says_why() -> None:
    async with moody(refusal(404, "AGENT_UNKNOWN")) as gateway, alice_at(gateway) as agent:
        with pytest.raises(Refused, match="AGENT_UNKNOWN"):
            await agent.request("bob@acme.test", 1)


async def test_only_so_many_answered_requests_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expecting, "ANSWERED_MAX", 2)
    async with moody(waited) as gateway, alice_at(gateway) as agent:
        for n in range(5):
            await agent.request("bob@acme.test", n)
        assert len(agent._expected._answered) == 2
