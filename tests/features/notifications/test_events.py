"""Events: who hears of them, what a body says, and ids that stay the same."""

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest

from gateway.features.notifications.events import (
    Event,
    Happening,
    Subscriber,
    answers_challenge,
    notice_id,
    render_challenge,
    render_event,
)

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
ME, OTHER = UUID(int=1), UUID(int=2)
ALICE, BOB = "alice@acme.test", "bob@peer.test"
SENT = Happening(Event.FAILED, NOW, "row", (ALICE, BOB), BOB, {"message_id": "m"})


def test_an_operators_subscriber_hears_of_everything_and_an_agents_of_what_concerns_it() -> None:
    assert Subscriber(ME, None).hears(SENT)
    assert Subscriber(ME, ALICE).hears(SENT)
    assert Subscriber(ME, BOB).hears(SENT)
    assert not Subscriber(ME, "mallory@acme.test").hears(SENT)


def test_events_that_are_named_narrow_what_is_heard() -> None:
    assert Subscriber(ME, None, events=frozenset({"message.failed"})).hears(SENT)
    assert not Subscriber(ME, None, events=frozenset({"message.dead"})).hears(SENT)


@pytest.mark.parametrize(
    ("about", "heard"),
    [(ALICE, True), (BOB, True), ("peer.test", True), ("eve@peer.test", False), ("x.test", False)],
)
def test_addresses_and_domains_narrow_what_is_heard(about: str, heard: bool) -> None:
    assert Subscriber(ME, None, about=frozenset({about})).hears(SENT) is heard


def test_nobody_hears_of_his_own_webhook() -> None:
    ended = Happening(Event.WEBHOOK_DISABLED, NOW, str(ME), (ALICE,))
    assert not Subscriber(ME, ALICE).hears(ended)
    assert Subscriber(OTHER, ALICE).hears(ended)


def test_an_id_follows_from_event_subject_recipient_and_subscription_alone() -> None:
    later = Happening(Event.FAILED, datetime(2027, 1, 1, tzinfo=UTC), "row", (), BOB, {"attempts": 9})
    assert notice_id(SENT, ME) == notice_id(later, ME)
    others = [
        notice_id(SENT, OTHER),
        notice_id(Happening(Event.DEAD, NOW, "row", (), BOB), ME),
        notice_id(Happening(Event.FAILED, NOW, "other", (), BOB), ME),
        notice_id(Happening(Event.FAILED, NOW, "row", (), ALICE), ME),
    ]
    assert len({notice_id(SENT, ME), *others}) == 5


def test_a_body_says_type_timestamp_and_data() -> None:
    assert json.loads(render_event(SENT)) == {
        "type": "message.failed",
        "timestamp": "2026-11-21T08:00:00.000Z",
        "data": {"message_id": "m"},
    }


@pytest.mark.parametrize(
    ("answer", "proven"),
    [
        (b'{"challenge": "abc"}', True),
        (b" abc\n", True),
        (b'{"challenge": "abd"}', False),
        (b'{"challenge": null}', False),
        (b"[]", False),
        (b"", False),
        (b"\xff\xfe", False),
        (b"<html>abc</html>", False),
    ],
)
def test_a_challenge_is_answered_by_repeating_it(answer: bytes, proven: bool) -> None:
    asked = json.loads(render_challenge("abc", ME, NOW))
    assert (asked["type"], asked["challenge"]) == ("challenge", "abc")
    assert answers_challenge(answer, "abc") is proven
