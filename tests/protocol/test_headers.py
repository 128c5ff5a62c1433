"""A known header says what it may say, or the message is refused; an unknown one is its sender's own."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.protocol.address import parse_address
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.headers import KNOWN, TTL_SECONDS_MAX, Headers, parse_headers
from tests.protocol.samples import HEADERS, NOW


def test_every_header_is_read() -> None:
    assert parse_headers(HEADERS, NOW) == Headers(
        priority="high",
        ttl_seconds=3600,
        expires_at=NOW + timedelta(seconds=3600),
        deliver_after=datetime(2026, 3, 1, 12, 30, tzinfo=UTC),
        repeat="0 9 * * MON-FRI",
        delivery="exactly_once",
        kind="request",
        correlation_id="order 7",
        thread_id="t-1",
        reply_to=parse_address("desk@acme.test", "headers.reply-to"),
        receipt="read",
        auto_submitted="auto-generated",
    )


@pytest.mark.parametrize(
    "headers", [None, {}, {"x-unknown": {"a": [1]}}, dict.fromkeys(KNOWN), dict.fromkeys(KNOWN, "")]
)
def test_what_is_absent_has_its_default(headers: dict[str, Any] | None) -> None:
    assert parse_headers(headers, NOW) == Headers(
        priority="normal", delivery="at_least_once", receipt="none", auto_submitted="no"
    )


@pytest.mark.parametrize(
    ("headers", "expires_at"),
    [
        ({"ttl": 60}, NOW + timedelta(seconds=60)),
        ({"expires-at": "2026-03-01T12:30:00Z"}, datetime(2026, 3, 1, 12, 30, tzinfo=UTC)),
        ({"ttl": 60, "expires-at": "2026-03-01T12:30:00Z"}, NOW + timedelta(seconds=60)),
        ({"ttl": 6000, "expires-at": "2026-03-01T12:30:00Z"}, datetime(2026, 3, 1, 12, 30, tzinfo=UTC)),
        ({"expires-at": "2020-01-01T00:00:00Z"}, datetime(2020, 1, 1, tzinfo=UTC)),
        ({"ttl": TTL_SECONDS_MAX}, NOW + timedelta(seconds=TTL_SECONDS_MAX)),
    ],
)
def test_the_earlier_end_wins(headers: dict[str, Any], expires_at: datetime) -> None:
    assert parse_headers(headers, NOW).expires_at == expires_at


VALUES: dict[str, tuple[Any, ...]] = {
    "priority": ("High", "highest", 1, True, [], {}),
    "ttl": (0, -1, 1.5, 60.0, "60", True, TTL_SECONDS_MAX + 1, 10**100, [60]),
    "expires-at": ("tomorrow", "2026-03-01", 1_772_366_400, {}),
    "deliver-after": ("later", 60, "2026-03-31T12:00:01Z", "9999-12-31T23:59:59Z"),
    "repeat": (
        *("daily", "* * * *", "* * * * * *", "*  * * * *", "0 9 * * 1\n", "a\tb c d e", 5),
        *("0/ * * * *", "*/5/2 * * * *", ",1 * * * *", "1, * * * *", "0,1" * 200 + " * * * *"),
    ),
    "delivery": ("twice", "at-least-once", 1),
    "kind": ("Request", "question", False),
    "correlation-id": (7, "a\r\nb", "a\x1bb", "x" * 256, ["a"]),
    "thread-id": (7, "a\nb", "\u2028", "x" * 256, {}),
    "reply-to": ("nobody", "a@b.", "a@b\r\nc", 7, ["a@b.test"]),
    "receipt": ("yes", True, ["read"]),
    "auto-submitted": ("yes", "auto-notified", True),
}
BAD = [(name, value) for name, values in VALUES.items() for value in values]


@pytest.mark.parametrize(("name", "value"), BAD, ids=lambda value: repr(value)[:30])
def test_a_known_header_with_a_bad_value_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(AMTPError) as refused:
        parse_headers({"x-other": 1, name: value}, NOW)
    assert refused.value.code is Code.INVALID_MESSAGE_FORMAT
    assert refused.value.details == {"field": f"headers.{name}"}
    assert f"headers.{name} " in refused.value.message


def test_every_known_header_has_bad_values_above() -> None:
    assert set(VALUES) == set(KNOWN)


@pytest.mark.parametrize(
    "cron",
    [
        "* * * * *",
        "*/5 * * * *",
        "0,30 9-17 1,15 JAN-MAR mon",
        "0 0 L * *",
        "0 9 * * 5#2",
        "0 9 * * FRI#L",
        "1-59/2 0 1 1 7",
    ],
)
def test_a_schedule_looks_like_cron(cron: str) -> None:
    assert parse_headers({"repeat": cron}, NOW).repeat == cron


def test_a_message_may_wait_thirty_days_and_no_longer() -> None:
    assert parse_headers({"deliver-after": "2026-03-31T12:00:00Z"}, NOW).deliver_after is not None
    with pytest.raises(AMTPError, match="at most 30 days"):
        parse_headers({"deliver-after": "2026-03-31T12:00:00.3Z"}, NOW)


def test_a_name_that_is_not_known_is_another_header() -> None:
    assert parse_headers({"correlation_id": 7, "X-Priority": "nonsense"}, NOW) == Headers()


def test_a_name_that_a_reader_could_take_for_a_known_one_is_refused() -> None:
    with pytest.raises(AMTPError, match=r"headers\.Priority could be read as headers\.priority"):
        parse_headers({"Priority": "high"}, NOW)


@pytest.mark.parametrize("headers", [[], "priority", 7, True, False, 0])
def test_headers_are_an_object(headers: object) -> None:
    with pytest.raises(AMTPError) as refused:
        parse_headers(headers, NOW)
    assert refused.value.details == {"field": "headers"}
