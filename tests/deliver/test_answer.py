"""What a peer's answer means, row by row, and that no answer at all can upset us."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.deliver.answer import (
    DETAILS_BYTES_MAX,
    AskedRecipient,
    HttpReply,
    delivered_in,
    outcomes_of,
    outcomes_of_lines,
)
from gateway.deliver.outcome import REASON_CHARACTERS_MAX, Deferred, Delivered, Outcome, Refused
from gateway.protocol.errors import STATUS_OF, Code

HOST = "amtp.peer.test"
TAKEN = Delivered(f"amtp:{HOST}")
BOB, CAROL = AskedRecipient("bob@peer.test", 1), AskedRecipient("carol@peer.test", 1)


def reply(status: int, body: Any = b"", **headers: str) -> HttpReply:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpReply(status, told, body if isinstance(body, bytes) else json.dumps(body).encode())


def error(code: str, message: str = "No.") -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def listed(**words: Any) -> dict[str, Any]:
    """An answer with a word on each recipient: a status, or an error code in capitals."""
    recipients = []
    for local, word in words.items():
        refused = {"status": "failed", **error(word)} if word.isupper() else {"status": word}
        recipients.append({"address": f"{local}@peer.test", **refused})
    return {"message_id": "m-1", "recipients": recipients}


def one(given: HttpReply, attempts: int = 1) -> Outcome:
    [outcome] = outcomes_of(given, [AskedRecipient("bob@peer.test", attempts)], HOST)
    return outcome


def short(outcome: Outcome) -> tuple[Any, ...]:
    match outcome:
        case Delivered(via):
            return "delivered", via.removeprefix(f"amtp:{HOST}")
        case Deferred(code, _, _, blames):
            return "later", code.value, "blames" if blames else "spares"
        case Refused(code, _, unknown):
            return "refused", code.value, "unknown" if unknown else "certain"
    raise AssertionError(outcome)


DELIVERED = ("delivered", "")
LATER, BLAMED = ("later", "RECIPIENT_UNAVAILABLE", "spares"), ("later", "RECIPIENT_UNAVAILABLE", "blames")

MEANINGS = [
    # Success: whatever does not contradict it.
    (reply(202, listed(bob="queued")), DELIVERED),
    (reply(202, listed(bob="delivered")), DELIVERED),
    (reply(200, listed(bob="Delivered")), DELIVERED),
    (reply(200, listed(carol="delivered")), LATER),
    (reply(202), DELIVERED),
    (reply(204), DELIVERED),
    (reply(200, b" \r\n"), DELIVERED),
    (reply(202, {"message_id": "m-1", "status": "queued"}), DELIVERED),
    (reply(200, b'"ok"'), DELIVERED),
    (reply(202, {"recipients": []}), DELIVERED),
    (reply(202, {"recipients": "bob"}), DELIVERED),
    (reply(202, {"recipients": ["bob@peer.test"]}), DELIVERED),
    (reply(202, {"recipients": [{"address": "bob@peer.test"}]}), DELIVERED),
    (reply(202, listed(somebody_else="failed")), DELIVERED),
    (reply(202, {"recipients": [{"address": "BOB@Peer.test", "status": "queued"}]}), DELIVERED),
    (reply(202, {"recipients": [{"address": "bob+tag@peer.test", "status": "queued"}]}), DELIVERED),
    (
        reply(202, {"recipients": [{"address": "bob@peer.test", "status": "queued", **error("QUEUE_FULL")}]}),
        DELIVERED,
    ),
    # Success that can't be believed.
    (reply(200, b"<html>Welcome</html>"), BLAMED),
    (reply(202, b'{"message_id": "m-1", "recip'), BLAMED),
    (reply(202, b"[" * 5000), BLAMED),
    (reply(202, {"status": "failed"}), LATER),
    (reply(200, error("QUEUE_FULL")), ("later", "QUEUE_FULL", "spares")),
    (reply(200, error("POLICY_DENIED")), ("later", "POLICY_DENIED", "spares")),
    # A word on this recipient, under any status.
    (reply(202, listed(bob="AGENT_UNKNOWN")), ("refused", "AGENT_UNKNOWN", "certain")),
    (
        reply(404, {**error("AGENT_UNKNOWN"), **listed(bob="AGENT_UNKNOWN")}),
        ("refused", "AGENT_UNKNOWN", "certain"),
    ),
    (
        reply(403, {**error("RELAY_DENIED"), **listed(bob="RELAY_DENIED")}),
        ("refused", "RELAY_DENIED", "certain"),
    ),
    (reply(400, {**error("AGENT_UNKNOWN"), **listed(bob="delivered")}), DELIVERED),
    (reply(503, {**error("QUEUE_FULL"), **listed(bob="delivered")}), DELIVERED),
    (reply(202, listed(bob="QUEUE_FULL")), ("later", "QUEUE_FULL", "spares")),
    (reply(202, listed(bob="RATE_LIMIT_EXCEEDED")), ("later", "RATE_LIMIT_EXCEEDED", "spares")),
    (reply(202, listed(bob="NEVER_HEARD_OF")), LATER),
    (reply(202, listed(bob="failed")), LATER),
    (reply(202, listed(bob="wobbling")), LATER),
    (
        reply(400, {**error("INVALID_RECIPIENT"), **listed(bob="failed")}),
        ("refused", "INVALID_RECIPIENT", "certain"),
    ),
    (
        reply(
            202,
            {"recipients": [{"address": "bob@peer.test", "status": "failed", "error_code": "AGENT_UNKNOWN"}]},
        ),
        ("refused", "AGENT_UNKNOWN", "certain"),
    ),
    # Refusals of the whole message that are final.
    (reply(400, error("INVALID_MESSAGE_FORMAT")), ("refused", "INVALID_MESSAGE_FORMAT", "certain")),
    (reply(400, error("LOOP_DETECTED")), ("refused", "LOOP_DETECTED", "certain")),
    (reply(400, error("THEIR_OWN_CODE")), ("refused", "INVALID_MESSAGE_FORMAT", "certain")),
    (reply(413, error("MESSAGE_TOO_LARGE")), ("refused", "MESSAGE_TOO_LARGE", "certain")),
    (reply(422, error("SCHEMA_VALIDATION_FAILED")), ("refused", "SCHEMA_VALIDATION_FAILED", "certain")),
    (reply(409, error("MESSAGE_ID_CONFLICT")), ("refused", "MESSAGE_ID_CONFLICT", "certain")),
    (reply(409, error("THEIR_OWN_CODE")), ("refused", "CONFLICT", "certain")),
    (reply(400, error("TEMPORARY_FAILURE")), ("later", "TEMPORARY_FAILURE", "spares")),
    # No room, said in order.
    (reply(429, error("RATE_LIMIT_EXCEEDED")), ("later", "RATE_LIMIT_EXCEEDED", "spares")),
    (reply(503, error("QUEUE_FULL")), ("later", "QUEUE_FULL", "spares")),
    (reply(503, error("THEIR_OWN_CODE")), LATER),
    # Everything else is the destination's fault, and passes.
    (reply(400), BLAMED),
    (reply(400, b"<html>nginx</html>"), BLAMED),
    (reply(400, {"error": "invalid"}), BLAMED),
    (reply(413, b"Request Entity Too Large"), BLAMED),
    (reply(401, error("AUTHENTICATION_FAILED")), ("later", "AUTHENTICATION_FAILED", "blames")),
    (reply(403, error("POLICY_DENIED")), ("later", "POLICY_DENIED", "blames")),
    (reply(404, error("NOT_FOUND")), ("later", "NOT_FOUND", "blames")),
    (reply(404, b"not here"), BLAMED),
    (reply(405), BLAMED),
    (reply(408), BLAMED),
    (reply(429), BLAMED),
    (reply(301, location="https://elsewhere.test/"), BLAMED),
    (reply(307, b"", location="https://elsewhere.test/"), BLAMED),
    (reply(500, error("TEMPORARY_FAILURE")), ("later", "TEMPORARY_FAILURE", "blames")),
    (reply(502, b"Bad Gateway"), BLAMED),
    (reply(503), BLAMED),
    (reply(999), BLAMED),
]


@pytest.mark.parametrize(("given", "meaning"), MEANINGS, ids=lambda value: repr(value)[:90])
def test_an_answer_means_what_the_table_says(given: HttpReply, meaning: tuple[Any, ...]) -> None:
    assert short(one(given)) == meaning


@pytest.mark.parametrize("code", [code for code in Code if 400 <= STATUS_OF.get(code, 0) <= 413])
def test_every_known_code_of_a_recipient_from_400_to_413_is_final(code: Code) -> None:
    outcome = one(reply(202, listed(bob=code.value)))
    assert isinstance(outcome, Refused)
    assert outcome.code is code


def test_each_recipient_gets_its_own_outcome_and_who_is_not_listed_that_of_all() -> None:
    answer = reply(404, {**error("AGENT_UNKNOWN"), **listed(bob="delivered", carol="AGENT_UNKNOWN")})
    bob, carol, dave = outcomes_of(answer, [BOB, CAROL, AskedRecipient("dave@peer.test", 1)], HOST)
    assert bob == TAKEN
    assert short(carol) == ("refused", "AGENT_UNKNOWN", "certain")
    assert short(dave) == ("later", "AGENT_UNKNOWN", "blames")


@pytest.mark.parametrize(
    "answer",
    [
        reply(409, error("IDEMPOTENCY_CONFLICT")),
        reply(409, error("POLICY_DENIED")),
        reply(202, listed(bob="MESSAGE_ID_CONFLICT")),
    ],
)
def test_a_conflict_about_a_repeat_leaves_the_outcome_unknown(answer: HttpReply) -> None:
    assert short(one(answer, attempts=1))[0::2] == ("refused", "certain")
    assert short(one(answer, attempts=2))[0::2] == ("refused", "unknown")


def test_a_refusal_of_a_repeat_that_is_no_conflict_stays_certain() -> None:
    assert short(one(reply(202, listed(bob="AGENT_UNKNOWN")), attempts=9))[2] == "certain"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "17"}, 17.0),
        ({"retry_after": "0"}, 0.0),
        ({"retry_after": "Sat, 21 Nov 2026 10:02:00 GMT", "date": "Sat, 21 Nov 2026 10:00:00 GMT"}, 120.0),
        ({"retry_after": "Sat, 21 Nov 2026 09:00:00 GMT", "date": "Sat, 21 Nov 2026 10:00:00 GMT"}, 0.0),
        ({"retry_after": "Sat, 21 Nov 2026 10:02:00 GMT"}, None),
        ({"retry_after": "-5"}, None),
        ({"retry_after": "1" * 400}, None),
        ({"retry_after": "soon"}, None),
        ({}, None),
    ],
)
def test_the_time_a_peer_asks_for_is_read_as_seconds_or_as_a_date(
    headers: dict[str, str], seconds: float | None
) -> None:
    outcome = one(reply(503, error("QUEUE_FULL"), **headers))
    assert isinstance(outcome, Deferred)
    assert outcome.retry_after_seconds == seconds


def test_what_a_peer_says_is_shown_on_one_printable_line_of_bounded_length() -> None:
    outcome = one(reply(503, error("QUEUE_FULL", "go\r\naway\x1b[2J" + "!" * 2000)))
    assert isinstance(outcome, Deferred)
    assert outcome.reason.startswith(f"{HOST} answered 503 QUEUE_FULL: go  away [2J!!!")
    assert len(outcome.reason) <= REASON_CHARACTERS_MAX
    assert outcome.reason.isprintable()


def lines(*documents: Any) -> bytes:
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)


BATCH = [("m-1", [BOB]), ("m-2", [BOB, CAROL]), ("m-3", [CAROL])]


def test_a_batch_is_answered_line_by_line() -> None:
    answer = lines(
        listed(bob="delivered"),
        {**error("AGENT_UNKNOWN"), **listed(bob="AGENT_UNKNOWN", carol="AGENT_UNKNOWN")},
        error("QUEUE_FULL"),
    )
    first, second, third = outcomes_of_lines(reply(200, answer), BATCH, HOST) or []
    assert first == [TAKEN]
    assert [short(each) for each in second] == [("refused", "AGENT_UNKNOWN", "certain")] * 2
    assert [short(each) for each in third] == [("later", "QUEUE_FULL", "spares")]


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ({**listed(bob="delivered"), "message_id": "another"}, BLAMED),
        ([], BLAMED),
        (error("INVALID_MESSAGE_FORMAT"), ("refused", "INVALID_MESSAGE_FORMAT", "certain")),
        (error("SENDER_NOT_ALLOWED"), ("later", "SENDER_NOT_ALLOWED", "blames")),
        (error("THEIR_OWN_CODE"), LATER),
    ],
)
def test_a_line_means_what_the_same_answer_to_a_single_message_means(
    line: Any, meaning: tuple[Any, ...]
) -> None:
    [[outcome]] = outcomes_of_lines(reply(200, lines(line)), BATCH[:1], HOST) or []
    assert short(outcome) == meaning


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_a_batch_answered_with_another_number_of_lines_is_tried_again(count: int) -> None:
    answer = lines(*[listed(bob="delivered", carol="delivered")] * count)
    outcomes = outcomes_of_lines(reply(200, answer), BATCH, HOST) or []
    assert [len(each) for each in outcomes] == [1, 2, 1]
    assert {short(outcome) for each in outcomes for outcome in each} == {BLAMED}


@pytest.mark.parametrize("status", [400, 409, 413, 415, 422])
def test_a_batch_refused_as_a_batch_says_nothing_about_its_messages(status: int) -> None:
    assert outcomes_of_lines(reply(status, error("INVALID_MESSAGE_FORMAT")), BATCH, HOST) is None


def test_a_peer_without_room_for_a_batch_has_none_for_its_messages() -> None:
    outcomes = outcomes_of_lines(reply(503, error("QUEUE_FULL"), retry_after="9"), BATCH, HOST) or []
    assert [len(each) for each in outcomes] == [1, 2, 1]
    assert {
        outcome.retry_after_seconds for each in outcomes for outcome in each if isinstance(outcome, Deferred)
    } == {9}


words = st.text(max_size=20) | st.sampled_from(
    ["bob@peer.test", "delivered", "failed", "AGENT_UNKNOWN", "QUEUE_FULL"]
)
names = st.sampled_from(
    ["recipients", "error", "code", "message", "address", "status", "message_id", "error_code"]
)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | words, inner, max_size=6),
    max_leaves=30,
)
bodies = st.binary(max_size=200) | documents.map(lambda value: json.dumps(value).encode())
headers = st.dictionaries(st.sampled_from(["retry-after", "date"]), st.text(max_size=40))


@given(st.integers(100, 999), bodies, headers, st.integers(1, 200))
def test_any_answer_gives_each_recipient_one_outcome_that_can_be_stored(
    status: int, body: bytes, headers: dict[str, str], attempts: int
) -> None:
    asked = [AskedRecipient("bob@peer.test", attempts), CAROL]
    outcomes = outcomes_of(HttpReply(status, headers, body), asked, HOST)
    batch = outcomes_of_lines(HttpReply(status, headers, body), [("m-1", asked), ("m-2", asked)], HOST)
    assert len(outcomes) == 2
    assert batch is None or [len(each) for each in batch] == [2, 2]
    for outcome in [*outcomes, *(each for line in batch or [] for each in line)]:
        if isinstance(outcome, Deferred | Refused):
            assert 0 < len(outcome.reason) <= REASON_CHARACTERS_MAX
            assert outcome.reason.isprintable()


@given(st.integers(200, 299), documents)
def test_nothing_is_refused_for_good_without_a_known_code(status: int, document: Any) -> None:
    body = json.dumps(document).encode()
    final = [code.value for code in Code if 400 <= STATUS_OF.get(code, 0) <= 413]
    if not any(code in body.decode() for code in final):
        assert not isinstance(one(HttpReply(status, {}, body)), Refused)


def details_in(details: Any) -> str | None:
    """What is kept of a refusal's details."""
    refused = {"code": "INVALID_MESSAGE_FORMAT", "message": "No.", "details": details}
    outcome = one(reply(400, {"error": refused}))
    assert isinstance(outcome, Refused)
    return outcome.details


