"""A message is read once: what is right is kept byte for byte, what is wrong is named."""

import json
import pickle
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.headers import KNOWN
from gateway.protocol.members import content_of
from gateway.protocol.message import MEMBERS_MAX, RECIPIENTS_MAX, Message, members_of
from tests.protocol.samples import (
    COMPLETE,
    LINES,
    MINIMAL,
    NOW,
    ROW,
    SIGNATURE,
    changed,
    messages,
    read,
    spellings,
    values,
    without,
    written,
)


def test_every_member_is_read() -> None:
    message = read(written(COMPLETE))
    assert message.message_id == COMPLETE["message_id"]
    assert not message.minted
    assert message.row == ROW
    assert message.sender.name == "buyer@acme.test"
    assert [recipient.written for recipient in message.recipients] == COMPLETE["recipients"]
    assert message.key == "order-7"
    assert message.timestamp == "2026-03-01T11:59:59.5+01:00"
    assert {name: getattr(message, name) for name in LINES} == {name: COMPLETE[name] for name in LINES}
    assert message.headers.priority == "high"
    assert message.expires_at == NOW + timedelta(hours=1)
    assert message.coordination
    assert message.signed


def test_a_message_that_lacks_nothing_is_kept_byte_for_byte() -> None:
    raw = json.dumps(COMPLETE, indent=3, ensure_ascii=False).encode()
    assert read(raw).body is raw
    assert read(b"\n " + raw + b"\r\n").body == raw


def test_what_a_gateway_leaves_out_is_minted() -> None:
    message = read(written(MINIMAL))
    assert message.minted
    assert message.message_id == str(ROW)
    assert message.timestamp == "2026-03-01T12:00:00.250Z"
    assert message.key is None
    assert json.loads(message.body) == MINIMAL | {"message_id": str(ROW), "timestamp": message.timestamp}
    assert message.body.endswith(written(MINIMAL)[1:])


def test_a_local_agent_may_leave_out_version_and_payload() -> None:
    raw = written({"sender": "buyer@acme.test", "recipients": ["seller@shop.test"]})
    body = json.loads(read(raw, local=True).body)
    assert body["version"] == "1.0"
    assert body["payload"] is None


@pytest.mark.parametrize("absent", [None, ""])
@pytest.mark.parametrize("name", ["version", "message_id", "timestamp"])
def test_null_and_empty_make_room_for_what_is_minted(name: str, absent: str | None) -> None:
    message = read(changed(**{name: absent}), local=True)
    body = message.body.decode()
    assert body.count(f'"{name}":') == 1
    assert json.loads(body)[name] == getattr(message, name, "1.0")


@pytest.mark.parametrize("absent", [None, ""])
def test_null_and_empty_mean_absent_in_every_optional_member(absent: str | None) -> None:
    raw = written(MINIMAL | dict.fromkeys(COMPLETE.keys() - MINIMAL.keys() - {"x-unknown"}, absent))
    assert replace(read(raw), body=b"") == replace(read(written(MINIMAL)), body=b"")


@pytest.mark.parametrize("payload", [None, "", 0, False, [], {}, "text", [1, 2], 1.5])
def test_any_json_is_a_payload(payload: object) -> None:
    assert json.loads(read(changed(payload=payload)).body)["payload"] == payload


@given(spellings())
def test_a_payload_keeps_its_bytes(spelling: tuple[dict[str, Any], bytes]) -> None:
    _, raw = spelling
    assert members_of(read(raw).body)["payload"] == members_of(raw)["payload"]


@given(spellings())
def test_what_was_read_reads_the_same_again(spelling: tuple[dict[str, Any], bytes]) -> None:
    once = read(spelling[1])
    again = read(once.body)
    assert again.body == once.body
    assert replace(again, minted=once.minted, content=once.content) == once
    assert again.content == said(once)


def said(message: Message) -> bytes:
    return content_of(members_of(message.body))


@given(messages())
def test_what_is_said_does_not_depend_on_what_is_minted(message: dict[str, Any]) -> None:
    bare = {
        name: value for name, value in message.items() if name not in {"version", "message_id", "timestamp"}
    }
    assert said(read(written(bare), local=True)) == said(read(written(message)))


