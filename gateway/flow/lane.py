"""One destination's lane: how much goes there at once, and whether anything goes there at all.

A window grows on success and shrinks on trouble. A breaker closes a destination that fails as a whole, and never
touches its rows: they keep their place in the queue.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from gateway.store.queue.deliveries import Delivery, Letter
from gateway.store.queue.destinations import Trouble

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
class Waiting:
    """A leased delivery in memory; `start_by` is on the monotonic clock: later its lease may not outlive the courier."""

    delivery: Delivery
    letter: Letter | None  # None where there was no room for it: fetched when it starts
    start_by: float

    @property
    def bytes_held(self) -> int:
        return len(self.letter.body) if self.letter else 0


@dataclass(frozen=True, slots=True)
class Haste:
    """The end of an outage: mail that was tried before it need not wait for its own next attempt."""

    before: datetime
    at_once: bool  # nothing of that mail was ever sent


@dataclass(slots=True)
class Lane:
    """One destination."""

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
    unreachable: bool = False  # whether that it can be reached proves that it is well
    heard: bool = False  # it contacted us meanwhile
    paused: bool = False
    paused_until: datetime | None = None
    more: bool = False  # the queue probably holds more of it than waits here
    shared: bool = False  # its breaker stands in the database too
    waiting: dict[UUID, list[Waiting]] = field(default_factory=dict)  # by message, the oldest first

    def closed(self, now: datetime) -> bool:
        return self.paused or (self.open_until is not None and now < self.open_until)

    def opens(self, now: datetime) -> datetime | None:
        """Returns when something begins to be sent again; None where that is now, or up to an operator."""
        at = max(filter(None, (self.open_until, self.paused_until if self.paused else None)), default=now)
        return at if at > now else None

    def room(self, now: datetime) -> int:
        """How many more may start at once."""
        if self.closed(now):
            return 0
        if self.open_until is not None:  # half open: one goes ahead and finds out
            return 0 if self.active else 1
        return max(int(self.window) - self.active, 0)

    @property
    def capacity(self) -> int:
        """How many messages may be under way at once."""
        return int(self.window) * (BATCH_MESSAGES_MAX if self.batch else 1)

    @property
    def quick(self) -> bool:
        """Whether it proved to take more than a few at once."""
        return self.batch or self.window > WINDOW_FIRST

    def ahead_max(self, now: datetime) -> int:
        """How many messages may wait in memory, where no priority moves them any more.

        A lane that proved to be quick has some windows' worth, for what goes through the queue costs a good deal more;
        any other what starts now.
        """
        if not self.quick:
            return self.room(now)
        return max(min(WINDOWS_AHEAD * self.capacity, AHEAD_MAX), 2 * self.capacity)

    def low(self, now: datetime) -> bool:
        """Whether more is to be claimed: what waits may be gone before the queue has answered."""
        if self.quick and self.open_until is None:
            return not self.paused and len(self.waiting) < self.capacity
        return not self.waiting and self.room(now) > 0

    def quiet(self, now: datetime) -> bool:
        """Whether nothing goes on here, and nothing is wrong with what anything waits for."""
        busy = self.waiting or self.active or self.promised or self.more or self.haste
        well = self.failed_at is None or now - self.failed_at > FORGOTTEN
        return not busy and well and self.open_until is None and not self.paused

    def succeeded(self, now: datetime, messages: int = 1) -> bool:
        """Notes that so many messages arrived together; tells whether that closed the breaker.

        Where several may go together, more requests at once only make each of them smaller: the window grows while
        they are full, and shrinks while they are not.
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
        """Notes that it is well, and has no room for so much at once."""
        self.failing_since, self.failed_at = self.failing_since or now, now
        self.eager = False
        self.window = max(self.window / 2, 1.0)

    def failed(self, now: datetime, draw: float, *, unreachable: bool) -> bool:
        """Notes a failure of the destination as a whole; tells whether the breaker opened just now.

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

    def learn(self, trouble: Trouble) -> None:
        """Takes over what all processes know of it."""
        self.paused, self.paused_until = trouble.paused, trouble.paused_until
        if trouble.open_until is not None:
            self.shared = True
            self.failures = max(self.failures, trouble.failures)
            self.unreachable = trouble.unreachable
            self.open_until = trouble.open_until
        elif self.shared:  # another process found it well
            self.reset()
