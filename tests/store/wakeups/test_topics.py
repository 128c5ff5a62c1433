"""What rings for a message, and how that is told to other processes."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from gateway.protocol.message import parse_message
from gateway.store.admitted import Admitted, Entry
from gateway.store.wakeups.topics import EVERYONE, Topic, heard_in, notice_of, reply_topic, topics_of


def admitted(*agents: int, **members: Any) -> Admitted:
    body = {"sender": "a@acme.test", "recipients": ["b@acme.test"], **members}
    message = parse_message(
        msgspec.json.encode(body), row=UUID(int=1), now=datetime(2026, 1, 1, tzinfo=UTC), local=True
    )
    return Admitted(message, True, tuple(Entry(agent, None) for agent in agents))


def test_an_inbox_rings_for_what_it_gains_and_a_question_for_its_reply() -> None:
    assert topics_of([admitted(1, 2), admitted(2, in_reply_to="q")]) == {1, 2, reply_topic("q")}


def test_two_questions_have_topics_of_their_own() -> None:
    assert reply_topic("q") == reply_topic("q") != reply_topic("r")


def test_a_notice_is_heard_as_it_was_told() -> None:
    told: set[Topic] = {1, 2, reply_topic("q"), reply_topic("an id, with a comma")}
    assert set(heard_in(notice_of(told))) == told


def test_a_full_batch_of_replies_fits_one_notice_and_more_is_told_to_everyone() -> None:
    replies = [admitted(1_000_000 + n, in_reply_to=f"q{n}") for n in range(256)]
    assert notice_of(topics_of(replies)) != EVERYONE
    assert notice_of([*topics_of(replies), *range(1000)]) == EVERYONE
