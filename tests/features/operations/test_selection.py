"""An act that does not clearly say what it means is refused, by the name of what is wrong."""

from collections.abc import Mapping
from typing import Any

import pytest

from gateway.features.operations.dead_letters import Which
from gateway.features.operations.queue import Selection
from gateway.features.operations.selection import (
    Chosen,
    ChosenLetters,
    Replay,
    destination_of,
    rate_of,
    selection_of_body,
    selection_of_query,
    which_of_body,
    which_of_query,
)
from gateway.http.answers import encode_json
from gateway.http.bodies import reason_of
from gateway.protocol.errors import AMTPError, Code
from gateway.receive.agent_profile import read_body


def choose(body: Mapping[str, Any]) -> Selection:
    chosen = read_body(encode_json(body), Chosen)
    reason_of(chosen.reason)
    return selection_of_body(chosen)


def choose_letters(body: Mapping[str, Any]) -> Which:
    chosen = read_body(encode_json(body), Replay)
    rate_of(chosen)
    return which_of_body(chosen)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "all: true"),
        ({"dry_run": True, "reason": "why"}, "all: true"),
        ({"ids": []}, "ids"),
        ({"ids": ["a b"]}, "ids"),
        ({"ids": ["a"] * 1001}, "ids"),
        ({"ids": "a"}, "ids"),
        ({"sender": "alice"}, "sender"),
        ({"recipient": "@acme.test"}, "recipient"),
        ({"destination": "under_score.test"}, "destination"),
        ({"status": "gone"}, "status"),
        ({"code": "NO_SUCH"}, "code"),
        ({"older_than": -1}, "older_than"),
        ({"older_than": 10**12}, "older_than"),
        ({"all": True, "reason": "two\nlines"}, "reason"),
        ({"everything": True}, "everything"),
    ],
)
def test_a_wrong_choice_of_deliveries_is_refused_by_name(body: dict[str, Any], named: str) -> None:
    with pytest.raises(AMTPError) as refusal:
        choose(body)
    assert refusal.value.code is Code.INVALID_MESSAGE_FORMAT
    assert named in refusal.value.message


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "all: true"),
        ({"limit": 5}, "all: true"),
        ({"all": True, "limit": 0}, "limit"),
        ({"all": True, "limit": 10_001}, "limit"),
        ({"all": True, "per_second": 0}, "per_second"),
        ({"sender": "alice"}, "sender"),
        ({"domain": "a@b.test"}, "domain"),
        ({"younger_than": -1}, "younger_than"),
    ],
)
def test_a_wrong_choice_of_dead_letters_is_refused_by_name(body: dict[str, Any], named: str) -> None:
    with pytest.raises(AMTPError) as refusal:
        choose_letters(body)
    assert refusal.value.code is Code.INVALID_MESSAGE_FORMAT
    assert named in refusal.value.message


def test_everything_is_meant_only_where_it_is_said() -> None:
    assert choose({"all": True}) == Selection()
    assert choose_letters({"all": True}) == Which()


def test_names_are_read_as_the_store_keeps_them() -> None:
    assert choose({"sender": "Alice+x@ACME.test", "older_than": 0}) == Selection(
        sender="alice@acme.test", older_seconds=0
    )
    assert selection_of_query({"status": "held", "older_than": "60"}) == Selection(
        state="held", older_seconds=60
    )
    assert which_of_query({"domain": "P.test", "younger_than": "9"}) == Which(
        domain="p.test", younger_seconds=9
    )
    assert which_of_body(ChosenLetters(code="POLICY_DENIED")) == Which(code="POLICY_DENIED")


def test_a_destination_is_a_domain_or_an_agent_even_one_that_was_removed() -> None:
    assert destination_of("P.test") == "p.test"
    assert destination_of("Bob@acme.TEST") == "bob@acme.test"
    assert destination_of("removed:bob@acme.test") == "removed:bob@acme.test"
