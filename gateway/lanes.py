"""One lane per destination: how much goes there at once, and whether anything goes there at all.

A window grows on success and shrinks on trouble. A breaker closes a destination that fails as a whole, and never
touches its rows: they keep their place in the queue. What accept() hands over in memory waits here too, bounded.
"""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID

from gateway.clock import Clock
from gateway.deliver.courier import Consignment, Parcel
from gateway.immediate import ONCE, SECONDS
from gateway.protocol.message import Message
from gateway.store.admitted import Admitted, Queued
from gateway.store.contacts import Contacts
from gateway.store.deliveries import Delivery, Letter
from gateway.store.destinations import Trouble

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
    window_max: float = WINDOW_MAX
    batch: bool = False  # whether several messages may go in one request
    active: int = 0
    promised: int = 0  # messages leased to us whose commit is on its way
    failures: int = 0
    open_until: datetime | None = None  # the breaker
    unreachable: bool = False  # whether that it can be reached proves that it is well
    heard: bool = False  # it contacted us meanwhile
    paused: bool = False
    more: bool = False  # the queue probably holds more of it than waits here
    shared: bool = False  # its breaker stands in the database too
    waiting: dict[UUID, list[Waiting]] = field(default_factory=dict)  # by message, the oldest first

    def closed(self, now: datetime) -> bool:
        return self.paused or (self.open_until is not None and now < self.open_until)

    def room(self, now: datetime) -> int:
        """How many more may start at once."""
        if self.closed(now):
            return 0
        if self.open_until is not None:  # half open: one goes ahead and finds out
            return 0 if self.active else 1
        return max(int(self.window) - self.active, 0)

    @property
    def quiet(self) -> bool:
        """Whether nothing is remembered here that a new lane would not know."""
        busy = self.waiting or self.active or self.promised or self.more
        return not busy and self.failures == 0 and self.open_until is None and not self.paused

    def succeeded(self) -> bool:
        """Notes a success; tells whether it ended an outage."""
        recovered = self.open_until is not None
        self.reset()
        self.window = min(self.window + 1 / self.window, self.window_max)
        return recovered

    def pressed(self) -> None:
        """Notes that it is well, and has no room for so much at once."""
        self.window = max(self.window / 2, 1.0)

    def failed(self, now: datetime, draw: float, *, unreachable: bool) -> bool:
        """Notes a failure of the destination as a whole; tells whether the breaker opened just now.

        The breaker stays open longer each time.
        """
        was_open = self.open_until is not None
        self.failures += 1
        self.unreachable = unreachable
        self.pressed()
        if self.failures >= FAILURES_MAX:
            seconds = min(
                BREAKER_SECONDS_FIRST * 2.0 ** min(self.failures - FAILURES_MAX, 16), BREAKER_SECONDS_MAX
            )
            self.open_until = now + timedelta(seconds=seconds * (0.75 + 0.5 * draw))
        return not was_open and self.open_until is not None

    def reset(self) -> None:
        self.failures, self.open_until, self.shared, self.heard = 0, None, False, False

    def learn(self, trouble: Trouble) -> None:
        """Takes over what all processes know of it."""
        self.paused = trouble.paused
        if trouble.open_until is not None:
            self.shared = True
            self.failures = max(self.failures, trouble.failures)
            self.unreachable = trouble.unreachable
            self.open_until = trouble.open_until
        elif self.shared:  # another process found it well
            self.reset()


