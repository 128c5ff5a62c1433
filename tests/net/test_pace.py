"""A least rate: bytes earn time, and time alone earns none."""

from gateway.net.pace import Pace

PACE = Pace(grace_seconds=60.0, bytes_per_second_min=1000)


def test_bytes_earn_the_time_that_they_may_take() -> None:
    assert PACE.seconds_left(10.0, 5000) == 15.0


def test_a_byte_now_and_then_does_not_keep_a_client_alive() -> None:
    left, seconds = PACE.grace_seconds, 0
    while left > 0:
        left = PACE.seconds_left(left - 25, 1)
        seconds += 25
    assert seconds == 75


def test_a_fast_beginning_pays_for_no_stop_longer_than_the_grace() -> None:
    assert PACE.seconds_left(60.0, 10_000_000) == 60.0


def test_who_keeps_to_the_rate_is_never_late() -> None:
    left = PACE.grace_seconds
    for _ in range(1000):
        left = PACE.seconds_left(left - 1, 1000)
    assert left > 0
