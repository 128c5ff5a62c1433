"""The clock tells the time in UTC, and a test may turn it."""

from datetime import UTC, datetime, timedelta

from gateway.store.clock import Clock


def test_the_clock_tells_the_time_in_utc() -> None:
    before, told, after = datetime.now(UTC), Clock().now(), datetime.now(UTC)
    assert before <= told <= after
    assert told.tzinfo is UTC


def test_the_clock_can_be_turned() -> None:
    clock = Clock()
    clock.offset += timedelta(days=14)
    assert clock.now() - datetime.now(UTC) > timedelta(days=13, hours=23)
