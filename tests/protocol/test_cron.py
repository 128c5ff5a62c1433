"""When what repeats is sent, and what is sent then."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from cronsim import CronSimError
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.cron import SPENT, Plan, plan_of, tick_after, tick_body
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.message import Message, parse_message
from gateway.protocol.timestamp import render_timestamp

NOW = datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)  # a Thursday
ROW = UUID("019b7800-0000-7000-8000-000000000001")


def message_of(repeat: str = "* * * * *", headers: dict[str, Any] | None = None, **members: Any) -> Message:
    body = {
        "sender": "alice@acme.test",
        "recipients": ["bob@acme.test"],
        "payload": 1,
        "headers": {"repeat": repeat, **(headers or {})},
        **members,
    }
    return parse_message(msgspec.json.encode(body), row=ROW, now=NOW, local=True)


@pytest.mark.parametrize(
    ("repeat", "first"),
    [
        ("* * * * *", "2026-01-01T12:01:00"),
        ("*/15 * * * *", "2026-01-01T12:15:00"),
        ("0 9 * * 1-5", "2026-01-02T09:00:00"),
        ("0 9 * * mon-fri", "2026-01-02T09:00:00"),
        ("0 0 29 2 *", "2028-02-29T00:00:00"),
        ("30 6 L * *", "2026-01-31T06:30:00"),
    ],
)
def test_the_first_tick_is_the_next_that_the_expression_names_in_utc(repeat: str, first: str) -> None:
    assert plan_of(message_of(repeat), NOW).first == datetime.fromisoformat(first).replace(tzinfo=UTC)


@pytest.mark.parametrize(("seconds", "first"), [(0, 0), (0.5, 60), (30, 60), (60, 60)])
def test_no_tick_comes_before_deliver_after_and_one_may_come_with_it(seconds: float, first: float) -> None:
    day = NOW.replace(second=0) + timedelta(days=1)
    after = render_timestamp(day + timedelta(seconds=seconds))
    plan = plan_of(message_of(headers={"deliver-after": after}), NOW)
    assert plan.first == day + timedelta(seconds=first)


def test_expires_at_ends_the_schedule_and_ttl_does_not() -> None:
    ends = NOW + timedelta(minutes=2)
    plan = plan_of(message_of(headers={"expires-at": render_timestamp(ends), "ttl": 5}), NOW)
    assert plan.ends == ends
    assert plan.next_after(plan.first) == plan.first + timedelta(minutes=1)
    assert plan.next_after(plan.first + timedelta(minutes=1)) is None
    assert plan_of(message_of(headers={"ttl": 5}), NOW).ends is None


@pytest.mark.parametrize(
    ("field", "members"),
    [
        ("headers.repeat", {"repeat": "60 * * * *"}),
        ("headers.repeat", {"repeat": "* * * * 8"}),
        ("headers.repeat", {"repeat": "0 0 31 4,6 *"}),
        ("headers.expires-at", {"headers": {"expires-at": "2026-01-01T12:00:59Z"}}),
        ("signature", {"signature": {"algorithm": "ES256", "keyid": "k", "value": "v"}}),
    ],
)
def test_what_never_comes_or_can_not_be_sent_again_is_refused_by_name(
    field: str, members: dict[str, Any]
) -> None:
    with pytest.raises(AMTPError) as refused:
        plan_of(message_of(**members), NOW)
    assert refused.value.code is Code.INVALID_MESSAGE_FORMAT
    assert refused.value.details == {"field": field}


@given(st.from_regex(r"(?:[0-9A-Za-z*,/#-]{1,6} ){4}[0-9A-Za-z*,/#-]{1,6}", fullmatch=True))
def test_whatever_passes_for_an_expression_is_understood_or_refused(repeat: str) -> None:
    with suppress(AMTPError):
        assert plan_of(message_of(repeat), NOW).first > NOW


def test_a_tick_has_ids_of_its_own_that_anybody_computes_alike() -> None:
    body = message_of(message_id="daily", idempotency_key="k").body
    bodies = [tick_body(body, schedule=ROW, tick=tick) for tick in (NOW, NOW, NOW + timedelta(minutes=1))]
    one, again, next_ = [parse_message(b, row=ROW, now=NOW, local=True) for b in bodies]
    assert (one.message_id, one.key) == (again.message_id, again.key)
    assert not {one.message_id, one.key} & {next_.message_id, next_.key, "daily", "k"}
    assert (UUID(one.message_id).version, UUID(one.key or "").version) == (7, 4)


def test_a_tick_says_what_the_message_said_but_when() -> None:
    headers = {"ttl": 60, "x-own": [1.50], "deliver-after": "2026-01-02T00:00:00Z"}
    message = message_of("0 9 * * *", headers=headers, subject="Daily", timestamp="2020-01-01T00:00:00Z")
    tick = NOW + timedelta(days=3)
    sent = parse_message(tick_body(message.body, schedule=ROW, tick=tick), row=ROW, now=tick, local=True)
    assert (sent.subject, sent.sender, sent.recipients) == ("Daily", message.sender, message.recipients)
    assert sent.expires_at == tick + timedelta(seconds=60)
    assert sent.timestamp == render_timestamp(tick)
    assert msgspec.json.decode(sent.body)["headers"].keys() == {"ttl", "x-own"}
    assert not set(SPENT) & msgspec.json.decode(sent.body)["headers"].keys()


def test_a_plan_goes_on_behind_whatever_was_missed() -> None:
    plan = Plan("0 * * * *", NOW, None)
    assert plan.next_after(NOW + timedelta(hours=30)) == datetime(2026, 1, 2, 19, tzinfo=UTC)


def test_an_expression_that_is_none_is_known_by_its_error() -> None:
    with pytest.raises(CronSimError):
        tick_after("no cron at all", NOW)
