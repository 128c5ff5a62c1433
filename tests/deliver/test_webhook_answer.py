"""What the answer of a webhook means, row by row, and that no answer at all can upset us."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gateway.deliver.answer import HttpReply
from gateway.deliver.outcome import REASON_CHARACTERS_MAX, Deferred, Refused
from gateway.deliver.webhook_answer import Gone, Taken, meaning_of
from gateway.protocol.errors import Code

JSON = {"content-type": "application/json; charset=utf-8"}


def reply(status: int, body: Any = b"", **headers: str) -> HttpReply:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    if isinstance(body, bytes):
        return HttpReply(status, told, body)
    return HttpReply(status, JSON | told, json.dumps(body).encode())


def error(code: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": "No."}}


LATER, BLAMED = ("later", "RECIPIENT_UNAVAILABLE", "spares"), ("later", "RECIPIENT_UNAVAILABLE", "blames")


def short(meaning: Taken | Gone | Deferred | Refused) -> tuple[str, ...]:
    match meaning:
        case Taken(response):
            return "taken", bytes(response).decode() if response is not None else ""
        case Gone():
            return ("gone",)
        case Deferred(code, _, _, blames):
            return "later", code.value, "blames" if blames else "spares"
        case Refused(code, _, unknown):
            return "refused", code.value, "unknown" if unknown else "certain"


MEANINGS: dict[str, tuple[HttpReply, tuple[str, ...]]] = {
    # Success: whatever does not contradict it.
    "nothing": (reply(204), ("taken", "")),
    "text": (reply(200, b"ok", content_type="text/plain"), ("taken", "")),
    "a page": (reply(200, b"<html>", content_type="text/html"), ("taken", "")),
    "accepted": (reply(202, {"status": "accepted"}), ("taken", "")),
    "a list": (reply(200, [1]), ("taken", "")),
    "null": (reply(200, b"null"), ("taken", "")),
    # With an answer for the sender.
    "a response": (reply(200, {"status": "accepted", "response": {"n": 1}}), ("taken", '{"n": 1}')),
    "a false response": (reply(200, {"response": False}), ("taken", "false")),
    "no response": (reply(200, {"status": "accepted", "response": None}), ("taken", "")),
    # Success that is none.
    "failed": (reply(200, {"status": "failed"}), LATER),
    "rejected with a response": (reply(200, {"status": "Rejected", "response": 1}), LATER),
    "an error": (reply(200, error("TEMPORARY_FAILURE")), LATER),
    "torn JSON": (reply(200, b'{"response": NaN}', **JSON), LATER),
    # Gone, whatever it says.
    "gone": (reply(410), ("gone",)),
    "gone with an error": (reply(410, error("NOT_FOUND")), ("gone",)),
    # Refused, in our words alone.
    "malformed": (
        reply(400, error("INVALID_MESSAGE_FORMAT")),
        ("refused", "INVALID_MESSAGE_FORMAT", "certain"),
    ),
    "its own words": (reply(422, error("NO_STOCK")), ("refused", "INVALID_MESSAGE_FORMAT", "certain")),
    "too large": (reply(413, error("MESSAGE_TOO_LARGE")), ("refused", "MESSAGE_TOO_LARGE", "certain")),
    "a conflict": (reply(409, error("CONFLICT")), ("refused", "CONFLICT", "certain")),
    "a temporary code": (reply(400, error("TEMPORARY_FAILURE")), BLAMED),
    "400 without our words": (reply(400, {"detail": "bad"}), BLAMED),
    "409 without our words": (reply(409), BLAMED),
    # Every other 4xx.
    "not let in": (reply(401, error("AUTHENTICATION_FAILED")), BLAMED),
    "forbidden": (reply(403), BLAMED),
    "not there": (reply(404, error("NOT_FOUND")), BLAMED),
    "wrong method": (reply(405), BLAMED),
    "redirected": (reply(301, location="https://else.test/"), BLAMED),
    # No room.
    "busy": (reply(429), ("later", "RATE_LIMIT_EXCEEDED", "spares")),
    "busy for a while": (reply(503, retry_after="7"), ("later", "TEMPORARY_FAILURE", "spares")),
    "down": (reply(503), BLAMED),
    "broken": (reply(500, {"status": "accepted", "response": 1}), BLAMED),
    "bad gateway": (reply(502), BLAMED),
}


@pytest.mark.parametrize("case", MEANINGS)
def test_an_answer_means(case: str) -> None:
    given, meaning = MEANINGS[case]
    assert short(meaning_of(given, 1)) == meaning


def test_a_conflict_about_a_repeat_leaves_the_outcome_unknown() -> None:
    assert short(meaning_of(reply(409, error("CONFLICT")), 2)) == ("refused", "CONFLICT", "unknown")


@pytest.mark.parametrize("status", [200, 429, 500, 503])
def test_retry_after_is_taken_along(status: int) -> None:
    body = {"status": "failed"} if status == 200 else b""
    meaning = meaning_of(reply(status, body, retry_after="90"), 1)
    assert isinstance(meaning, Deferred)
    assert meaning.retry_after_seconds == 90


def test_a_response_keeps_its_bytes() -> None:
    meaning = meaning_of(reply(200, b'{"response": { "n" : 1.00 }}', **JSON), 1)
    assert meaning == Taken(Raw(b'{ "n" : 1.00 }'))


@given(
    st.integers(100, 599),
    st.binary(max_size=200),
    st.dictionaries(st.sampled_from(["retry-after"]), st.text()),
)
def test_no_answer_can_upset_us(status: int, body: bytes, headers: dict[str, str]) -> None:
    meaning = meaning_of(HttpReply(status, JSON | headers, body), 1)
    if isinstance(meaning, Deferred | Refused):
        assert meaning.reason.isprintable()
        assert len(meaning.reason) <= REASON_CHARACTERS_MAX
        assert isinstance(meaning.code, Code)
