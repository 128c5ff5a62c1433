"""What may be occupied, and that it is given back."""

from dataclasses import replace

import pytest

from gateway.config.sections import LimitSettings
from gateway.http.limits import LATELY_SECONDS, Lately, Load, Manners, tick_seconds
from gateway.net.shares import Holder
from gateway.protocol.errors import AMTPError

LIMITS = replace(LimitSettings(), connections=3)


def test_every_pot_follows_the_configuration() -> None:
    load = Load(LIMITS)
    uploads = load.pot("uploads", lambda limits: limits.connections)
    for holder in (Holder("192.0.2.1"), Holder(owner="a"), Holder(owner="b")):
        uploads.take(holder)
    with pytest.raises(AMTPError):
        uploads.take(Holder("192.0.2.1"))
    load.adopt(replace(LIMITS, connections=30, requests_in_admission=1))
    uploads.take(Holder("192.0.2.1"), 2)
    load.requests.take(Holder(owner="a"))
    with pytest.raises(AMTPError):
        load.requests.take(Holder(owner="b"))


def test_the_process_is_empty_when_the_last_connection_has_left() -> None:
    load = Load(LIMITS)
    load.enter()
    load.enter()
    load.leave()
    assert not load.empty.is_set()
    load.leave()
    assert load.empty.is_set()


def test_deadlines_are_looked_at_often_enough_for_the_shortest() -> None:
    assert tick_seconds(LimitSettings(), Manners()) == 0.5
    assert tick_seconds(replace(LIMITS, body_seconds=0.2), Manners()) == 0.05
    assert tick_seconds(LimitSettings(), Manners(linger_seconds=60)) == 1.0


def test_what_was_asked_a_moment_ago_is_not_asked_again_and_changes_soon() -> None:
    now, answers = [0.0], [True, False]
    room = Lately(lambda: answers.pop(0), lambda: now[0])
    assert room()
    now[0] = LATELY_SECONDS * 0.9
    assert room()
    now[0] = LATELY_SECONDS
    assert not room()
