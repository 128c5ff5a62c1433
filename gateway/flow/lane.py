"""One destination's lane: its window, and its breaker.

The window grows on success and shrinks on trouble. The breaker stops deliveries to a destination that fails as a whole,
and never touches its rows: they keep their place in the queue.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from gateway.store.queue.deliveries import Delivery, Letter
from gateway.store.queue.destinations import BreakerState

WINDOW_FIRST, WINDOW_MAX = 4.0, 64.0
WINDOWS_AHEAD = 8  # of what goes at once may be in memory …
AHEAD_MAX = 512  # … messages, unless a few windows are more
BATCH_MESSAGES_MAX = 50
BATCH_WINDOW_MIN = 2.0  # requests under way: one is answered while the next collects
FAILURES_MAX = 5  # in a row, of the destination as a whole, before its breaker opens
BREAKER_SECONDS_FIRST, BREAKER_SECONDS_MAX = 1.0, 60.0
FORGOTTEN = timedelta(hours=2)  # after the last failure: whatever waited would have been tried again
OUTAGE = timedelta(seconds=30)  # without any success: then the first one ends an outage


@dataclass(frozen=True, slots=True)
class LeasedDelivery:
    """A leased delivery in memory. Started after `start_by` (monotonic clock), its lease may end before the courier does."""

    delivery: Delivery
    letter: Letter | None  # None where there was no room for it: fetched when it starts
    start_by: float

    @property
    def bytes_held(self) -> int:
        return len(self.letter.body) if self.letter else 0


@dataclass(frozen=True, slots=True)
class Haste:
    """The recovery from an outage: mail that failed during it need not wait for its next attempt."""

    before: datetime
    at_once: bool  # nothing of that mail was ever sent


@dataclass(slots=True)
class Lane:
    """One destination as this process sees it."""

    destination: str
    window: float = WINDOW_FIRST
    window_max: float = WINDOW_MAX
    eager: bool = True  # it has not shown yet how much it takes: the window doubles with each round
    batch: bool = False  # whether several messages may go in one request
    active: int = 0
    promised: int = 0  # messages leased to us whose commit is on its way
    failures: int = 0
    failing_since: datetime | None = None  # nothing succeeded since then
    failed_at: datetime | None = None  # the last time
    haste: Haste | None = None  # while mail may wait that an outage made wait
    open_until: datetime | None = None  # the breaker
    unreachable: bool = False  # whether reaching it proves that it is healthy
    heard: bool = False  # it contacted us meanwhile
    paused: bool = False
    paused_until: datetime | None = None
    more: bool = False  # the queue probably holds more of it than waits here
    shared: bool = False  # its breaker stands in the database too
    waiting: dict[UUID, list[LeasedDelivery]] = field(default_factory=dict)  # by message, the oldest first

    def closed(self, now: datetime) -> bool:
        return self.paused or (self.open_until is not None and now < self.open_until)

    def opens(self, now: datetime) -> datetime | None:
        """Returns when the breaker or a timed pause ends; None where nothing is shut, or an operator has to resume it."""
        at = max(filter(None, (self.open_until, self.paused_until if self.paused else None)), default=now)
        return at if at > now else None

    def room(self, now: datetime) -> int:
        """Returns how many more parcels may start at once."""
        if self.closed(now):
            return 0
        if self.open_until is not None:  # half open: one goes ahead and finds out
            return 0 if self.active else 1
        return max(int(self.window) - self.active, 0)

    @property
    def capacity(self) -> int:
        """Returns how many messages may be under way at once."""
        return int(self.window) * (BATCH_MESSAGES_MAX if self.batch else 1)

    @property
    def quick(self) -> bool:
        """Returns whether it has proved to take more than a few at once."""
        return self.batch or self.window > WINDOW_FIRST

    def ahead_max(self, now: datetime) -> int:
        """Returns how many messages may wait in memory, where priority no longer reorders them.

        A quick lane may hold some windows' worth, because a trip through the queue costs much more; any other only what
        can start now.
        """
        if not self.quick:
            return self.room(now)
        return max(min(WINDOWS_AHEAD * self.capacity, AHEAD_MAX), 2 * self.capacity)

    def low(self, now: datetime) -> bool:
        """Returns whether more should be claimed: what waits may be sent before the claim returns."""
        if self.quick and self.open_until is None:
            return not self.paused and len(self.waiting) < self.capacity
        return not self.waiting and self.room(now) > 0

    def quiet(self, now: datetime) -> bool:
        """Returns whether nothing waits or is under way here, and nothing is wrong with the destination."""
        busy = self.waiting or self.active or self.promised or self.more or self.haste
        well = self.failed_at is None or now - self.failed_at > FORGOTTEN
        return not busy and well and self.open_until is None and not self.paused

    def succeeded(self, now: datetime, messages: int = 1) -> bool:
        """Notes that so many messages arrived together; returns whether that closed the breaker.

        With batches, more concurrent requests only make each of them smaller: so the window grows while batches
        are full, and shrinks while they are not.
        """
        recovered = self.open_until is not None
        if recovered or (self.failing_since is not None and now - self.failing_since >= OUTAGE):
            self.haste = Haste(now, at_once=recovered and self.unreachable)
        self.reset()
        step = 1.0 if self.eager else 1 / self.window
        if not self.batch or 2 * messages >= BATCH_MESSAGES_MAX:
            self.window = min(self.window + step, self.window_max)
        elif self.window > BATCH_WINDOW_MIN:
            self.window = max(self.window - 1, BATCH_WINDOW_MIN)
        return recovered

    def pressed(self, now: datetime) -> None:
        """Notes that the destination is healthy but has no room for so much at once."""
        self.failing_since, self.failed_at = self.failing_since or now, now
        self.eager = False
        self.window = max(self.window / 2, 1.0)

    def failed(self, now: datetime, draw: float, *, unreachable: bool) -> bool:
        """Notes a failure of the destination as a whole; returns whether the breaker opened just now.

        The breaker stays open longer each time.
        """
        was_open = self.open_until is not None
        self.failures += 1
        self.unreachable = unreachable
        self.pressed(now)
        if self.failures >= FAILURES_MAX:
            seconds = min(
                BREAKER_SECONDS_FIRST * 2.0 ** min(self.failures - FAILURES_MAX, 16), BREAKER_SECONDS_MAX
            )
            self.open_until = now + timedelta(seconds=seconds * (0.75 + 0.5 * draw))
        return not was_open and self.open_until is not None

    def reset(self) -> None:
        self.failures, self.failing_since, self.failed_at, self.open_until = 0, None, None, None
        self.shared, self.heard = False, False

    def learn(self, trouble: BreakerState) -> None:
        """Takes over the breaker and pause that all processes share."""
        self.paused, self.paused_until = trouble.paused, trouble.paused_until
        if trouble.open_until is not None:
            self.shared = True
            self.failures = max(self.failures, trouble.failures)
            self.unreachable = trouble.unreachable
            self.open_until = trouble.open_until
        elif self.shared:  # another process found it well
            self.reset()
