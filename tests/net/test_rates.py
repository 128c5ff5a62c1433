"""How often one caller may do a thing, beside all others."""

import pytest

from gateway.net.rates import CALLERS_MAX, Rates
from gateway.protocol.errors import AMTPError, Code


class Hand:
    """A clock turned by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def done(rates: Rates, caller: str) -> int:
    """How often this caller may do it before it is refused."""
    count = 0
    while True:
        try:
            rates.take(caller)
        except AMTPError:
            return count
        count += 1


def test_a_minutes_worth_may_come_at_once_and_one_caller_spares_the_others() -> None:
    clock = Hand()
    rates = Rates("posts", lambda: 30, clock)
    assert (done(rates, "alice"), done(rates, "bob")) == (30, 30)
    clock.now += 2.0
    assert done(rates, "alice") == 1
    with pytest.raises(AMTPError) as refused:
        rates.take("alice")
    assert (refused.value.code, refused.value.retry_after) == (Code.RATE_LIMIT_EXCEEDED, 2)


def test_a_changed_limit_counts_at_once() -> None:
    most = [1]
    rates = Rates("posts", lambda: most[0], Hand())
    assert done(rates, "alice") == 1
    most[0] = 5
    assert done(rates, "bob") == 5


def test_however_many_callers_there_are_a_bounded_number_is_remembered() -> None:
    rates = Rates("posts", lambda: 1, Hand())
    for number in range(CALLERS_MAX + 10):
        rates.take(f"caller {number}")
    assert done(rates, f"caller {CALLERS_MAX + 9}") == 0