class Lanes:
    """All lanes of this process, and what waits in them."""

    def __init__(
        self, clock: Clock, *, lease_seconds: float, courier_seconds: float, window_max: float = WINDOW_MAX
    ) -> None:
        self._clock = clock
        self._lease = timedelta(seconds=lease_seconds)
        self._patience_seconds = lease_seconds - courier_seconds  # how long a leased one may wait in memory
        self._hurry_seconds = SECONDS - courier_seconds  # the same, where somebody waits for the outcome
        self._window_max = window_max
        self._lanes: dict[str, Lane] = {}
        self._held = 0  # deliveries waiting or promised
        self._bytes_held = 0
        self.contacts = Contacts(clock)
        self.ready = asyncio.Event()
        self.closing = False

    @property
    def lanes(self) -> Iterable[Lane]:
        return self._lanes.values()

    @property
    def held(self) -> int:
        """Deliveries that wait here, or will when their commit has come."""
        return self._held

    def lane(self, destination: str) -> Lane:
        found = self._lanes.get(destination)
        if found is None:
            window = min(WINDOW_FIRST, self._window_max)
            found = self._lanes[destination] = Lane(destination, window, self._window_max)
        return found

    def lease(self, deliveries: Sequence[Queued], now: datetime) -> tuple[Queued, ...]:
        """The same deliveries of one message, those that can start soon leased to this process."""
        token, until = new_token(), now + self._lease
        open_lanes = {
            destination
            for destination in {queued.destination for queued in deliveries if queued.due <= now}
            if self._takes_more(self.lane(destination), now)
        }
        leased = []
        for queued in deliveries:
            starts = queued.destination in open_lanes and queued.due <= now and self._has_room()
            if queued.expiry == ONCE:  # nobody else is to take it before its time is over
                starts, until = True, max(until, queued.expires_at)
            self._held += starts
            leased.append(replace(queued, token=token, leased_until=until) if starts else queued)
        for destination in {queued.destination for queued in leased if queued.token is not None}:
            self.lane(destination).promised += 1
        return tuple(leased)

    def takes_at_once(self, destination: str) -> bool:
        """Whether what may not wait can go there."""
        lane = self._lanes.get(destination)
        return self._has_room() and (lane is None or not lane.closed(self._clock.now()))

    def _takes_more(self, lane: Lane, now: datetime) -> bool:
        """Whether another message would start soon: the rest is better off in the queue."""
        ahead = len(lane.waiting) + lane.promised
        return lane.open_until is None and ahead < lane.room(now) * (BATCH_MESSAGES_MAX if lane.batch else 1)

    def _has_room(self) -> bool:
        return not self.closing and self._held < HAND_OVER_MAX and self._bytes_held < HAND_OVER_BYTES_MAX

    def give_up(self, admitted: Admitted) -> None:
        """The commit did not come, or was another's: the room is free again."""
        leased = [queued.destination for queued in admitted.deliveries if queued.token is not None]
        self._held -= len(leased)
        for destination in set(leased):
            self.lane(destination).promised -= 1

    def take(self, admitted: Admitted) -> None:
        """After the commit: what was leased in it waits here."""
        if not admitted.deliveries:
            return
        self.give_up(admitted)
        letter = letter_of(admitted)
        now, start_by = self._clock.now(), self._start_by()
        for queued in admitted.deliveries:
            if queued.token is not None:
                by = self._start_by(self._hurry_seconds) if queued.expiry == ONCE else start_by
                self._enqueue(Waiting(_delivery_of(letter.row, queued, now), letter, by))
            elif queued.due <= now:
                self.lane(queued.destination).more = True
        self.ready.set()

    def add(self, claimed: Sequence[Delivery], emptied: Collection[str], per_destination: int) -> None:
        """What was claimed from the queue waits here for its lane; of those `emptied` nothing else is due."""
        start_by = self._start_by()
        counts = Counter(delivery.destination for delivery in claimed)
        for lane in self._lanes.values():
            if lane.destination in emptied:
                lane.more = False
        for destination, count in counts.items():
            self.lane(destination).more = count >= per_destination
        for delivery in claimed:
            self._enqueue(Waiting(delivery, None, start_by))
        self.ready.set()

    def _start_by(self, seconds: float | None = None) -> float:
        patience = self._patience_seconds if seconds is None else seconds
        return asyncio.get_running_loop().time() + patience

    def _enqueue(self, waiting: Waiting) -> None:
        lane = self.lane(waiting.delivery.destination)
        lane.waiting.setdefault(waiting.delivery.message, []).append(waiting)
        self._held += 1
        self._bytes_held += waiting.bytes_held

    def closed(self) -> set[str]:
        """Destinations from which nothing more is to be claimed now."""
        now = self._clock.now()
        return {lane.destination for lane in self._lanes.values() if lane.waiting or lane.room(now) == 0}

    def hungry(self) -> bool:
        """Whether a lane could start more than waits here, and the queue probably has it."""
        now = self._clock.now()
        return any(lane.more and not lane.waiting and lane.room(now) > 0 for lane in self._lanes.values())

    def doubtful(self) -> list[Lane]:
        """Lanes whose breaker is half open while nothing of theirs is due: a probe may find recovery early.

        Only where nothing could be sent: of one that answers badly, its own mail alone tells when it is well.
        """
        now = self._clock.now()
        return [
            lane
            for lane in self._lanes.values()
            if lane.open_until is not None
            and lane.unreachable
            and not lane.closed(now)
            and not lane.active
            and not lane.waiting
        ]

    def hear(self, domain: str) -> None:
        """That domain, proven, contacts us: what is known against it is looked at again."""
        self.contacts.heard(domain)
        lane = self._lanes.get(domain)
        if lane is not None and lane.open_until is not None:
            lane.heard = True

    def startable(self, limit: int) -> list[tuple[Lane, list[Waiting]]]:
        """What starts now, at most `limit` pieces that travel together; the lanes count them as active.

        The lanes take turns, those first that had theirs longest ago.
        """
        now = self._clock.now()
        pieces: list[tuple[Lane, list[Waiting]]] = []
        turns = deque(lane for lane in self._lanes.values() if lane.waiting)
        while turns and len(pieces) < limit:
            lane = turns.popleft()
            if lane.room(now) == 0:
                continue
            pieces.append((lane, self._piece(lane)))
            lane.active += 1
            self._lanes[lane.destination] = self._lanes.pop(lane.destination)
            if lane.waiting:
                turns.append(lane)
        for lane in [lane for lane in self._lanes.values() if lane.quiet]:
            del self._lanes[lane.destination]  # it is made anew when it is needed
        return pieces

    def late(self, seconds: float) -> list[Waiting]:
        """Takes out what waited so long that its lease may end under the courier, or whose lane closed meanwhile."""
        now = self._clock.now()
        over: list[Waiting] = []
        for lane in self._lanes.values():
            if not lane.waiting:
                continue
            everything = [waiting for group in lane.waiting.values() for waiting in group]
            lane.waiting = {}
            self._forget(everything)
            shut = lane.closed(now)
            for waiting in everything:
                if shut or waiting.start_by < seconds:
                    over.append(waiting)
                else:
                    self._enqueue(waiting)
        return over

    def _piece(self, lane: Lane) -> list[Waiting]:
        """The first in line with all recipients of its message, and more messages where the peer takes batches."""
        taken: list[Waiting] = []
        size = 0
        messages_max = BATCH_MESSAGES_MAX if lane.batch and lane.open_until is None else 1
        for row in list(islice(lane.waiting, messages_max)):
            size += lane.waiting[row][0].bytes_held
            if taken and size > BATCH_BYTES_MAX:
                break
            taken += lane.waiting.pop(row)
        self._forget(taken)
        return taken

    def _forget(self, gone: Iterable[Waiting]) -> None:
        for waiting in gone:
            self._held -= 1
            self._bytes_held -= waiting.bytes_held

    def drain(self) -> list[Waiting]:
        """Everything that waits, taken out, for a stop."""
        self.closing = True
        everything = [w for lane in self._lanes.values() for group in lane.waiting.values() for w in group]
        for lane in self._lanes.values():
            lane.waiting = {}
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
        due=queued.due,
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
