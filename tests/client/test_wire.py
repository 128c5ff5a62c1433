"""What may pass is tried again, and with the same key."""

import json

import pytest

from gateway.client.agent import Agent
from gateway.client.errors import Refused, Unreachable
from gateway.client.wire import (
    PAUSE_SECONDS_MAX,
    RETRY_AFTER_SECONDS_MAX,
    pause_seconds,
    read_retry_after,
)
from tests.client.joined import alice_at
from tests.client.moody import CUT, moody, receipt, refusal, said


@pytest.mark.parametrize(
    "trouble",
    [
        CUT,
        said(502, "a proxy speaks"),
        refusal(503, "TEMPORARY_FAILURE"),
        refusal(429, "RATE_LIMIT_EXCEEDED", Retry_After="0"),
        refusal(500, "INTERNAL_ERROR"),
    ],
    ids=["cut", "502", "503", "429", "500"],
)
async def test_trouble_that_passes_is_not_told(trouble: bytes) -> None:
    async with moody(trouble, trouble, receipt()) as gateway, alice_at(gateway) as agent:
        assert (await agent.send("bob@acme.test", {"n": 1})).message_id == "m-1"
        bodies = [request.body for request in gateway.posted]
        assert len(bodies) == 3
        assert len(set(bodies)) == 1
        assert json.loads(bodies[0])["idempotency_key"]


async def test_a_time_to_come_back_is_waited() -> None:
    async with (
        moody(refusal(503, "QUEUE_FULL", Retry_After="1"), receipt()) as gateway,
        alice_at(gateway) as agent,
    ):
        await agent.send("bob@acme.test", {"n": 1})
        assert len(gateway.posted) == 2


async def test_a_time_beyond_its_patience_is_told_at_once_with_the_code() -> None:
    async with (
        moody(refusal(429, "RATE_LIMIT_EXCEEDED", Retry_After="100")) as gateway,
        alice_at(gateway) as agent,
    ):
        with pytest.raises(Refused) as refused:
            await agent.send("bob@acme.test", {"n": 1})
        assert (refused.value.code, refused.value.retry_after) == ("RATE_LIMIT_EXCEEDED", 100)
        assert len(gateway.posted) == 1


@pytest.mark.parametrize(
    ("status", "code"), [(400, "INVALID_MESSAGE_FORMAT"), (401, "AUTHENTICATION_FAILED"), (409, "X")]
)
async def test_a_refusal_is_told_at_once(status: int, code: str) -> None:
    async with moody(refusal(status, code)) as gateway, alice_at(gateway) as agent:
        with pytest.raises(Refused, match="Not now") as refused:
            await agent.send("bob@acme.test", {"n": 1})
        assert (refused.value.status, refused.value.code) == (status, code)
        assert len(gateway.posted) == 1


@pytest.mark.parametrize("patience", [0, 0.5])
async def test_when_its_patience_ends_no_gateway_answered(patience: float) -> None:
    async with moody(CUT) as gateway, alice_at(gateway, patience) as agent:
        with pytest.raises(Unreachable, match="No gateway answers"):
            await agent.send("bob@acme.test", {"n": 1})
    async with alice_at(gateway, patience) as agent:
        with pytest.raises(Unreachable, match="No gateway answers"):
            await agent.send("bob@acme.test", {"n": 1})


@pytest.mark.parametrize(
    "answered",
    [said(200, []), said(202, {}), said(404, "what?"), said(302, "")],
    ids=["list", "object", "404", "302"],
)
async def test_what_does_not_speak_amtp_is_told_so(answered: bytes) -> None:
    async with moody(answered) as gateway, alice_at(gateway) as agent:
        with pytest.raises((Unreachable, Refused), match="answers at"):
            await agent.send("bob@acme.test", {"n": 1})


@pytest.mark.parametrize("gateway", ["", "acme.test", "ftp://acme.test", "http://u@acme.test", "http://a#b"])
def test_a_gateway_that_is_no_url_is_refused_at_once(gateway: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMTP_GATEWAY", "nowhere")
    with pytest.raises(ValueError, match="URL"):
        Agent("alice@acme.test", gateway=gateway)


async def test_key_and_gateway_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with moody(receipt()) as gateway:
        monkeypatch.setenv("AMTP_GATEWAY", gateway.url + "/")
        monkeypatch.setenv("AMTP_KEY", "from-the-environment")
        async with Agent("alice@acme.test") as agent:
            await agent.send("bob@acme.test", {"n": 1})
        (request,) = gateway.posted
        assert request.headers["authorization"] == "Bearer from-the-environment"


def test_pauses_double_up_to_a_limit_and_spread() -> None:
    assert [pause_seconds(attempt, 0.5) for attempt in (1, 2, 3)] == [0.2, 0.4, 0.8]
    assert pause_seconds(10**6, 0.5) == PAUSE_SECONDS_MAX
    assert pause_seconds(1, 0.0) < pause_seconds(1, 0.9)
    assert pause_seconds(1, 0.0, 30) == 30
    assert 30 < pause_seconds(1, 0.9, 30) < 40


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("７", None),
        ("7", 7),
        ("9" * 20, RETRY_AFTER_SECONDS_MAX),
    ],
)
def test_a_time_to_come_back_is_read_from_whole_seconds(text: str | None, seconds: float | None) -> None:
    assert read_retry_after(text) == seconds
