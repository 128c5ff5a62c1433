"""When the next attempt is made, and that the attempts end."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from gateway.deliver.outcome import Again, Deferred, Ended, Facts, verdict_on
from gateway.protocol.errors import Code
from gateway.protocol.retry import ATTEMPTS_MAX, CAP_SECONDS, delay_seconds

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
HORIZON = timedelta(days=7)  # what a configuration says where it says nothing
MESSAGES = 200


@pytest.mark.parametrize("attempts", [1, 2, 3, 7, 12, 13, 50, 167, 10**9])
def test_each_delay_doubles_up_to_an_hour_and_spreads_by_a_quarter(attempts: int) -> None:
    middle = min(2.0 ** min(attempts - 1, 60), 3600.0)
    assert delay_seconds(attempts, 0.0) == 0.75 * middle
    assert delay_seconds(attempts, 0.5) == middle
    assert 1.24 * middle < delay_seconds(attempts, 0.999) < 1.25 * middle


def test_what_the_peer_asks_for_counts_up_to_the_cap_and_never_shortens_our_patience() -> None:
    assert delay_seconds(1, 0.5, 30) == 30
    assert delay_seconds(1, 0.5, 1e12) == CAP_SECONDS
    assert delay_seconds(10, 0.5, 3) == 512


def life(draws: random.Random, retry_after_seconds: float | None = None) -> tuple[list[float], Ended]:
    """The delays between the attempts of a message that is always put off, and how it ends."""
    now = BEGIN
    delays: list[float] = []
    outcome = Deferred(Code.RECIPIENT_UNAVAILABLE, "Busy.", retry_after_seconds)
    for attempts in range(1, 10_000):
        facts = Facts(attempts, BEGIN + HORIZON, "horizon")
        verdict = verdict_on(outcome, facts, now, draws.random())
        if isinstance(verdict, Ended):
            return delays, verdict
        assert isinstance(verdict, Again)
        delays.append((verdict.due - now).total_seconds())
        now = verdict.due
    raise AssertionError("it never ended")


def test_two_hundred_messages_follow_the_schedule_and_end_with_the_last_attempt() -> None:
    draws = random.Random(1)
    lives = [life(draws) for _ in range(MESSAGES)]
    for delays, end in lives:
        assert len(delays) == ATTEMPTS_MAX - 1
        for attempts, delay in enumerate(delays, 1):
            assert 0.75 <= delay / min(2.0 ** (attempts - 1), 3600) <= 1.25
        assert "168 attempts" in end.reason
        assert (end.dead_letter, end.report) == (True, True)
        assert timedelta(seconds=sum(delays)) < HORIZON
    for attempts in (0, 5, 100):  # they drift apart instead of coming back in one wave
        together = sorted(delays[attempts] for delays, _ in lives)
        assert together[-1] > 1.5 * together[0]


def test_the_deadline_ends_those_that_the_peer_puts_off_by_the_hour() -> None:
    delays, end = life(random.Random(1), retry_after_seconds=3600)
    assert len(delays) < ATTEMPTS_MAX - 1
    assert HORIZON - timedelta(hours=1.25) < timedelta(seconds=sum(delays)) < HORIZON
    assert (end.dead_letter, end.report) == (True, True)
