"""The worker: takes what is due, keeps each destination's window, and stops without losing a lease.

Hand-over from accept() comes first; the rest is claimed from the queue, in batches.
"""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from gateway.clock import Clock
from gateway.deliver.settlement import Carried
from gateway.flow.carry import Carry
from gateway.immediate import ONCE
from gateway.journal import Journal
from gateway.lane import Lane, Waiting
from gateway.lanes import HAND_OVER_MAX, Lanes, new_token, parcel_of
from gateway.protocol.errors import AMTPError
from gateway.report.interests import Interests
from gateway.store import deliveries, destinations
from gateway.store.admitted import Rider
from gateway.store.database import Database
from gateway.store.deliveries import Letter

POLL_SECONDS = 1.0  # how long a row made due by another process can stay unseen
CLAIM_PER_DESTINATION = 128


class Worker:
    """Moves what is due to its couriers until it is told to stop."""

    def __init__(
        self,
        *,
        database: Database,
        lanes: Lanes,
        carry: Carry,
        interests: Interests,
        journal: Journal,
        clock: Clock,
        lease_seconds: float,
        concurrency: int,
    ) -> None:
        self._database = database
        self._clock = clock
        self._hungry = asyncio.Event()
        self._lanes = lanes
        self._carry = carry
        self._interests = interests
        self._journal = journal
        self._lease_seconds = lease_seconds
        self._concurrency = concurrency
        self._active = 0
        self._place = ""  # the destination behind which the next claim starts
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Ends after `stop`, when every courier under way is done and every lease given back."""
        async with asyncio.TaskGroup() as group:
            starter = group.create_task(self._keep_starting(group))
            await self._keep_claiming(group)
            starter.cancel()
            with suppress(AMTPError):  # while the database is away the leases just lapse
                await self._hand_back(self._lanes.drain())

    def stop(self) -> None:
        self._stopping.set()

    async def _keep_starting(self, group: asyncio.TaskGroup) -> None:
        """Starts what waits in memory, without asking the database."""
        while True:
            await self._lanes.ready.wait()
            self._lanes.ready.clear()
            for lane, waiting in self._lanes.startable(self._concurrency - self._active):
                self._active += 1
                group.create_task(self._deliver(lane, waiting))
            if self._lanes.hungry():
                self._hungry.set()

    async def _keep_claiming(self, group: asyncio.TaskGroup) -> None:
        """Finds what fell due; knows what other processes know of the destinations."""
        refreshed = 0.0
        while not self._stopping.is_set():
            self._hungry.clear()
            now, more = asyncio.get_running_loop().time(), False
            try:
                if now - refreshed >= POLL_SECONDS:
                    await self._refresh()
                    refreshed = now
                more = await self._claim()
                late = self._lanes.late(now)
                if hasty := [one for one in late if one.delivery.expiry == ONCE and one.letter]:
                    group.create_task(self._turn_away(hasty))
                await self._hand_back([one for one in late if one not in hasty])
            except AMTPError:  # the database is away: what we hold goes on, the rest waits
                pass
            except Exception as failure:  # noqa: BLE001 - a fault in one round must not end the deliveries
                self._journal.broke("the queue", failure)
            for lane in self._lanes.doubtful():
                lane.active += 1
                self._active += 1
                group.create_task(self._probe(lane))
            if not more:
                await self._rest()

    async def _rest(self) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (self._hungry, self._stopping)]
        try:
            await asyncio.wait(waits, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _refresh(self) -> None:
        """Brings breakers and pauses to what all processes know."""
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
        """Takes what is due, the destinations in turn; tells whether there may be more."""
        room = min(HAND_OVER_MAX - self._lanes.held, deliveries.CLAIM_MAX)
        if room <= 0 or self._active >= self._concurrency:
            return False
        closed, after = self._lanes.closed(), self._place
        claimed = await deliveries.claim(
            self._database,
            closed=closed,
            per_destination=CLAIM_PER_DESTINATION,
            limit=room,
            lease_seconds=self._lease_seconds,
            token=new_token(),
            after=after,
        )
        full = len(claimed) == room
        self._place = claimed[-1].destination if full else ""
        emptied = {
            lane.destination
            for lane in self._lanes.lanes
            if lane.destination > after and (not full or lane.destination < self._place)
        }
        found: dict[UUID, Letter] = {}
        if claimed:
            rows = {delivery.message for delivery in claimed}
            found = await deliveries.letters(self._database, rows, bytes_max=self._lanes.bytes_free)
        self._lanes.add(claimed, found, emptied - closed, CLAIM_PER_DESTINATION)
        return full or after != ""

    async def expire(self) -> None:
        """Ends what is past its time, wherever it waits; the reports go out in the same transactions."""
        while over := await deliveries.claim_expired(
            self._database,
            limit=deliveries.CLAIM_MAX,
            lease_seconds=self._lease_seconds,
            token=new_token(),
        ):
            letters = await deliveries.letters(self._database, {delivery.message for delivery in over})
            for destination in {delivery.destination for delivery in over}:
                mine = [Waiting(d, None, 0) for d in over if d.destination == destination]
                await self._carry.carry(parcel_of(destination, mine, letters))

    async def _deliver(self, lane: Lane, waiting: Sequence[Waiting]) -> None:
        """Letters, courier, verdict, settle; then the lane knows how its destination is.

        Where all is well it knows before the settle, and goes on meanwhile.
        """
        messages, gone_on = len({one.delivery.message for one in waiting}), False

        def handed(carried: Carried) -> None:
            nonlocal gone_on
            lane.batch = carried.batch
            if carried.answered and lane.open_until is None:
                gone_on = True
                self._lanes.contacts.answered(lane.destination)
                lane.succeeded(messages)
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
            lane.pressed()
        finally:
            self._over(lane, gone_on=gone_on)

    async def _turn_away(self, late: Sequence[Waiting]) -> None:
        """What may be tried only now, and could not start in time, is over."""
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
        """One that has `gone_on` gave its place in the lane back before."""
        lane.active -= not gone_on
        self._active -= 1
        self._lanes.ready.set()

    async def _learn(self, lane: Lane, carried: Carried, messages: int = 1) -> None:
        if carried.answered:
            self._lanes.contacts.answered(lane.destination)
        if carried.blame is not None:
            now = self._clock.now()
            riders: Sequence[Rider] = ()
            if lane.failed(now, random.random(), unreachable=carried.unreachable):
                self._journal.destination_closed(lane.destination, carried.blame)
                if "@" in lane.destination:  # an agent that is pushed to
                    riders = self._interests.unavailable(lane.destination, carried.blame)
            if lane.open_until is not None:
                await destinations.note_failure(
                    self._database,
                    lane.destination,
                    lane.failures,
                    lane.open_until,
                    carried.blame,
                    unreachable=carried.unreachable,
                    riders=riders,
                )
        elif carried.pressed:
            lane.pressed()
        elif carried.answered and lane.succeeded(messages):
            self._journal.destination_open(lane.destination)
            await destinations.note_recovery(self._database, lane.destination)
            self._hungry.set()

    async def _hand_back(self, waiting: Sequence[Waiting]) -> None:
        if waiting:
            await deliveries.hand_back(self._database, [one.delivery for one in waiting])
