"""One lane per destination: how much goes there at once, and whether anything goes there at all.

A window grows on success and shrinks on trouble. A breaker closes a destination that fails as a whole, and never
touches its rows: they keep their place in the queue. What accept() hands over in memory waits here too, bounded.
"""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

from gateway.clock import Clock
from gateway.deliver.courier import Consignment, Parcel
from gateway.protocol.message import Message
from gateway.store.deliveries import Delivery, Letter
from gateway.store.intake import Admitted, Queued

HAND_OVER_MAX = 2000  # deliveries waiting in memory, all lanes together
HAND_OVER_BYTES_MAX = 32 * 1024 * 1024
WINDOW_FIRST, WINDOW_MAX = 4.0, 64.0
BATCH_MESSAGES_MAX = 50
BATCH_BYTES_MAX = 4 * 1024 * 1024
FAILURES_MAX = 5  # in a row, of the destination as a whole, before its breaker opens
BREAKER_SECONDS_FIRST, BREAKER_SECONDS_MAX = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """A leased delivery in memory; `start_by` is on the monotonic clock: later its lease may not outlive the courier."""

    delivery: Delivery
    letter: Letter | None  # handed over by accept(); a claimed one is fetched when it starts
    start_by: float

    @property
    def bytes_held(self) -> int:
        return len(self.letter.body) if self.letter else 0


@dataclass(slots=True)
class Lane:
    """One destination."""

    destination: str
    window: float = WINDOW_FIRST
    batch: bool = False  # whether several messages may go in one request
    active: int = 0
    failures: int = 0
    open_until: datetime | None = None  # the breaker
    paused: bool = False
    more: bool = False  # the queue probably holds more of it than waits here
    last_error: str | None = None
    shared: bool = False  # its breaker stands in the database too
    waiting: deque[Waiting] = field(default_factory=deque)

    def closed(self, now: datetime) -> bool:
        return self.paused or (self.open_until is not None and now < self.open_until)

    def room(self, now: datetime) -> int:
        """How many more may start at once."""
        if self.closed(now):
            return 0
        if self.open_until is not None:  # half open: one goes ahead and finds out
            return 0 if self.active else 1
        return max(int(self.window) - self.active, 0)

    def succeeded(self) -> bool:
        """Notes a success; tells whether it ended an outage."""
        recovered = self.open_until is not None
        self.reset()
        self.window = min(self.window + 1 / self.window, WINDOW_MAX)
        return recovered

    def failed(self, now: datetime, reason: str, draw: float) -> None:
        """Notes a failure of the destination as a whole; the breaker opens longer each time."""
        self.failures += 1
        self.last_error = reason
        self.window = max(self.window / 2, 1.0)
        if self.failures >= FAILURES_MAX:
            seconds = min(
                BREAKER_SECONDS_FIRST * 2.0 ** min(self.failures - FAILURES_MAX, 16), BREAKER_SECONDS_MAX
            )
            self.open_until = now + timedelta(seconds=seconds * (0.75 + 0.5 * draw))

    def reset(self) -> None:
        self.failures, self.open_until, self.last_error, self.shared = 0, None, None, False

    def learn(self, paused: bool, failures: int, open_until: datetime | None) -> None:
        """Takes over what all processes know of it."""
        self.paused = paused
        if open_until is not None:
            self.shared = True
            self.failures = max(self.failures, failures)
            self.open_until = max(self.open_until or open_until, open_until)