@pytest.mark.parametrize(
    "details",
    [
        {"validation_error": "agents do not support schema 'x'"},
        ["a", 1, None, True],
        "text",
        17,
        {"a": {"b": 1.5}},
    ],
)
def test_the_details_of_a_refusal_are_kept(details: Any) -> None:
    assert json.loads(details_in(details) or "null") == details


@pytest.mark.parametrize("details", [None, "", {}])
def test_details_that_say_nothing_are_none(details: Any) -> None:
    assert details_in(details) is None


def deep(levels: int) -> Any:
    return {"a": deep(levels - 1)} if levels else "x"


@pytest.mark.parametrize(
    "details",
    [
        {f"m{n}": "x" * 100 for n in range(1000)},
        {"long": "x" * 100_000},
        ["y" * 400] * 30,
        {"n" * 10_000: "ж" * 10_000, "rest": "z"},
        deep(60),
        {"line\nbreak": "\x00 \u2028 \u202e"},
        {"number": 10**300},
    ],
)
def test_of_endless_details_a_printable_part_is_kept(details: Any) -> None:
    kept = details_in(details) or "null"
    assert len(kept) <= DETAILS_BYTES_MAX
    assert kept.isascii()
    assert kept.isprintable()
    assert json.loads(kept) is not None


def test_a_recipients_own_details_come_before_those_of_all() -> None:
    def refusal(of: str) -> dict[str, Any]:
        return {"error": {"code": "AGENT_UNKNOWN", "message": "No.", "details": {"of": of}}}

    answer = {
        **refusal("all"),
        "recipients": [{"address": BOB.recipient, "status": "failed", **refusal("bob")}],
    }
    found = outcomes_of(reply(404, answer), [BOB, CAROL], HOST)
    assert [getattr(each, "details", None) for each in found] == ['{"of":"bob"}', '{"of":"all"}']


