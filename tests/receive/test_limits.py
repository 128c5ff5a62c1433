"""What may be occupied, and that it is given back."""

from dataclasses import replace

import pytest

from gateway.config_sections import Limits
from gateway.protocol.errors import AMTPError, Code
from gateway.receive.limits import LATELY_SECONDS, Lately, Load, Manners, Slots, site_of, tick_seconds

LIMITS = replace(Limits(), connections=3, connections_per_address=2, bodies_in_flight_bytes=10)


def test_slots_turn_away_with_503_when_all_are_taken_and_are_free_again_afterwards() -> None:
    slots = Slots(1, "Too many requests are at work.")
    with slots:
        assert slots.taken == 1
        with pytest.raises(AMTPError) as caught, slots:
            pass
        assert (caught.value.code, caught.value.status) == (Code.QUEUE_FULL, 503)
        assert caught.value.retry_after == 1
        assert slots.taken == 1
    with pytest.raises(KeyError), slots:
        raise KeyError
    assert slots.taken == 0


def test_connections_are_counted_by_site_and_in_all() -> None:
    load = Load(LIMITS)
    assert load.enter("a")
    assert load.enter("a")
    assert not load.enter("a")
    assert load.enter("b")
    assert not load.enter("c")
    for site in ("a", "a", "b"):
        assert not load.empty.is_set()
        load.leave(site)
    assert load.empty.is_set()
    assert not load.counts


def test_a_trusted_proxy_has_no_share_of_its_own() -> None:
    load = Load(LIMITS)
    assert all(load.enter(None) for _ in range(3))
    assert not load.enter(None)


def test_a_closing_door_lets_nobody_in() -> None:
    load = Load(LIMITS)
    load.closing = True
    assert not load.enter("a")


def test_bytes_over_the_bound_are_refused_and_given_back_by_who_took_them() -> None:
    load = Load(LIMITS)
    load.take_bytes(10)
    with pytest.raises(AMTPError) as caught:
        load.take_bytes(1)
    assert caught.value.status == 503
    load.give_bytes(11)
    assert load.body_bytes == 0


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_one_host_is_one_site(address: str, site: str) -> None:
    assert site_of(address) == site


def test_deadlines_are_looked_at_often_enough_for_the_shortest() -> None:
    assert tick_seconds(Limits(), Manners()) == 0.5
    assert tick_seconds(replace(LIMITS, body_seconds=0.2), Manners()) == 0.05
    assert tick_seconds(Limits(), Manners(linger_seconds=60)) == 1.0


def test_what_was_asked_a_moment_ago_is_not_asked_again_and_changes_soon() -> None:
    now, answers = [0.0], [True, False]
    room = Lately(lambda: answers.pop(0), lambda: now[0])
    assert room()
    now[0] = LATELY_SECONDS * 0.9
    assert room()
    now[0] = LATELY_SECONDS
    assert not room()
