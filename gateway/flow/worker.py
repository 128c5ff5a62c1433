"""The worker: starts what is due, keeps each destination's window, and stops without losing a lease.

Deliveries handed over by accept() come first; the rest is claimed from the queue, in batches.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from time import monotonic
from uuid import UUID

from gateway.deliver.settlement import Carried
from gateway.flow.carry import Carry
from gateway.flow.lane import Lane, LeasedDelivery
from gateway.flow.lanes import HAND_OVER_MAX, Lanes, new_token, parcel_of
from gateway.journal.journal import Journal
from gateway.protocol.errors import AMTPError
from gateway.report.interests import Interests
from gateway.route.placing import ONCE
from gateway.store.admitted import Rider
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.queue import deliveries, destinations
from gateway.store.queue.deliveries import Letter
from gateway.store.wakeups.bell import Bell
from gateway.store.wakeups.topics import DESTINATIONS, QUEUE, Topic, call_workers

POLL_SECONDS = 5.0  # how long a row stays unseen without a notice: its process died, or the notice was lost
BUSY_SECONDS = 1.0  # the same while anything is under way here: leases in memory grow old
REFRESH_SECONDS = 1.0  # from one look at what other processes know of the destinations to the next
CLOCK_SECONDS = 1.0  # how long a clock that is set forward stays unseen
CLAIM_SHARE = 5  # where rows fall due one after the other, claiming takes a fifth of the time at most …
REST_SECONDS_MIN = 0.01  # … and what falls due meanwhile is claimed together
CLAIM_PER_DESTINATION = 128
HASTENED_MIN = 32  # rows by one statement; for a lane that takes much, twice what it takes at once


class Worker:
    """The task that passes due deliveries to their couriers until it is told to stop."""

    def __init__(
        self,
        *,
        database: Database,
        lanes: Lanes,
        carry: Carry,
        interests: Interests,
        bell: Bell,
        journal: Journal,
        clock: Clock,
        lease_seconds: float,
        concurrency: int,
    ) -> None:
        self._database = database
        self._clock = clock
        self._hungry = False  # a lane could start more than waits in memory
        self._lanes = lanes
        self._carry = carry
        self._interests = interests
        self._bell = bell
        self._journal = journal
        self._lease_seconds = lease_seconds
        self._concurrency = concurrency
        self._active = 0
        self._place = ""  # the destination behind which the next claim starts
        self._refreshed_at = -REFRESH_SECONDS  # on the loop's clock
        self._claim_seconds = 0.0  # how long the last claim took
        self._full = False  # there was no room for a claim
        self._stopping = False

    async def run(self) -> None:
        """Runs until `stop`, and ends when every courier under way is done and every lease released."""
        async with asyncio.TaskGroup() as group:
            helpers = [
                group.create_task(work)
                for work in (
                    self._keep_starting(group),
                    self._keep_hearing(QUEUE, self._look),
                    self._keep_hearing(DESTINATIONS, self._look_at_all),
                )
            ]
            await self._keep_claiming(group)
            for helper in helpers:
                helper.cancel()
            with suppress(AMTPError):  # while the database is away the leases just lapse
                await self._hand_back(self._lanes.drain(), call=True)

    def stop(self) -> None:
        self._stopping = True
        self._lanes.sooner.set()

    async def _keep_hearing(self, topic: Topic, look: Callable[[], None]) -> None:
        """Listens to the changes of operators and other processes."""
        with self._bell.ear(topic) as ear:
            while True:
                if await ear.rung(POLL_SECONDS):
                    look()

    def _look(self) -> None:
        self._lanes.expect(self._clock.now())

    def _look_at_all(self) -> None:
        self._refreshed_at = -REFRESH_SECONDS
        self._look()

    def _look_later(self) -> None:
        """Schedules the next look at the queue after a round that failed."""
        self._lanes.next_due = None
        self._expect(BUSY_SECONDS)

    def _wake(self) -> None:
        self._hungry = True
        self._lanes.sooner.set()

    async def _keep_starting(self, group: asyncio.TaskGroup) -> None:
        """Starts what waits in memory, without asking the database."""
        while True:
            await self._lanes.ready.wait()
            self._lanes.ready.clear()
            for lane, waiting in self._lanes.startable(self._concurrency - self._active):
                self._active += 1
                group.create_task(self._deliver(lane, waiting))
            if self._lanes.hungry():
                self._wake()

    async def _keep_claiming(self, group: asyncio.TaskGroup) -> None:
        """Claims what is due, and keeps up with other processes' knowledge of the destinations."""
        while not self._stopping:
            self._hungry, more = False, False
            try:
                more = await self._round(group)
            except AMTPError:  # the database is away: what we hold goes on, the rest waits
                self._look_later()
            except Exception as failure:  # noqa: BLE001 - a fault in one round must not end the deliveries
                self._journal.broke("the queue", failure)
                self._look_later()
            for lane in self._lanes.doubtful():
                lane.active += 1
                self._active += 1
                group.create_task(self._probe(lane))
            if not more:
                await self._rest()

    async def _round(self, group: asyncio.TaskGroup) -> bool:
        """Claims due deliveries and releases old leases; returns whether there may be more."""
        now = asyncio.get_running_loop().time()
        if now - self._refreshed_at >= REFRESH_SECONDS:
            self._refreshed_at = now
            await self._refresh()
        for lane in self._lanes.hasty():
            await self._hasten(lane)
        more = await self._claim()
        late = self._lanes.late(now)
        if hasty := [one for one in late if one.delivery.expiry == ONCE and one.letter]:
            group.create_task(self._turn_away(hasty))
        await self._hand_back([one for one in late if one not in hasty])
        return more

    async def _rest(self) -> None:
        """Sleeps until something is due, a lane opens or needs more, or the longest rest is over."""
        time = asyncio.get_running_loop().time
        began = time()
        rest = min(max((CLAIM_SHARE - 1) * self._claim_seconds, REST_SECONDS_MIN), BUSY_SECONDS)
        while not self._hungry and not self._stopping:
            self._lanes.sooner.clear()
            busy = self._lanes.held or self._active
            latest = began + (min(BUSY_SECONDS, POLL_SECONDS) if busy else POLL_SECONDS)
            wake = min(latest, max(time() + self._seconds_to_next(), began + rest))
            seconds = min(wake - time(), CLOCK_SECONDS)
            if seconds <= 0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._lanes.sooner.wait()

    def _seconds_to_next(self) -> float:
        moments = [at for at in (self._lanes.next_due, self._lanes.opens()) if at is not None]
        if not moments:
            return POLL_SECONDS
        return (min(moments) - self._clock.now()).total_seconds()

    async def _refresh(self) -> None:
        """Loads the breakers and pauses that all processes share."""
        for lane in [lane for lane in self._lanes.lanes if lane.heard]:
            await destinations.note_contact(self._database, lane.destination)
            lane.heard = False
        self._lanes.tidy()
        known = await destinations.troubled(self._database)
        for destination in known:
            self._lanes.lane(destination)
        for lane in self._lanes.lanes:
            lane.learn(known.get(lane.destination, destinations.UNTROUBLED))

    async def _claim(self) -> bool:
        """Claims due deliveries, the destinations in turn; returns whether there may be more."""
        self._lanes.next_due = None
        room = min(HAND_OVER_MAX - self._lanes.held, deliveries.CLAIM_MAX)
        self._full = room <= 0 or self._active >= self._concurrency
        if self._full:
            return False
        (shut, busy), after, began = self._lanes.closed(), self._place, monotonic()
        claimed = await deliveries.claim(
            self._database,
            shut=shut,
            busy=busy,
            per_destination=CLAIM_PER_DESTINATION,
            limit=room,
            lease_seconds=self._lease_seconds,
            token=new_token(),
            after=after,
        )
        self._claim_seconds = monotonic() - began
        taken = claimed.deliveries
        full = len(taken) == room
        self._place = taken[-1].destination if full else ""
        emptied = {
            lane.destination
            for lane in self._lanes.lanes
            if lane.destination > after and (not full or lane.destination < self._place)
        }
        found: dict[UUID, Letter] = {}
        if taken:
            rows = {delivery.message for delivery in taken}
            found = await deliveries.letters(self._database, rows, bytes_max=self._lanes.bytes_free)
            self._expect(self._lease_seconds)
        if claimed.next_seconds is not None:
            self._expect(claimed.next_seconds)
        self._lanes.add(taken, found, emptied - shut - busy, CLAIM_PER_DESTINATION, claimed.behind)
        return full or after != ""

    def _expect(self, seconds: float) -> None:
        self._lanes.expect(self._clock.now() + timedelta(seconds=seconds))

    async def _hasten(self, lane: Lane) -> None:
        """Makes some deliveries due that an outage delayed: as many as the lane takes soon, and more when it took those."""
        haste = lane.haste
        assert haste is not None
        limit = max(2 * lane.capacity, HASTENED_MIN)
        moved = await destinations.hasten(
            self._database, lane.destination, before=haste.before, at_once=haste.at_once, limit=limit
        )
        if moved < limit and lane.haste is haste:
            lane.haste = None

    async def expire(self) -> None:
        """Ends expired deliveries wherever they wait; their reports are accepted in the same transactions."""
        while over := await deliveries.claim_expired(
            self._database,
            limit=deliveries.CLAIM_MAX,
            lease_seconds=self._lease_seconds,
            token=new_token(),
        ):
            letters = await deliveries.letters(self._database, {delivery.message for delivery in over})
            for destination in {delivery.destination for delivery in over}:
                mine = [LeasedDelivery(d, None, 0) for d in over if d.destination == destination]
                await self._carry.carry(parcel_of(destination, mine, letters))

    async def _deliver(self, lane: Lane, waiting: Sequence[LeasedDelivery]) -> None:
        """Carries deliveries to one destination and tells its lane the result.

        Where all is well the lane learns that before the settle, and goes on meanwhile.
        """
        messages, gone_on = len({one.delivery.message for one in waiting}), False

        def handed(carried: Carried) -> None:
            nonlocal gone_on
            lane.batch = carried.batch
            if carried.answered and lane.open_until is None:
                gone_on = True
                self._lanes.contacts.answered(lane.destination)
                lane.succeeded(self._clock.now(), messages)
                lane.active -= 1
                self._lanes.ready.set()

        try:
            letters = {one.letter.row: one.letter for one in waiting if one.letter is not None}
            missing = {one.delivery.message for one in waiting} - set(letters)
            if missing:
                letters |= await deliveries.letters(self._database, missing)
            carried = await self._carry.carry(parcel_of(lane.destination, waiting, letters), handed)
            if not gone_on:
                await self._learn(lane, carried, messages)
        except AMTPError:  # the database is away: the leases lapse and the rows are found again
            pass
        except Exception as failure:  # noqa: BLE001 - one message that breaks a courier must not stop the others
            self._journal.courier_broke(lane.destination, failure)
            lane.pressed(self._clock.now())
        finally:
            self._over(lane, gone_on=gone_on)

    async def _turn_away(self, late: Sequence[LeasedDelivery]) -> None:
        """Fails best_effort deliveries that could not start in time."""
        letters = {one.letter.row: one.letter for one in late if one.letter is not None}
        try:
            for destination in {one.delivery.destination for one in late}:
                mine = [one for one in late if one.delivery.destination == destination]
                await self._carry.turn_away(parcel_of(destination, mine, letters))
        except AMTPError:  # the database is away: the leases lapse
            pass
        except Exception as failure:  # noqa: BLE001 - as above
            self._journal.broke("the queue", failure)

    async def _probe(self, lane: Lane) -> None:
        try:
            fault = await self._carry.probe(lane.destination)
            await self._learn(lane, Carried(answered=fault is None, blame=fault, unreachable=True))
        except AMTPError:
            pass
        except Exception as failure:  # noqa: BLE001 - as above
            self._journal.courier_broke(lane.destination, failure)
        finally:
            self._over(lane)

    def _over(self, lane: Lane, *, gone_on: bool = False) -> None:
        """Frees the lane's place; not again where it was freed early (`gone_on`)."""
        lane.active -= not gone_on
        self._active -= 1
        self._lanes.ready.set()
        if self._full:
            self._look()

    async def _learn(self, lane: Lane, carried: Carried, messages: int = 1) -> None:
        if carried.answered:
            self._lanes.contacts.answered(lane.destination)
        now = self._clock.now()
        if carried.blame is not None:
            await self._blame(lane, carried, carried.blame, now)
        elif carried.pressed:
            lane.pressed(now)
        elif carried.answered and lane.succeeded(now, messages):
            self._journal.destination_back(lane.destination)
            self._wake()
            await destinations.note_recovery(self._database, lane.destination)

    async def _blame(self, lane: Lane, carried: Carried, fault: str, now: datetime) -> None:
        """Notes that the destination as a whole failed, here and for the other processes."""
        riders: Sequence[Rider] = ()
        if lane.failed(now, random.random(), unreachable=carried.unreachable):
            self._journal.destination_failing(lane.destination, fault)
            if "@" in lane.destination:  # an agent that is pushed to
                riders = self._interests.unavailable(lane.destination, fault)
        if lane.open_until is not None:
            self._lanes.expect(lane.open_until)
            await destinations.note_failure(
                self._database,
                lane.destination,
                lane.failures,
                lane.open_until,
                fault,
                unreachable=carried.unreachable,
                riders=riders,
            )
            lane.shared = True

    async def _hand_back(self, waiting: Sequence[LeasedDelivery], *, call: bool = False) -> None:
        """Releases leases; `call` for the workers of other processes where this one ends."""
        if waiting:
            await deliveries.hand_back(self._database, [one.delivery for one in waiting])
        if waiting and call:
            await call_workers(self._database, QUEUE)