def test_a_left_out_payload_says_the_same_as_null() -> None:
    assert read(without("payload"), local=True).content == read(changed(payload=None)).content


@pytest.mark.parametrize("member", ["idempotency_key", "message_id"])
def test_what_is_said_is_known_where_it_may_come_again(member: str) -> None:
    neither: dict[str, Any] = {"idempotency_key": None, "message_id": None}
    assert read(changed(**neither), local=True).content == b""
    known = read(changed(**{**neither, member: "7f"}), local=True)
    assert known.content == said(known)


@pytest.mark.parametrize("name", ["gateway", "sender_verification", "status"])
def test_nobody_else_speaks_in_our_name(name: str) -> None:
    escaped = written(COMPLETE)[:-1] + b', "%b": {"result": "pass"}}' % name.replace("t", "\\u0074").encode()
    plain = changed(**{name: {"result": "pass"}})
    for forged in (escaped, plain):
        message = read(forged)
        assert json.loads(message.body) == COMPLETE
        assert message.content == read(written(COMPLETE)).content


def test_unknown_members_are_passed_on() -> None:
    assert json.loads(read(written(MINIMAL | {"x": [1], "message_type": "m"})).body)["x"] == [1]


def test_a_recipient_named_twice_is_one_recipient() -> None:
    message = read(changed(recipients=["B@shop.test", "a@shop.test", "b+tag@SHOP.test", "a@shop.test"]))
    assert [recipient.written for recipient in message.recipients] == ["B@shop.test", "a@shop.test"]


def test_a_thousand_recipients_are_enough() -> None:
    many = [f"a{number}@shop.test" for number in range(RECIPIENTS_MAX)]
    assert len(read(changed(recipients=many)).recipients) == RECIPIENTS_MAX


def test_too_many_recipients_are_refused_before_any_is_read() -> None:
    with pytest.raises(AMTPError) as refused:
        read(changed(recipients=["no address"] * 100_000))
    assert refused.value.code is Code.INVALID_MESSAGE_FORMAT
    assert refused.value.details == {"field": "recipients"}


def test_many_international_domains_are_refused_before_any_is_read() -> None:
    one = [f"a{number}@bücher.test" for number in range(RECIPIENTS_MAX)]
    assert len(read(changed(recipients=one)).recipients) == RECIPIENTS_MAX
    for spelling in ("bü{}.test", "XN--b{}.test"):
        with pytest.raises(AMTPError, match="at most 50") as refused:
            read(changed(recipients=["a@" + spelling.format(number) for number in range(51)]))
        assert refused.value.details == {"field": "recipients"}


def test_members_without_end_are_refused() -> None:
    names = [f"x{number}" for number in range(MEMBERS_MAX - len(MINIMAL))]
    assert read(written(dict.fromkeys(names) | MINIMAL)).minted
    with pytest.raises(AMTPError, match="too many members"):
        read(written(dict.fromkeys([*names, "y"]) | MINIMAL))


def test_a_message_and_its_errors_travel_between_processes() -> None:
    message = read(written(COMPLETE))
    assert pickle.loads(pickle.dumps(message)) == message


FORMAT, VERSION, RECIPIENT = Code.INVALID_MESSAGE_FORMAT, Code.UNSUPPORTED_VERSION, Code.INVALID_RECIPIENT

