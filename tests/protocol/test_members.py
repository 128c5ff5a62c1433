"""What is not touched keeps its bytes, and what is said is told apart from how it is said."""

import json
from typing import Any

import pytest
from hypothesis import given

from gateway.protocol.members import (
    OPTIONAL,
    annotate,
    content_of,
    members_of,
    render,
    same_content,
    with_recipients,
)
from tests.protocol.samples import COMPLETE, MINIMAL, spellings, written

ODD = (
    b'{"recipients" : ["a@b.test"] ,\n"payload":  {"z":1.10,\t"a" : 1e2, "\\u00e9":"\\/"}, "x\\u0041":[1 ,2]}'
)


def test_members_keep_their_bytes_and_their_order() -> None:
    members = {name: bytes(value) for name, value in members_of(ODD).items()}
    assert list(members) == ["recipients", "payload", "xA"]
    assert members["payload"] == b'{"z":1.10,\t"a" : 1e2, "\\u00e9":"\\/"}'
    assert render(members) == (
        b'{"recipients":["a@b.test"],"payload":{"z":1.10,\t"a" : 1e2, "\\u00e9":"\\/"},"xA":[1 ,2]}'
    )


@given(spellings())
def test_rendering_changes_blanks_between_members_only(spelling: tuple[dict[str, Any], bytes]) -> None:
    message, raw = spelling
    members = members_of(raw)
    assert json.loads(render(members)) == message
    assert members_of(render(members)) == members


def test_a_copy_names_its_recipients_and_keeps_the_rest() -> None:
    copy = with_recipients(ODD, ["c@d.test", "e@f.test"])
    assert json.loads(copy)["recipients"] == ["c@d.test", "e@f.test"]
    assert members_of(copy)["payload"] == members_of(ODD)["payload"]
    assert "idempotency_key" not in members_of(copy)


@pytest.mark.parametrize(
    ("given_key", "sent_key"),
    [
        ({}, "k"),
        ({"idempotency_key": None}, "k"),
        ({"idempotency_key": ""}, "k"),
        ({"idempotency_key": "own"}, "own"),
    ],
)
def test_a_copy_gets_a_key_where_the_sender_gave_none(given_key: dict[str, Any], sent_key: str) -> None:
    copy = with_recipients(written(MINIMAL | given_key), ["c@d.test"], idempotency_key="k")
    assert json.loads(copy)["idempotency_key"] == sent_key


def test_an_annotation_stands_before_the_message_as_received() -> None:
    noted = annotate(ODD, gateway={"via": "inbox"}, sender_verification={"result": "pass"})
    assert noted == b'{"gateway":{"via":"inbox"},"sender_verification":{"result":"pass"},' + ODD[1:]
    assert annotate(ODD) == ODD


WHO_AND_WHEN = (
    *("version", "message_id", "idempotency_key", "timestamp", "recipients", "signature"),
    *("gateway", "sender_verification", "status"),
)


@pytest.mark.parametrize("name", WHO_AND_WHEN)
def test_who_and_when_is_not_what(name: str) -> None:
    one, other = written(MINIMAL | {name: "one"}), written(MINIMAL | {name: "other"})
    assert content_of(members_of(one)) == content_of(members_of(other))
    assert same_content(one, other)


@pytest.mark.parametrize("name", sorted(COMPLETE.keys() - set(WHO_AND_WHEN)))
def test_everything_else_is(name: str) -> None:
    one, other = written(COMPLETE), written(COMPLETE | {name: {"other": 1}})
    assert content_of(members_of(one)) != content_of(members_of(other))
    assert not same_content(one, other)


@pytest.mark.parametrize("name", sorted(OPTIONAL))
def test_null_and_empty_say_as_much_as_nothing(name: str) -> None:
    for absent in (None, ""):
        one, other = written(MINIMAL), written(MINIMAL | {name: absent})
        assert content_of(members_of(one)) == content_of(members_of(other))
        assert same_content(one, other)


@pytest.mark.parametrize("name", ["payload", "x-unknown"])
def test_null_empty_and_nothing_differ_in_what_is_the_senders_own(name: str) -> None:
    bodies = [written(MINIMAL | {name: value}) for value in (None, "", "x")]
    assert len({content_of(members_of(body)) for body in bodies}) == 3
    assert not any(same_content(one, other) for one in bodies for other in bodies if one is not other)


def test_a_name_and_a_value_cannot_trade_places() -> None:
    assert content_of({"a": b"1", "b": b"2"}) != content_of({"a": b"1b", "2": b""})


@given(spellings())
def test_order_and_spelling_do_not_matter_to_the_slow_answer(spelling: tuple[dict[str, Any], bytes]) -> None:
    message, raw = spelling
    assert same_content(raw, written(message))
    other = dict(reversed(message.items()))
    assert content_of(members_of(written(message))) == content_of(members_of(written(other)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(
            ("1", "true"),
            ("0", "false"),
            ("null", "false"),
            ('"1"', "1"),
            ("[1]", "[true]"),
            ("[1]", "[1,1]"),
        ),
        *(('{"a":0}', '{"a":false}'), ("{}", "[]"), ('{"a":1}', '{"a":1,"b":1}'), ('{"a":1}', '{"b":1}')),
        *(("9007199254740993", "9007199254740992"), ("[[1,2]]", "[[2,1]]")),
    ],
)
def test_values_that_differ_differ(one: str, other: str) -> None:
    assert not same_content(b'{"payload":%b}' % one.encode(), b'{"payload":%b}' % other.encode())


@pytest.mark.parametrize(
    ("one", "other"),
    [("1", "1.0"), ("100", "1e2"), ('"\\u00e9"', '"é"'), ('{"a":1,"b":[true]}', '{"b": [ true ], "a":1}')],
)
def test_values_that_only_look_different_are_the_same(one: str, other: str) -> None:
    assert same_content(b'{"payload":%b}' % one.encode(), b'{"payload":%b}' % other.encode())
