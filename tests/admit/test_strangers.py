"""The common pot of unproven senders: its pace, its room, and each inbox's share of it."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from gateway.admit.strangers import BURST_SECONDS, Strangers
from gateway.config.sections import LimitSettings
from gateway.journal.journal import Journal
from gateway.protocol.errors import AMTPError, Code
from gateway.store.admitted import ENTRY_BYTES, Entry
from gateway.store.agents.agents import Resident

LIMITS = LimitSettings(
    unproven_messages_per_second=1,
    unproven_bytes_per_second=1024,
    unproven_stored_bytes=10_000_000,
    unproven_inbox_bytes=4_000_000,
    unproven_disk_free_bytes=1000,
)
BOB = Resident(1, "bob@acme.test", "pull", "active")


@dataclass
class House:
    """A pot on a clock turned by hand; what is stored, and the free disk, are a test's word."""

    now: float = 0.0
    stored: dict[int | str, int] = field(default_factory=dict)
    free: int | None = None
    counts: int = 0

    def pot(self, limits: LimitSettings = LIMITS, processes: int = 1) -> Strangers:
        journal = Journal(io.StringIO())
        return Strangers(
            limits, journal, self._count, lambda: self.free, processes=processes, seconds=lambda: self.now
        )

    async def _count(self) -> Mapping[int | str, int]:
        self.counts += 1
        return dict(self.stored)


def taken(pot: Strangers, size: int = 10) -> int:
    """How many messages of this size get in before one is refused."""
    count = 0
    while refusal(pot, size) is None:
        count += 1
    return count


def refusal(pot: Strangers, size: int = 10) -> AMTPError | None:
    try:
        pot.arrive(size, "192.0.2.1")
    except AMTPError as error:
        return error
    return None


def test_a_minutes_worth_may_come_at_once_and_then_as_much_as_the_pace_allows() -> None:
    house = House()
    pot = house.pot()
    assert taken(pot) == BURST_SECONDS
    house.now += 5
    assert taken(pot) == 5
    refused = refusal(pot)
    assert refused is not None
    assert (refused.code, refused.retry_after) == (Code.RATE_LIMIT_EXCEEDED, 2)


def test_large_messages_use_up_the_pace_in_bytes() -> None:
    house = House()
    pot = house.pot()
    assert taken(pot, size=20 * 1024) == 3
    house.now += 1
    assert taken(pot, size=20 * 1024) == 1


def test_each_process_of_a_gateway_has_its_part_of_the_pace() -> None:
    assert taken(House().pot(processes=4)) == BURST_SECONDS // 4


async def test_what_other_processes_stored_counts_and_what_was_acknowledged_does_not() -> None:
    house = House(stored={2: 10_000_000})
    pot = house.pot()
    assert refusal(pot) is None
    await pot.look()
    refused = refusal(pot)
    assert refused is not None
    assert (refused.code, refused.retry_after) == (Code.QUEUE_FULL, 60)
    house.stored = {}
    await pot.look()
    assert refusal(pot) is None


async def test_what_was_stored_since_the_last_count_is_known_at_once() -> None:
    house = House()
    pot = house.pot()
    await pot.look()
    pot.keep([Entry(BOB.id, None)], [], 4_000_000 - ENTRY_BYTES)
    with pytest.raises(AMTPError) as refused:
        pot.check_inbox(BOB)
    assert refused.value.code is Code.QUEUE_FULL
    pot.check_inbox(replace(BOB, id=2, name="carol@acme.test"))
    pot.keep([Entry(2, None), Entry(3, None)], [], 6_000_000)
    assert refusal(pot) is not None


def test_on_a_disk_that_fills_up_strangers_stop_long_before_agents_do() -> None:
    house = House(free=999)
    refused = refusal(house.pot())
    assert refused is not None
    assert refused.code is Code.QUEUE_FULL
    house.free = 1000
    assert refusal(house.pot()) is None


async def test_nothing_is_counted_while_no_stranger_comes() -> None:
    house = House()
    pot = house.pot()
    for _ in range(3):
        await pot.look()
    assert house.counts == 1
    assert refusal(pot) is None
    await pot.look()
    assert house.counts == 2