# What was written into a member of a valid message, and what is said about it.
BAD: list[tuple[str, Code, str, tuple[Any, ...]]] = [
    ("version", VERSION, "version", ("2.0", "1", "1.0 ", 1.0, 1, True, [], {}, "１.0")),
    ("version", FORMAT, "version", (None, "")),
    ("sender", FORMAT, "sender", (None, "", "buyer", 7, ["a@b"], {}, "a@b\r\nc", "a@b,c@d")),
    ("recipients", FORMAT, "recipients", (None, "", [], {}, "a@b.test", 7, {"0": "a@b"})),
    ("recipients", RECIPIENT, "recipients[0]", ([None], [""], [7], ["a"], ["a@b."], ["a@b\n"], [["a@b"]])),
    ("recipients", RECIPIENT, "recipients[1]", (["a@b", "a b@c"], ["a@b", {}], ["a@b", "a@1.2.3.4"])),
    ("message_id", FORMAT, "message_id", ("a b", "é", "a/b", "x" * 129, "a\n", 7, True, [])),
    ("idempotency_key", FORMAT, "idempotency_key", ("a\nb", "\x7f", "x" * 256, 7, False, {})),
    ("timestamp", FORMAT, "timestamp", ("now", "2026-03-01", 1_772_366_400, [], "2026-03-01T12:00:00")),
    *[(name, FORMAT, name, ("a\r\nb", "\x1b[2J", "\u2028", "x" * 1025, 7, [], False)) for name in LINES],
    ("headers", FORMAT, "headers", ([], "a", 7, False, 0)),
    *[("headers", FORMAT, f"headers.{name}", ({name: 0}, {name: [7]})) for name in KNOWN],
    ("coordination", FORMAT, "coordination", ([], "a", 7, False)),
    ("attachments", FORMAT, "attachments", ({}, "a", 7, False)),
    ("attachments", FORMAT, "attachments[0]", (["a"], [7], [None], [[]])),
    ("attachments", FORMAT, "attachments[0].filename", ([{}],)),
    ("signature", FORMAT, "signature", ([], "a", 7, True)),
    ("signature", FORMAT, "signature.algorithm", ({}, SIGNATURE | {"algorithm": None})),
    ("signature", FORMAT, "signature.keyid", (SIGNATURE | {"keyid": ""},)),
    (
        "signature",
        FORMAT,
        "signature.value",
        (SIGNATURE | {"value": ""}, {"algorithm": "ES256", "keyid": "s1"}),
    ),
]
MUTATIONS = [({name: value}, code, field) for name, code, field, values in BAD for value in values]


@pytest.mark.parametrize(("members", "code", "field"), MUTATIONS, ids=lambda value: repr(value)[:40])
def test_every_mutation_has_its_error(members: dict[str, Any], code: Code, field: str) -> None:
    with pytest.raises(AMTPError) as refused:
        read(changed(**members))
    assert refused.value.code is code
    assert refused.value.details is not None
    assert refused.value.details["field"] == field
    assert refused.value.message.startswith(field)
    assert refused.value.message.isprintable()


@pytest.mark.parametrize("name", ["version", "sender", "recipients", "payload"])
def test_what_is_required_is_missed(name: str) -> None:
    with pytest.raises(AMTPError) as refused:
        read(without(name))
    assert refused.value.code is Code.INVALID_MESSAGE_FORMAT
    assert refused.value.details == {"field": name}


def test_another_version_is_told_which_ones_are_spoken() -> None:
    for local in (True, False):
        with pytest.raises(AMTPError) as refused:
            read(changed(version="2.0"), local=local)
        assert refused.value.details == {"field": "version", "supported": ["1.0"]}


@pytest.mark.parametrize("raw", [b"[]", b'"message"', b"7", b"null", b"true"])
def test_a_message_is_an_object(raw: bytes) -> None:
    with pytest.raises(AMTPError, match="is not an object"):
        read(raw)


def message_or_error(raw: bytes) -> Message | AMTPError:
    try:
        return read(raw)
    except AMTPError as error:
        refused = error
    assert refused.code in {FORMAT, VERSION, RECIPIENT}
    assert refused.details is not None
    assert refused.details["field"]
    return refused


@given(st.sampled_from([*COMPLETE, "gateway", "new"]), values)
def test_any_value_of_any_member_is_read_or_refused(name: str, value: Any) -> None:
    message_or_error(changed(**{name: value}))


@given(st.integers(0, 2000), st.integers(0, 8), st.binary(max_size=8))
def test_any_bytes_in_any_place_are_read_or_refused(place: int, length: int, splinter: bytes) -> None:
    raw = written(COMPLETE)
    message_or_error(raw[:place] + splinter + raw[place + length :])


@given(st.binary(max_size=40))
def test_noise_is_refused(noise: bytes) -> None:
    assert isinstance(message_or_error(noise), AMTPError)
