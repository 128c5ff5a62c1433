"""Lanes: windows, breakers, turns, and what waits in memory, without a database."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import msgspec
import pytest

from gateway.flow import lanes as lanes_module
from gateway.flow.lane import (
    BATCH_MESSAGES_MAX,
    BATCH_WINDOW_MIN,
    FAILURES_MAX,
    OUTAGE,
    WINDOW_FIRST,
    WINDOWS_AHEAD,
    Haste,
    Lane,
    LeasedDelivery,
)
from gateway.flow.lanes import HAND_OVER_MAX, Lanes, parcel_of
from gateway.protocol.message import parse_message
from gateway.route.placing import IMMEDIATE_SECONDS, ONCE
from gateway.store.admitted import Admitted, Queued
from gateway.store.clock import Clock
from gateway.store.queue.deliveries import Delivery
from gateway.store.queue.destinations import UNTROUBLED, BreakerState
from gateway.store.row_ids import Mint

LEASE_SECONDS, COURIER_SECONDS = 30.0, 20.0
MIDDLE = 0.5


class Desk:
    """Lanes, and mail to put into them."""

    def __init__(self, clock: Clock, mint: Mint) -> None:
        self.clock, self.mint = clock, mint
        self.lanes = Lanes(clock, lease_seconds=LEASE_SECONDS, courier_seconds=COURIER_SECONDS)

    def message(self, *addresses: str, later: float = 0, size: int = 0, expiry: str = "horizon") -> Admitted:
        """Admitted, with a lease where the lanes give one."""
        now = self.clock.now()
        body = {
            "version": "1.0",
            "sender": "alice@acme.test",
            "recipients": addresses,
            "payload": "x" * size,
        }
        message = parse_message(msgspec.json.encode(body), row=self.mint(), now=now, local=True)
        due = now + timedelta(seconds=later)
        queued = tuple(
            Queued(to.name, to.written, to.domain, due, now + timedelta(days=7), expiry)
            for to in message.recipients
        )
        return Admitted(message, proven=True, deliveries=self.lanes.lease(queued, now))

    def hand_over(self, *addresses: str, count: int = 1, size: int = 0) -> int:
        """How many deliveries of so many messages were leased to us."""
        leased = 0
        for _ in range(count):
            admitted = self.message(*addresses, size=size)
            self.lanes.take(admitted)
            leased += leases(admitted)
        return leased

    def claimed(self, destination: str, count: int) -> list[Delivery]:
        now = self.clock.now()
        return [
            Delivery(
                self.mint(),
                f"b@{destination}",
                f"b@{destination}",
                destination,
                1,
                1,
                now,
                now,
                "horizon",
                now,
            )
            for _ in range(count)
        ]

    def close(self, destination: str, *, unreachable: bool = True) -> Lane:
        lane = self.lanes.lane(destination)
        for _ in range(FAILURES_MAX):
            lane.failed(self.clock.now(), MIDDLE, unreachable=unreachable)
        return lane


def leases(admitted: Admitted) -> int:
    return sum(queued.token is not None for queued in admitted.deliveries)


def sizes(pieces: Sequence[tuple[Lane, list[LeasedDelivery]]]) -> list[tuple[str, int]]:
    return [(lane.destination, len(waiting)) for lane, waiting in pieces]


@pytest.fixture
def desk(clock: Clock, mint: Mint) -> Desk:
    return Desk(clock, mint)


async def test_a_lane_takes_over_what_it_can_start_and_leaves_the_rest_in_the_queue(desk: Desk) -> None:
    assert desk.hand_over("b@p.test", count=20) == WINDOW_FIRST
    assert desk.lanes.lane("p.test").more
    assert desk.lanes.held == WINDOW_FIRST


async def test_a_lane_that_proved_quick_takes_work_ahead(desk: Desk) -> None:
    desk.lanes.lane("p.test").window = 10
    assert desk.hand_over("b@p.test", count=100) == WINDOWS_AHEAD * 10


async def test_nobody_is_handed_over_past_what_lies_in_the_queue(desk: Desk) -> None:
    desk.lanes.lane("p.test").more = True
    assert desk.hand_over("b@p.test") == 0


async def test_for_a_quick_lane_more_is_claimed_before_what_waits_runs_out(desk: Desk) -> None:
    lane = desk.lanes.lane("p.test")
    lane.window = 10
    desk.lanes.add(desk.claimed("p.test", 9), {}, set(), 9)
    assert desk.lanes.hungry()
    assert "p.test" not in set.union(*desk.lanes.closed())
    desk.lanes.add(desk.claimed("p.test", 1), {}, set(), 1)
    assert not desk.lanes.hungry()
    assert "p.test" in set.union(*desk.lanes.closed())


async def test_all_recipients_of_a_message_at_one_place_start_together(desk: Desk) -> None:
    names = [f"b{n}@p.test" for n in range(100)]
    assert desk.hand_over(*names, "c@q.test") == 101
    assert sorted(sizes(desk.lanes.startable(10))) == [("p.test", 100), ("q.test", 1)]
    assert desk.lanes.held == 0


async def test_a_message_for_later_is_left_in_the_queue(desk: Desk) -> None:
    assert leases(desk.message("b@p.test", later=60)) == 0


async def test_what_is_promised_counts_before_its_commit_and_is_given_up_without_one(desk: Desk) -> None:
    promised = [desk.message("b@p.test", "c@p.test") for _ in range(int(WINDOW_FIRST))]
    assert leases(desk.message("d@p.test")) == 0
    assert desk.lanes.held == 2 * len(promised)
    for admitted in promised:
        desk.lanes.give_up(admitted)
    assert desk.lanes.held == 0
    assert leases(desk.message("d@p.test")) == 1


async def test_the_hand_over_is_bounded_over_all_lanes(desk: Desk) -> None:
    names = [f"b{n}@p{n % 400}.test" for n in range(1000)]
    assert sum(desk.hand_over(*names) for _ in range(3)) == HAND_OVER_MAX


async def test_where_batches_are_taken_many_messages_make_one_piece(desk: Desk) -> None:
    desk.lanes.lane("p.test").batch = True
    assert desk.hand_over("b@p.test", count=120) == 120
    assert [size for _, size in sizes(desk.lanes.startable(10))] == [
        BATCH_MESSAGES_MAX,
        BATCH_MESSAGES_MAX,
        20,
    ]


async def test_a_batch_is_bounded_in_bytes(desk: Desk) -> None:
    desk.lanes.lane("p.test").batch = True
    desk.hand_over("b@p.test", count=9, size=1_000_000)
    assert [size for _, size in sizes(desk.lanes.startable(10))] == [4, 4, 1]


async def test_lanes_take_turns_when_not_all_may_start(desk: Desk) -> None:
    for destination in ("p.test", "q.test", "r.test"):
        desk.hand_over(f"b@{destination}", count=4)
    order: list[str] = []
    for _ in range(6):
        pieces = desk.lanes.startable(2)
        order += [destination for destination, _ in sizes(pieces)]
        for lane, _ in pieces:
            lane.active -= 1
    assert order == ["p.test", "q.test", "r.test"] * 4


async def test_however_many_are_slow_who_has_nothing_under_way_finds_a_courier(desk: Desk) -> None:
    couriers, under_way = 64, 0
    slow = [f"slow{number}.test" for number in range(8)]
    for destination in slow:
        desk.lanes.lane(destination).window = 64
        desk.hand_over(f"b@{destination}", count=40)
    while pieces := desk.lanes.startable(couriers - under_way):
        under_way += len(pieces)
    shares = {desk.lanes.lane(destination).active for destination in slow}
    assert shares == {7, 8}  # as many as are left
    desk.hand_over("b@quick.test")
    assert sizes(desk.lanes.startable(couriers - under_way)) == [("quick.test", 1)]


async def test_no_more_starts_than_the_window_has_room_for(desk: Desk) -> None:
    desk.lanes.add(desk.claimed("p.test", 20), {}, set(), 64)
    pieces = desk.lanes.startable(100)
    assert len(pieces) == WINDOW_FIRST
    lane = pieces[0][0]
    lane.active -= 1
    assert len(desk.lanes.startable(100)) == 1


def test_a_window_grows_fast_until_the_first_trouble_and_then_with_care(clock: Clock) -> None:
    lane = Lane("p.test")
    for _ in range(10):
        lane.succeeded(clock.now())
    assert lane.window == WINDOW_FIRST + 10
    lane.pressed(clock.now())
    for _ in range(7):
        lane.succeeded(clock.now())
    assert lane.window < WINDOW_FIRST + 10


def test_where_batches_are_taken_the_window_grows_with_full_ones_alone(clock: Clock) -> None:
    lane = Lane("p.test", batch=True)
    for _ in range(10):
        lane.succeeded(clock.now(), BATCH_MESSAGES_MAX)
    assert lane.window == WINDOW_FIRST + 10
    for _ in range(20):
        lane.succeeded(clock.now(), 3)
    assert lane.window == BATCH_WINDOW_MIN


def test_a_window_grows_on_success_and_shrinks_on_trouble(clock: Clock) -> None:
    lane = Lane("p.test")
    for _ in range(3000):
        lane.succeeded(clock.now())
    assert lane.window == lane.window_max
    lane.pressed(clock.now())
    assert lane.window == lane.window_max / 2
    for _ in range(20):
        lane.pressed(clock.now())
    assert lane.window == 1


def test_a_breaker_opens_after_failures_in_a_row_and_longer_each_time(clock: Clock) -> None:
    lane, now = Lane("p.test"), clock.now()
    opened = [lane.failed(now, MIDDLE, unreachable=True) for _ in range(FAILURES_MAX)]
    assert opened == [False] * (FAILURES_MAX - 1) + [True]
    waits = []
    for _ in range(9):
        assert lane.open_until is not None
        waits.append((lane.open_until - now).total_seconds())
        assert not lane.failed(now, MIDDLE, unreachable=True)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert lane.succeeded(clock.now())
    assert not lane.succeeded(clock.now())


def test_a_success_between_failures_keeps_the_breaker_closed(clock: Clock) -> None:
    lane = Lane("p.test")
    for _ in range(FAILURES_MAX * 3):
        lane.failed(clock.now(), MIDDLE, unreachable=False)
        lane.succeeded(clock.now())
    assert lane.open_until is None


async def test_while_the_breaker_is_half_open_one_goes_ahead_alone(desk: Desk) -> None:
    lane = desk.close("p.test")
    lane.batch = True
    assert "p.test" in set.union(*desk.lanes.closed())
    assert desk.hand_over("b@p.test") == 0
    desk.clock.offset += timedelta(seconds=2)
    assert "p.test" not in set.union(*desk.lanes.closed())
    desk.lanes.add(desk.claimed("p.test", 5), {}, set(), 64)
    assert sizes(desk.lanes.startable(10)) == [("p.test", 1)]
    lane.active -= 1
    lane.succeeded(desk.clock.now())
    assert sizes(desk.lanes.startable(10)) == [("p.test", 4)]


async def test_only_what_could_not_be_reached_is_probed_and_only_while_half_open(desk: Desk) -> None:
    unreachable = desk.close("p.test")
    desk.close("q.test", unreachable=False)
    assert desk.lanes.doubtful() == []
    desk.clock.offset += timedelta(seconds=2)
    assert desk.lanes.doubtful() == [unreachable]
    unreachable.active += 1
    assert desk.lanes.doubtful() == []


async def test_what_waits_is_given_back_when_it_is_late_or_its_lane_closes(desk: Desk) -> None:
    desk.hand_over("b@p.test", count=3)
    desk.hand_over("b@q.test", count=2)
    start_by = next(iter(desk.lanes.lane("p.test").waiting.values()))[0].start_by
    assert desk.lanes.late(start_by - 5) == []
    desk.close("p.test")
    assert {waiting.delivery.destination for waiting in desk.lanes.late(start_by - 5)} == {"p.test"}
    assert desk.lanes.held == 2
    assert len(desk.lanes.late(start_by + 1)) == 2
    assert desk.lanes.held == 0


async def test_a_quiet_lane_is_put_aside_with_what_it_learned_and_a_closed_one_is_not(desk: Desk) -> None:
    desk.close("p.test")
    lane = desk.lanes.lane("q.test")
    lane.window, lane.batch = 9, True
    for _ in range(100):
        desk.lanes.tidy()
    assert [lane.destination for lane in desk.lanes.lanes] == ["p.test"]
    assert (desk.lanes.lane("q.test").window, desk.lanes.lane("q.test").batch) == (9, True)


async def test_of_too_many_quiet_lanes_the_least_recently_used_are_forgotten(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes_module, "QUIET_MAX", 10)
    for n in range(10):
        desk.lanes.lane(f"p{n}.test").window = 9
    desk.lanes.tidy()
    desk.lanes.lane("p0.test")
    desk.lanes.lane("p10.test")
    desk.lanes.tidy()
    assert [name for n in range(11) if desk.lanes.known(name := f"p{n}.test") is None] == ["p1.test"]


async def test_a_failure_that_nothing_followed_is_forgotten_in_the_end(desk: Desk) -> None:
    desk.lanes.lane("p.test").pressed(desk.clock.now())
    desk.lanes.tidy()
    assert list(desk.lanes.lanes)
    desk.clock.offset += timedelta(hours=3)
    desk.lanes.tidy()
    assert not list(desk.lanes.lanes)


def test_the_first_success_after_an_outage_asks_for_haste_and_one_after_a_moment_does_not(
    clock: Clock,
) -> None:
    lane, now = Lane("p.test"), clock.now()
    lane.pressed(now)
    lane.succeeded(now + OUTAGE / 2)
    assert lane.haste is None
    lane.pressed(now)
    lane.pressed(now + OUTAGE / 2)
    lane.succeeded(now + OUTAGE)
    assert lane.haste == Haste(now + OUTAGE, at_once=False)


@pytest.mark.parametrize("unreachable", [True, False])
def test_whether_an_outage_used_up_attempts_decides_how_much_haste_there_is(
    clock: Clock, unreachable: bool
) -> None:
    lane, now = Lane("p.test"), clock.now()
    for _ in range(FAILURES_MAX):
        lane.failed(now, MIDDLE, unreachable=unreachable)
    assert lane.succeeded(now)
    assert lane.haste == Haste(now, at_once=unreachable)


async def test_the_queue_is_looked_at_when_the_first_of_what_is_expected_falls_due(desk: Desk) -> None:
    now = desk.clock.now()
    desk.lanes.take(desk.message("b@p.test", later=60))
    desk.lanes.take(desk.message("b@p.test", later=90))
    assert desk.lanes.next_due == pytest.approx(now + timedelta(seconds=60), abs=timedelta(seconds=1))
    desk.lanes.sooner.clear()
    desk.lanes.expect(now + timedelta(seconds=70))
    assert not desk.lanes.sooner.is_set()
    desk.lanes.expect(now + timedelta(seconds=50))
    assert desk.lanes.sooner.is_set()


async def test_what_is_tried_once_is_leased_whatever_is_ahead_of_it_until_its_time_is_over(
    desk: Desk,
) -> None:
    desk.hand_over("b@p.test", count=100)
    assert leases(desk.message("b@p.test")) == 0
    admitted = desk.message("b@p.test", "c@p.test", expiry=ONCE)
    assert leases(admitted) == 2
    assert {queued.leased_until for queued in admitted.deliveries} == {admitted.deliveries[0].expires_at}
    desk.lanes.take(admitted)
    *_, hasty = desk.lanes.lane("p.test").waiting.values()
    seconds = hasty[0].start_by - asyncio.get_running_loop().time()
    assert seconds <= IMMEDIATE_SECONDS - COURIER_SECONDS  # so that its attempt ends before its answer is due


async def test_a_closed_lane_takes_nothing_that_may_not_wait(desk: Desk) -> None:
    assert desk.lanes.takes_at_once("p.test")
    desk.lanes.lane("p.test")
    desk.close("p.test")
    assert not desk.lanes.takes_at_once("p.test")
    assert desk.lanes.takes_at_once("q.test")
    desk.lanes.drain()
    assert not desk.lanes.takes_at_once("q.test")


async def test_a_stop_takes_out_everything_and_leases_nothing_more(desk: Desk) -> None:
    desk.hand_over("b@p.test", count=3)
    assert len(desk.lanes.drain()) == 3
    assert desk.lanes.held == 0
    assert desk.hand_over("b@p.test") == 0


async def test_a_full_claim_means_that_there_is_more_until_one_finds_it_empty(desk: Desk) -> None:
    desk.lanes.add(desk.claimed("p.test", 3), {}, set(), 3)
    desk.lanes.startable(10)
    assert desk.lanes.hungry()
    desk.lanes.add([], {}, {"q.test"}, 3)  # p.test was not asked
    assert desk.lanes.hungry()
    desk.lanes.add([], {}, {"p.test"}, 3)
    assert not desk.lanes.hungry()


async def test_what_other_processes_know_is_taken_over(desk: Desk) -> None:
    lane, until = desk.lanes.lane("p.test"), desk.clock.now() + timedelta(seconds=30)
    lane.learn(BreakerState(paused=True, failures=0, open_until=None))
    assert "p.test" in set.union(*desk.lanes.closed())
    lane.learn(BreakerState(paused=False, failures=7, open_until=until, unreachable=True))
    assert (lane.paused, lane.failures, lane.open_until) == (False, 7, until)
    lane.learn(UNTROUBLED)  # another process found it well
    assert (lane.failures, lane.open_until) == (0, None)


def test_our_own_failures_are_not_forgotten_because_nobody_else_saw_them(clock: Clock) -> None:
    lane = Lane("p.test")
    lane.failed(clock.now(), MIDDLE, unreachable=True)
    lane.learn(UNTROUBLED)
    assert lane.failures == 1


async def test_a_contact_marks_only_a_destination_in_trouble(desk: Desk) -> None:
    closed, well = desk.close("p.test"), desk.lanes.lane("q.test")
    for domain in ("p.test", "q.test", "unknown.test"):
        desk.lanes.hear(domain)
    assert (closed.heard, well.heard) == (True, False)


async def test_a_parcel_holds_what_waits_message_by_message(desk: Desk) -> None:
    lane = desk.lanes.lane("p.test")
    lane.batch = True
    desk.hand_over("b@p.test", "c@p.test")
    desk.hand_over("b@p.test")
    ((_, waiting),) = desk.lanes.startable(1)
    letters = {one.letter.row: one.letter for one in waiting if one.letter}
    parcel = parcel_of("p.test", waiting, letters)
    assert [len(consignment.deliveries) for consignment in parcel.consignments] == [2, 1]
    assert len(parcel.deliveries) == 3