@pytest.mark.parametrize(
    ("given", "delivered"),
    [
        (reply(200, listed(bob="delivered", carol="pending")), {BOB.recipient}),
        (reply(200, listed(bob="Delivered", carol="delivered")), {BOB.recipient, CAROL.recipient}),
        (reply(200, listed(bob="queued", carol="failed")), set()),
        (reply(200, {"message_id": "m-1", "status": "delivered"}), set()),
        (reply(200, {**listed(bob="delivered"), "message_id": "m-2"}), set()),
        (reply(404, listed(bob="delivered")), set()),
        (reply(200, b"nonsense"), set()),
    ],
)
def test_only_what_a_status_calls_delivered_to_a_recipient_is(given: HttpReply, delivered: set[str]) -> None:
    assert delivered_in(given, "m-1", [BOB.recipient, CAROL.recipient]) == delivered


def test_a_thousand_recipients_with_details_are_read() -> None:
    asked = [AskedRecipient(f"b{n}@peer.test", 1) for n in range(1000)]
    refused = {
        "status": "failed",
        "error": {"code": "POLICY_DENIED", "message": "No.", "details": {"a": [{}]}},
    }
    answer = reply(202, {"recipients": [{"address": each.recipient, **refused} for each in asked]})
    assert {type(outcome) for outcome in outcomes_of(answer, asked, HOST)} == {Refused}


def test_an_answer_of_nothing_but_brackets_is_not_read() -> None:
    hostile = b'{"recipients":[' + b",".join([b"[]"] * 300_000) + b"]}"
    assert short(one(reply(202, hostile))) == ("later", "RECIPIENT_UNAVAILABLE", "blames")
