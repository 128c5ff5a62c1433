"""The lanes of this process and the deliveries in memory: handed over by accept() or claimed from the queue, bounded."""

import asyncio
import random
from collections import Counter, OrderedDict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID

from msgspec.structs import replace

from gateway.deliver.courier import Consignment, Parcel
from gateway.flow.lane import BATCH_MESSAGES_MAX, WINDOW_FIRST, WINDOW_MAX, Lane, LeasedDelivery
from gateway.protocol.message import Message
from gateway.route.placing import IMMEDIATE_SECONDS, ONCE
from gateway.store.admitted import Admitted, Queued
from gateway.store.clock import Clock
from gateway.store.queue.contacts import Contacts
from gateway.store.queue.deliveries import Delivery, Letter

HAND_OVER_MAX = 2000  # deliveries waiting in memory, all lanes together
HAND_OVER_BYTES_MAX = 32 * 1024 * 1024
QUIET_MAX = 10_000  # lanes that remember a destination's pace while nothing goes there, half a kilobyte each
BATCH_BYTES_MAX = 4 * 1024 * 1024


class Lanes:
    """The lanes of this process, and the deliveries waiting in them."""

    def __init__(
        self, clock: Clock, *, lease_seconds: float, courier_seconds: float, window_max: float = WINDOW_MAX
    ) -> None:
        self._clock = clock
        self._lease = timedelta(seconds=lease_seconds)
        self._patience_seconds = lease_seconds - courier_seconds  # how long a leased one may wait in memory
        self._hurry_seconds = (
            IMMEDIATE_SECONDS - courier_seconds
        )  # the same, where somebody waits for the outcome
        self._window_max = window_max
        self._lanes: dict[str, Lane] = {}
        self._quiet: OrderedDict[str, Lane] = OrderedDict()  # the one used last at the end
        self._held = 0  # deliveries waiting or promised
        self._bytes_held = 0
        self.contacts = Contacts(clock)
        self.ready = asyncio.Event()
        self.next_due: datetime | None = None  # the queue is to be looked at then, as far as is known
        self.sooner = asyncio.Event()  # that came nearer
        self.closing = False

    @property
    def lanes(self) -> Iterable[Lane]:
        """Returns the lanes that are in use or have trouble."""
        return self._lanes.values()

    def known(self, destination: str) -> Lane | None:
        return self._lanes.get(destination) or self._quiet.get(destination)

    def expect(self, due: datetime) -> None:
        """Makes the worker look at the queue when this is due, at the latest."""
        if self.next_due is None or due < self.next_due:
            self.next_due = due
            self.sooner.set()

    @property
    def bytes_free(self) -> int:
        """Returns how many more bytes of bodies may be held."""
        return max(HAND_OVER_BYTES_MAX - self._bytes_held, 0)

    @property
    def held(self) -> int:
        """Returns the number of deliveries that wait here, or will after their commit."""
        return self._held

    def lane(self, destination: str) -> Lane:
        found = self._lanes.get(destination)
        if found is None:
            window = min(WINDOW_FIRST, self._window_max)
            found = self._quiet.pop(destination, None) or Lane(destination, window, self._window_max)
            self._lanes[destination] = found
        return found

    def lease(self, deliveries: Sequence[Queued], now: datetime) -> tuple[Queued, ...]:
        """Returns the deliveries of one message, those that can start soon leased to this process."""
        if not deliveries:
            return ()
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
        """Returns whether a delivery that may not wait can start there."""
        lane = self._lanes.get(destination)
        return self._has_room() and (lane is None or not lane.closed(self._clock.now()))

    def _takes_more(self, lane: Lane, now: datetime) -> bool:
        """Returns whether another message would start soon; if not, it belongs in the queue, behind what waits there."""
        if lane.open_until is not None or lane.paused or lane.more:
            return False
        return len(lane.waiting) + lane.promised < lane.ahead_max(now)

    def _has_room(self) -> bool:
        return not self.closing and self._held < HAND_OVER_MAX and self._bytes_held < HAND_OVER_BYTES_MAX

    def give_up(self, admitted: Admitted) -> None:
        """Frees the room of deliveries whose commit failed or was another message's."""
        leased = [queued.destination for queued in admitted.deliveries if queued.token is not None]
        self._held -= len(leased)
        for destination in set(leased):
            self.lane(destination).promised -= 1

    def take(self, admitted: Admitted) -> None:
        """Takes the deliveries leased in a commit, after it."""
        if not admitted.deliveries:
            return
        self.give_up(admitted)
        letter = letter_of(admitted)
        now, start_by = self._clock.now(), self._start_by()
        for queued in admitted.deliveries:
            if queued.token is not None:
                by = self._start_by(self._hurry_seconds) if queued.expiry == ONCE else start_by
                self._enqueue(LeasedDelivery(_delivery_of(letter.row, queued, now), letter, by))
            elif queued.due <= now:
                self.lane(queued.destination).more = True
            else:
                self.expect(queued.due)
        self.ready.set()

    def add(
        self,
        claimed: Sequence[Delivery],
        letters: Mapping[UUID, Letter],
        emptied: Collection[str],
        per_destination: int,
        behind: Collection[str] = (),
    ) -> None:
        """Takes claimed deliveries; `emptied` destinations have nothing more due, those `behind` have."""
        start_by = self._start_by()
        counts = Counter(delivery.destination for delivery in claimed)
        for lane in self._lanes.values():
            if lane.destination in emptied:
                lane.more = False
        for destination, count in counts.items():
            self.lane(destination).more = count >= per_destination
        for destination in behind:
            self.lane(destination).more = True
        for delivery in claimed:
            self._enqueue(LeasedDelivery(delivery, letters.get(delivery.message), start_by))
        self.ready.set()

    def _start_by(self, seconds: float | None = None) -> float:
        patience = self._patience_seconds if seconds is None else seconds
        return asyncio.get_running_loop().time() + patience

    def _enqueue(self, waiting: LeasedDelivery) -> None:
        lane = self.lane(waiting.delivery.destination)
        lane.waiting.setdefault(waiting.delivery.message, []).append(waiting)
        self._held += 1
        self._bytes_held += waiting.bytes_held

    def closed(self) -> tuple[set[str], set[str]]:
        """Returns the destinations not to claim from now: those that are shut, and those that are busy."""
        now = self._clock.now()
        shut = {lane.destination for lane in self._lanes.values() if lane.closed(now)}
        return shut, {lane.destination for lane in self._lanes.values() if not lane.low(now)} - shut

    def hungry(self) -> bool:
        """Returns whether a lane could start more than waits here, and the queue probably has it."""
        now = self._clock.now()
        return any((lane.more or lane.haste) and lane.low(now) for lane in self._lanes.values())

    def hasty(self) -> list[Lane]:
        """Returns lanes that could start more, and whose mail may wait needlessly since an outage ended."""
        now = self._clock.now()
        return [lane for lane in self._lanes.values() if lane.haste and lane.low(now)]

    def opens(self) -> datetime | None:
        """Returns when the first of the shut lanes opens."""
        now = self._clock.now()
        return min(filter(None, (lane.opens(now) for lane in self._lanes.values())), default=None)

    def doubtful(self) -> list[Lane]:
        """Returns lanes whose breaker is half open while they have nothing due: a probe may find recovery early.

        Only those that could not be reached: for a destination that answers with errors, only its own mail shows recovery.
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
        """Notes that a domain, proven, contacts us: its breaker is reconsidered."""
        self.contacts.heard(domain)
        lane = self._lanes.get(domain)
        if lane is not None and lane.open_until is not None:
            lane.heard = True

    def startable(self, limit: int) -> list[tuple[Lane, list[LeasedDelivery]]]:
        """Returns the parcels that start now, at most `limit`; the lanes count them as active.

        The lanes take turns, the least recently served first. None has more under way than it leaves to the others: however
        many are slow, a lane that has nothing under way finds a courier.
        """
        now = self._clock.now()
        pieces: list[tuple[Lane, list[LeasedDelivery]]] = []
        turns = deque(lane for lane in self._lanes.values() if lane.waiting)
        while turns and len(pieces) < limit:
            lane = turns.popleft()
            if lane.room(now) == 0 or lane.active >= limit - len(pieces):
                continue
            pieces.append((lane, self._piece(lane)))
            lane.active += 1
            self._lanes[lane.destination] = self._lanes.pop(lane.destination)
            if lane.waiting:
                turns.append(lane)
        return pieces

    def tidy(self) -> None:
        """Sets quiet lanes aside, so that no loop visits them; the least recently used are forgotten."""
        now = self._clock.now()
        for lane in [lane for lane in self._lanes.values() if lane.quiet(now)]:
            self._quiet[lane.destination] = self._lanes.pop(lane.destination)
        while len(self._quiet) > QUIET_MAX:
            self._quiet.popitem(last=False)

    def late(self, seconds: float) -> list[LeasedDelivery]:
        """Removes deliveries whose lease may end before their courier is done, or whose lane closed meanwhile."""
        now = self._clock.now()
        over: list[LeasedDelivery] = []
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
                    lane.more = True
                else:
                    self._enqueue(waiting)
        return over

    def _piece(self, lane: Lane) -> list[LeasedDelivery]:
        """Removes the next parcel: the first in line with all recipients of its message, and more messages for a batch."""
        taken: list[LeasedDelivery] = []
        size = 0
        messages_max = BATCH_MESSAGES_MAX if lane.batch and lane.open_until is None else 1
        for row in list(islice(lane.waiting, messages_max)):
            size += lane.waiting[row][0].bytes_held
            if taken and size > BATCH_BYTES_MAX:
                break
            taken += lane.waiting.pop(row)
        self._forget(taken)
        return taken

    def _forget(self, gone: Iterable[LeasedDelivery]) -> None:
        for waiting in gone:
            self._held -= 1
            self._bytes_held -= waiting.bytes_held

    def drain(self) -> list[LeasedDelivery]:
        """Removes and returns everything that waits, for a stop."""
        self.closing = True
        everything = [w for lane in self._lanes.values() for group in lane.waiting.values() for w in group]
        for lane in self._lanes.values():
            lane.waiting = {}
        self._forget(everything)
        return everything


def new_token() -> int:
    """Returns a fencing token that no other lease has, of this process or another."""
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


def parcel_of(destination: str, waiting: Sequence[LeasedDelivery], letters: dict[UUID, Letter]) -> Parcel:
    """Returns the parcel of these deliveries, grouped by message."""
    by_message: dict[UUID, list[Delivery]] = {}
    for one in waiting:
        by_message.setdefault(one.delivery.message, []).append(one.delivery)
    return Parcel(
        destination,
        tuple(Consignment(letters[row], tuple(deliveries)) for row, deliveries in by_message.items()),
    )
