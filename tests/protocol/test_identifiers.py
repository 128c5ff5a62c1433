"""Identifiers in the form that every implementation takes, and back again."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.errors import AMTPError
from gateway.protocol.identifiers import (
    ORIGINALS,
    derived_id,
    is_derived,
    replace_identifiers,
    restore_identifiers,
    tick_id,
    unfit,
    uuid7,
)
from gateway.protocol.members import members_of, render, same_content
from gateway.protocol.message import Message, parse_message

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ROW = UUID("019b7800-0000-7000-8000-000000000001")
SENDER = "alice@acme.test"
V4 = str(UUID(int=17, version=4))
FITTING = {"message_id": str(ROW), "idempotency_key": V4, "in_reply_to": str(ROW)}
STRANGE = {"message_id": "order-17", "idempotency_key": "Ordre n° 17", "in_reply_to": V4}

rows = st.builds(uuid7, st.integers(0, 2**48 - 1), st.integers(0, 2**74 - 1))


def body_of(**members: Any) -> bytes:
    message = {"version": "1.0", "sender": SENDER, "recipients": ["bob@go.test"], "payload": 1.50, **members}
    return json.dumps(message, ensure_ascii=False).encode()


def copy_of(body: bytes, in_reply_to: str | None = str(ROW)) -> bytes:
    """As a peer gets it that takes the strict form alone."""
    members = members_of(body)
    return render(
        replace_identifiers(members, unfit(members), row=ROW, sender=SENDER, in_reply_to=in_reply_to)
    )


def read(body: bytes, *, local: bool = False) -> Message:
    return parse_message(body, row=ROW, now=NOW, local=local)


@pytest.mark.parametrize(
    "members", [FITTING, {"message_id": str(ROW), "idempotency_key": None, "in_reply_to": ""}]
)
def test_identifiers_of_the_strict_form_are_left_alone(members: dict[str, Any]) -> None:
    assert unfit(members_of(body_of(**members))) == {}


@pytest.mark.parametrize("name", FITTING)
@pytest.mark.parametrize(
    "text", ["order-17", str(UUID(int=0)), str(ROW)[:-1], "019B7800-0000-7000-8000-00000000000A", "é"]
)
def test_all_others_are_named(name: str, text: str) -> None:
    assert unfit(members_of(body_of(**FITTING | {name: text}))) == {name: text}


def test_a_derived_copy_has_the_strict_form_and_the_originals_beside_it() -> None:
    copy = json.loads(copy_of(body_of(**STRANGE, headers={"x": 1, ORIGINALS: "another's"})))
    assert unfit(members_of(json.dumps(copy).encode())) == {}
    assert copy["headers"] == {"x": 1, ORIGINALS: {"of": copy["message_id"], **STRANGE}}
    assert (copy["in_reply_to"], copy["message_id"]) == (str(ROW), derived_id(ROW))


def test_what_the_peer_does_not_know_it_is_not_told_of() -> None:
    copy = json.loads(copy_of(body_of(**STRANGE), in_reply_to=None))
    assert "in_reply_to" not in copy
    assert copy["headers"][ORIGINALS]["in_reply_to"] == STRANGE["in_reply_to"]


def test_a_key_alone_is_bound_to_the_id_that_stays() -> None:
    body = body_of(**FITTING | {"idempotency_key": "order-17"})
    copy = json.loads(copy_of(body))
    assert copy["headers"][ORIGINALS] == {"of": str(ROW), "idempotency_key": "order-17"}
    assert restore_identifiers(copy_of(body))[1] is None


@pytest.mark.parametrize("headers", [{}, {"headers": None}, {"headers": {}}, {"headers": {"x": [1.50]}}])
@pytest.mark.parametrize("strange", [STRANGE, {**FITTING, "idempotency_key": "order-17"}])
def test_a_copy_is_read_as_the_message_that_it_stands_for(
    strange: dict[str, str], headers: dict[str, Any]
) -> None:
    body = body_of(**strange, **headers)
    meant, found = read(body), read(copy_of(body))
    assert (found.message_id, found.key, found.in_reply_to) == (
        meant.message_id,
        meant.key,
        meant.in_reply_to,
    )
    assert same_content(found.body, meant.body)
    assert (found.headers, found.minted) == (meant.headers, meant.minted)
    assert b"1.5" in found.body
    assert ORIGINALS.encode() not in found.body


def test_the_id_that_it_came_under_is_known() -> None:
    assert read(copy_of(body_of(**STRANGE))).came_as == derived_id(ROW)
    assert read(body_of(**STRANGE)).came_as is None


def test_a_reply_with_copied_headers_is_not_taken_for_what_it_answers() -> None:
    copied = json.loads(copy_of(body_of(**STRANGE)))["headers"]
    reply = read(body_of(**FITTING, headers=copied))
    assert (reply.message_id, reply.key) == (FITTING["message_id"], FITTING["idempotency_key"])


@pytest.mark.parametrize(
    "header", ["order-17", None, [], {"of": 1}, {"message_id": "order-17"}, {"of": str(ROW), "message_id": 1}]
)
def test_a_header_that_is_not_ours_restores_nothing(header: Any) -> None:
    message = read(body_of(**FITTING, headers={ORIGINALS: header}))
    assert (message.message_id, message.came_as) == (str(ROW), None)


@pytest.mark.parametrize("name", FITTING)
def test_what_is_restored_is_judged_as_if_it_had_come_so(name: str) -> None:
    header = {"of": str(ROW), name: "two\nlines"}
    with pytest.raises(AMTPError) as refused:
        read(body_of(**FITTING, headers={ORIGINALS: header}))
    assert refused.value.details == {"field": name}


def test_an_agent_here_says_what_it_means_by_itself() -> None:
    header = {"of": str(ROW), "message_id": "order-17"}
    assert read(body_of(**FITTING, headers={ORIGINALS: header}), local=True).message_id == str(ROW)


@given(rows)
def test_a_derived_id_is_recognised_and_of_the_time_of_its_row(row: UUID) -> None:
    derived = derived_id(row)
    assert is_derived(derived)
    assert UUID(derived).version == 7
    assert UUID(derived).int >> 80 == row.int >> 80


def test_other_ids_seldom_look_derived() -> None:
    assert sum(is_derived(str(uuid7(n, n * 2**60 + n))) for n in range(2000)) < 20
    assert not any(is_derived(text) for text in ("order-17", V4, "", derived_id(ROW).upper()))


def test_derived_ids_of_rows_that_follow_each_other_differ() -> None:
    assert len({derived_id(UUID(int=ROW.int + n)) for n in range(5000)}) == 5000


def test_a_tick_has_an_id_of_its_time() -> None:
    identity = UUID(tick_id(ROW, NOW))
    assert (identity.version, identity.int >> 80) == (7, int(NOW.timestamp() * 1000))
    assert tick_id(ROW, NOW) == str(identity) != tick_id(UUID(int=ROW.int + 1), NOW)
