"""What follows from what a courier saw, as a table."""

from datetime import UTC, datetime, timedelta

import pytest

from gateway.deliver.outcome import (
    REASON_CHARACTERS_MAX,
    Again,
    Deferred,
    Delivered,
    Done,
    Ended,
    Facts,
    Outcome,
    Placed,
    Refused,
    Shelved,
    Verdict,
    Withdrawn,
    tidy,
    verdict_on,
)
from gateway.protocol.errors import Code
from gateway.protocol.status import Status

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
AWAY = Code.RECIPIENT_UNAVAILABLE
MIDDLE = 0.5  # a draw that leaves the delay as it is


def facts(attempts: int = 1, seconds: float = 600_000, expiry: str = "horizon") -> Facts:
    return Facts(attempts, NOW + timedelta(seconds=seconds), expiry)


def once(seconds: float = 30, *, awaited: bool = True) -> Facts:
    return Facts(1, NOW + timedelta(seconds=seconds), "once", attempts_max=1, awaited=awaited)


def after(seconds: float) -> Again:
    return Again(NOW + timedelta(seconds=seconds), AWAY, "Busy.")


TABLE: dict[str, tuple[Outcome, Facts, Verdict]] = {
    "handed over": (Delivered("amtp:gw.test"), facts(), Done("amtp:gw.test")),
    "gone back to its inbox": (
        Withdrawn(7, "bob+x@acme.test", "https://x.test"),
        facts(),
        Shelved(7, "bob+x@acme.test"),
    ),
    "put into an inbox": (Placed(7, "a+x@b.test"), facts(), Shelved(7, "a+x@b.test")),
    "refused": (
        Refused(Code.AGENT_UNKNOWN, "Nobody."),
        facts(),
        Ended(Status.FAILED, Code.AGENT_UNKNOWN, "Nobody.", dead_letter=True, report=True),
    ),
    "refused, but perhaps delivered before": (
        Refused(Code.CONFLICT, "Twice.", unknown=True),
        facts(),
        Ended(Status.FAILED, Code.CONFLICT, "Twice.", dead_letter=True, report=False),
    ),
    "put off the first time": (Deferred(AWAY, "Busy."), facts(), after(1)),
    "put off the fifth time": (Deferred(AWAY, "Busy."), facts(5), after(16)),
    "put off for the hundredth time": (Deferred(AWAY, "Busy."), facts(100), after(3600)),
    "asked for patience": (Deferred(AWAY, "Busy.", 90), facts(), after(90)),
    "asked for less patience than ours": (Deferred(AWAY, "Busy.", 2), facts(5), after(16)),
    "asked for more patience than an hour": (Deferred(AWAY, "Busy.", 1e9), facts(), after(3600)),
    "out of attempts": (
        Deferred(AWAY, "Busy."),
        facts(168),
        Ended(Status.FAILED, AWAY, "Gave up after 168 attempts. Last: Busy.", dead_letter=True, report=True),
    ),
    "one attempt left": (Deferred(AWAY, "Busy."), facts(167), after(3600)),
    "out of our time": (
        Deferred(AWAY, "Busy."),
        facts(20, 3600),
        Ended(Status.FAILED, AWAY, "Gave up after 20 attempts. Last: Busy.", dead_letter=True, report=True),
    ),
    "out of its sender's time": (
        Deferred(AWAY, "Busy."),
        facts(1, 1, "ttl"),
        Ended(
            Status.EXPIRED,
            AWAY,
            "The message's time to live ended before it could be delivered. Last: Busy.",
            dead_letter=False,
            report=True,
        ),
    ),
    "put off, while its sender waits for the answer": (
        Deferred(AWAY, "Busy.", 90),
        once(),
        Ended(Status.FAILED, AWAY, "Busy.", dead_letter=False, report=False),
    ),
    "refused, while its sender waits for the answer": (
        Refused(Code.AGENT_UNKNOWN, "Nobody."),
        once(),
        Ended(Status.FAILED, Code.AGENT_UNKNOWN, "Nobody.", dead_letter=False, report=False),
    ),
    "put off at its only attempt, and nobody waits any more": (
        Deferred(AWAY, "Busy."),
        once(awaited=False),
        Ended(Status.FAILED, AWAY, "Gave up after 1 attempts. Last: Busy.", dead_letter=True, report=True),
    ),
    "not tried at all in the time of its only attempt": (
        Deferred(AWAY, "Busy."),
        once(0, awaited=False),
        Ended(
            Status.EXPIRED,
            AWAY,
            "The message's time to live ended before it could be delivered. Last: Busy.",
            dead_letter=False,
            report=True,
        ),
    ),
    "delivered though its time is over": (Delivered("amtp:gw.test"), facts(1, -1), Done("amtp:gw.test")),
}


@pytest.mark.parametrize("case", TABLE)
def test_the_verdict_on_a_delivery(case: str) -> None:
    outcome, known, verdict = TABLE[case]
    assert verdict_on(outcome, known, NOW, MIDDLE) == verdict


def test_fewer_attempts_may_be_configured() -> None:
    few = Facts(3, NOW + timedelta(days=7), "horizon", attempts_max=3)
    assert isinstance(verdict_on(Deferred(AWAY, "Busy."), few, NOW, MIDDLE), Ended)


def test_what_others_say_is_kept_short_printable_and_on_one_line() -> None:
    assert tidy("No\r\nway\x00\ud800!") == "No  way  !"
    assert len(tidy("x" * 10_000)) == REASON_CHARACTERS_MAX
