"""Nobody's share is everybody's: pots with shares for addresses, owners and strangers."""

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.net.shares import Holder, Pot, Shares, site_of
from gateway.protocol.errors import AMTPError, Code

SHARES = Shares(address_percent=10, owner_percent=25, unproven_percent=50)
STRANGER = Holder(address="192.0.2.1")
AGENT = Holder(owner="planner@a.example")


def taken_by(pot: Pot, holder: Holder) -> int:
    """Takes for this holder until it is refused."""
    count = 0
    while True:
        try:
            pot.take(holder)
        except AMTPError:
            return count
        count += 1


def test_one_address_takes_its_share_and_leaves_the_rest_to_others() -> None:
    pot = Pot("requests at work", 100, SHARES)
    assert taken_by(pot, STRANGER) == 10
    assert taken_by(pot, Holder(address="192.0.2.2")) == 10


def test_one_owner_takes_its_share_from_however_many_addresses() -> None:
    pot = Pot("requests at work", 100, SHARES)
    assert taken_by(pot, AGENT) == 25
    assert taken_by(pot, Holder(owner="writer@a.example")) == 25


def test_strangers_together_leave_half_to_those_who_prove_who_they_are() -> None:
    pot = Pot("requests at work", 100, SHARES)
    assert sum(taken_by(pot, Holder(address=f"192.0.2.{i}")) for i in range(20)) == 50
    assert taken_by(pot, AGENT) == 25


def test_strangers_behind_a_trusted_proxy_that_names_nobody_share_the_common_part() -> None:
    assert taken_by(Pot("connections", 100, SHARES), Holder()) == 50


def test_a_pot_is_never_more_than_full() -> None:
    pot = Pot("requests at work", 10, Shares(100, 100, 100))
    assert taken_by(pot, AGENT) == 10
    with pytest.raises(AMTPError) as refused:
        pot.take(STRANGER)
    assert refused.value.code is Code.QUEUE_FULL
    assert refused.value.retry_after


def test_who_uses_up_a_share_hears_that_it_is_theirs() -> None:
    pot = Pot("uploads", 8, SHARES)
    with pot.held(AGENT), pot.held(AGENT):
        with pytest.raises(AMTPError, match="One caller may not have more uploads") as refused:
            pot.take(AGENT)
        assert refused.value.code is Code.RATE_LIMIT_EXCEEDED
    assert pot.taken == 0


def test_a_small_pot_still_has_one_for_everybody() -> None:
    pot = Pot("uploads", 2, SHARES)
    assert (taken_by(pot, STRANGER), taken_by(pot, AGENT)) == (1, 1)


def test_other_limits_count_at_once_and_what_is_held_stays() -> None:
    pot = Pot("connections", 100, SHARES)
    taken_by(pot, AGENT)
    pot.adopt(20, SHARES)
    with pytest.raises(AMTPError):
        pot.take(AGENT)
    pot.give(AGENT, 25)
    assert taken_by(pot, AGENT) == 5


@given(
    st.lists(st.tuples(st.sampled_from([STRANGER, Holder(), AGENT, Holder(owner="b")]), st.integers(1, 9)))
)
def test_what_is_given_back_leaves_no_trace(takings: list[tuple[Holder, int]]) -> None:
    pot = Pot("bytes", 40, SHARES)
    with ExitStack() as stack:
        for holder, amount in takings:
            try:
                stack.enter_context(pot.held(holder, amount))
            except AMTPError:
                continue
    assert (pot.taken, taken_by(pot, STRANGER), taken_by(pot, AGENT)) == (0, 4, 10)


def test_a_network_that_one_host_commands_counts_as_one_address() -> None:
    assert site_of("2001:db8::1") == site_of("2001:db8::ffff") != site_of("2001:db8:0:1::1")
    assert site_of("192.0.2.7") == "192.0.2.7"