class Lanes:
    """All lanes of this process, and what waits in them."""

    def __init__(self, clock: Clock, *, lease_seconds: float, courier_seconds: float) -> None:
        self._clock = clock
        self._lease = timedelta(seconds=lease_seconds)
        self._patience_seconds = lease_seconds - courier_seconds  # how long a leased one may wait in memory
        self._lanes: dict[str, Lane] = {}
        self._held = 0  # deliveries waiting or promised
        self._bytes_held = 0
        self.ready = asyncio.Event()
        self.closing = False

    @property
    def lanes(self) -> Iterable[Lane]:
        return self._lanes.values()

    def lane(self, destination: str) -> Lane:
        found = self._lanes.get(destination)
        if found is None:
            found = self._lanes[destination] = Lane(destination)
        return found

    def lease(self, deliveries: Sequence[Queued], now: datetime) -> tuple[Queued, ...]:
        """The same deliveries, those that can start at once leased to this process."""
        promised: dict[str, int] = {}
        token = new_token()
        leased = []
        for queued in deliveries:
            lane = self.lane(queued.destination)
            ahead = promised.get(queued.destination, 0) + len(lane.waiting)
            limit = lane.room(now) * (BATCH_MESSAGES_MAX if lane.batch else 1)
            if queued.due <= now and ahead < limit and self._has_room() and lane.open_until is None:
                promised[queued.destination] = promised.get(queued.destination, 0) + 1
                self._held += 1
                leased.append(replace(queued, token=token, leased_until=now + self._lease))
            else:
                leased.append(queued)
        return tuple(leased)

    def _has_room(self) -> bool:
        return not self.closing and self._held < HAND_OVER_MAX and self._bytes_held < HAND_OVER_BYTES_MAX

    def give_up(self, admitted: Admitted) -> None:
        """The commit did not come: the room is free again."""
        self._held -= sum(queued.token is not None for queued in admitted.deliveries)

    def take(self, admitted: Admitted) -> None:
        """After the commit: what was leased in it waits here."""
        if not admitted.deliveries:
            return
        letter = letter_of(admitted)
        now, start_by = self._clock.now(), self._start_by()
        for queued in admitted.deliveries:
            if queued.token is not None:
                self._enqueue(Waiting(_delivery_of(letter.row, queued, now), letter, start_by))
            elif queued.due <= now:
                self.lane(queued.destination).more = True
        self.ready.set()

    def add(self, claimed: Sequence[Delivery], per_destination: int) -> None:
        """What was claimed from the queue waits here for its lane."""
        start_by = self._start_by()
        self._held += len(claimed)
        for lane in self._lanes.values():
            lane.more = False
        for destination, count in Counter(delivery.destination for delivery in claimed).items():
            self.lane(destination).more = count >= per_destination
        for delivery in claimed:
            self._enqueue(Waiting(delivery, None, start_by))
        self.ready.set()

    def _start_by(self) -> float:
        return asyncio.get_running_loop().time() + self._patience_seconds

    def _enqueue(self, waiting: Waiting) -> None:
        self.lane(waiting.delivery.destination).waiting.append(waiting)
        self._bytes_held += waiting.bytes_held

    def closed(self) -> list[str]:
        """Destinations from which nothing more is to be claimed now."""
        now = self._clock.now()
        return [lane.destination for lane in self._lanes.values() if lane.room(now) == 0 or lane.waiting]

    def hungry(self) -> bool:
        """Whether a lane could start more than waits here, and the queue probably has it."""
        now = self._clock.now()
        return any(lane.more and not lane.waiting and lane.room(now) > 0 for lane in self._lanes.values())

    def doubtful(self) -> list[Lane]:
        """Lanes whose breaker is half open while nothing of theirs is due: a probe may find recovery early."""
        now = self._clock.now()
        return [
            lane
            for lane in self._lanes.values()
            if lane.open_until is not None and not lane.closed(now) and not lane.active and not lane.waiting
        ]

    def startable(self) -> list[tuple[Lane, list[Waiting]]]:
        """What starts now, in pieces that travel together; the lanes count them as active."""
        now = self._clock.now()
        pieces = []
        for lane in list(self._lanes.values()):
            while lane.waiting and lane.room(now) > 0:
                pieces.append((lane, self._piece(lane)))
                lane.active += 1
            if not lane.waiting and not lane.active and lane.failures == 0 and not lane.paused:
                del self._lanes[lane.destination]  # a quiet lane is made anew when it is needed
        return pieces

    def late(self, seconds: float) -> list[Waiting]:
        """Takes out what waited so long that its lease may end under the courier, or whose lane closed meanwhile."""
        now = self._clock.now()
        over: list[Waiting] = []
        for lane in self._lanes.values():
            kept = deque[Waiting]()
            for waiting in lane.waiting:
                (over if waiting.start_by < seconds or lane.closed(now) else kept).append(waiting)
            lane.waiting = kept
        self._forget(over)
        return over

    def _piece(self, lane: Lane) -> list[Waiting]:
        """The first in line with all recipients of its message, and more messages where the peer takes batches."""
        taken: list[Waiting] = []
        messages: set[UUID] = set()
        size = 0
        rest = deque[Waiting]()
        messages_max = BATCH_MESSAGES_MAX if lane.batch and lane.open_until is None else 1
        for waiting in lane.waiting:
            row = waiting.delivery.message
            if row not in messages and (len(messages) >= messages_max or size > BATCH_BYTES_MAX):
                rest.append(waiting)
                continue
            if row not in messages:
                messages.add(row)
                size += waiting.bytes_held
            taken.append(waiting)
        lane.waiting = rest
        self._forget(taken)
        return taken

    def _forget(self, gone: Iterable[Waiting]) -> None:
        for waiting in gone:
            self._held -= 1
            self._bytes_held -= waiting.bytes_held

    def drain(self) -> list[Waiting]:
        """Everything that waits, taken out, for a stop."""
        self.closing = True
        everything = [waiting for lane in self._lanes.values() for waiting in lane.waiting]
        for lane in self._lanes.values():
            lane.waiting = deque()
        self._forget(everything)
        return everything


def new_token() -> int:
    """Fences one lease from any other, of this process or another."""
    return random.getrandbits(62)


def letter_of(admitted: Admitted) -> Letter:
    message: Message = admitted.message
    return Letter(
        row=message.row,
        message_id=message.message_id,
        sender=message.sender.name,
        proven=admitted.proven,
        automatic=admitted.automatic,
        hops=admitted.hops,
        body=message.body,
    )


def _delivery_of(row: UUID, queued: Queued, now: datetime) -> Delivery:
    assert queued.token is not None
    return Delivery(
        message=row,
        recipient=queued.recipient,
        address=queued.address,
        destination=queued.destination,
        token=queued.token,
        attempts=1,
        accepted_at=now,
        expires_at=queued.expires_at,
        expiry=queued.expiry,
        first_attempt=now,
    )


def parcel_of(destination: str, waiting: Sequence[Waiting], letters: dict[UUID, Letter]) -> Parcel:
    """What goes to one destination at once, message by message."""
    by_message: dict[UUID, list[Delivery]] = {}
    for one in waiting:
        by_message.setdefault(one.delivery.message, []).append(one.delivery)
    return Parcel(
        destination,
        tuple(Consignment(letters[row], tuple(deliveries)) for row, deliveries in by_message.items()),
    )
