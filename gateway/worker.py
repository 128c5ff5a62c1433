"""The worker: takes what is due, keeps each destination's window, and stops without losing a lease.

Hand-over from accept() comes first; the rest is claimed from the queue, in batches.
"""

import asyncio
import random
from collections.abc import Sequence

from gateway.clock import Clock
from gateway.flow import Flow
from gateway.journal import Journal
from gateway.lanes import Lane, Lanes, Waiting, new_token, parcel_of
from gateway.protocol.errors import AMTPError
from gateway.store import deliveries, destinations
from gateway.store.database import Database

POLL_SECONDS = 1.0  # how long a row made due by another process can stay unseen
CLAIM_PER_DESTINATION = 64


class Worker:
    """Moves what is due to its couriers until it is told to stop."""

    def __init__(
        self,
        *,
        database: Database,
        lanes: Lanes,
        flow: Flow,
        journal: Journal,
        clock: Clock,
        lease_seconds: float,
        concurrency: int,
    ) -> None:
        self._database = database
        self._clock = clock
        self._hungry = asyncio.Event()
        self._lanes = lanes
        self._flow = flow
        self._journal = journal
        self._lease_seconds = lease_seconds
        self._concurrency = concurrency
        self._active = 0
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Ends after `stop`, when every courier under way is done and every lease given back."""
        async with asyncio.TaskGroup() as group:
            starter = group.create_task(self._keep_starting(group))
            await self._keep_claiming(group)
            starter.cancel()
            await self._hand_back(self._lanes.drain())

    def stop(self) -> None:
        self._stopping.set()
        self._lanes.ready.set()

    async def _keep_starting(self, group: asyncio.TaskGroup) -> None:
        """Starts what waits in memory, without asking the database."""
        while True:
            await self._lanes.ready.wait()
            self._lanes.ready.clear()
            for lane, waiting in self._lanes.startable():
                self._active += 1
                group.create_task(self._carry(lane, waiting))
            if self._lanes.hungry():
                self._hungry.set()

    async def _keep_claiming(self, group: asyncio.TaskGroup) -> None:
        """Finds what fell due; knows what other processes know of the destinations."""
        refreshed = 0.0
        while not self._stopping.is_set():
            self._hungry.clear()
            now = asyncio.get_running_loop().time()
            try:
                if now - refreshed >= POLL_SECONDS:
                    await self._refresh()
                    refreshed = now
                full = await self._claim()
                await self._hand_back(self._lanes.late(now))
            except AMTPError:  # the database is away: what we hold goes on, the rest waits
                full = False
            for lane in self._lanes.doubtful():
                lane.active += 1
                self._active += 1
                group.create_task(self._probe(lane))
            if not full:
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
        known = await destinations.troubled(self._database)
        for lane in list(self._lanes.lanes):
            if lane.destination not in known:
                lane.paused = False
                if lane.shared:
                    lane.reset()
        for destination, trouble in known.items():
            self._lanes.lane(destination).learn(trouble.paused, trouble.failures, trouble.open_until)

    async def _claim(self) -> bool:
        """Whether the claim was as large as a claim can be, so that more may be due."""
        room = min(self._concurrency - self._active, deliveries.CLAIM_MAX)
        if room <= 0:
            return False
        claimed = await deliveries.claim(
            self._database,
            closed=self._lanes.closed(),
            per_destination=CLAIM_PER_DESTINATION,
            limit=room,
            lease_seconds=self._lease_seconds,
            token=new_token(),
        )
        self._lanes.add(claimed, CLAIM_PER_DESTINATION)
        return len(claimed) == room

    async def expire(self) -> None:
        """Ends what is past its time, wherever it waits; the reports go out in the same transactions."""
        while True:
            over = await deliveries.claim_expired(
                self._database,
                limit=deliveries.CLAIM_MAX,
                lease_seconds=self._lease_seconds,
                token=new_token(),
            )
            if not over:
                return
            letters = await deliveries.letters(self._database, {delivery.message for delivery in over})
            for destination in {delivery.destination for delivery in over}:
                mine = [Waiting(d, None, 0) for d in over if d.destination == destination]
                await self._flow.carry(parcel_of(destination, mine, letters))

    async def _carry(self, lane: Lane, waiting: Sequence[Waiting]) -> None:
        """Letters, courier, verdict, settle; then the lane knows how its destination is."""
        try:
            letters = {one.letter.row: one.letter for one in waiting if one.letter is not None}
            missing = {one.delivery.message for one in waiting} - set(letters)
            if missing:
                letters |= await deliveries.letters(self._database, missing)
            carried = await self._flow.carry(parcel_of(lane.destination, waiting, letters))
            lane.batch = carried.batch
            await self._learn(lane, carried.blame, carried.answered)
        except AMTPError:  # the database is away: the leases lapse and the rows are found again
            pass
        except Exception as failure:  # noqa: BLE001 - one message that breaks a courier must not stop the others
            self._journal.courier_broke(lane.destination, failure)
            lane.failed(self._clock.now(), "an unexpected fault of this gateway", random.random())
        finally:
            lane.active -= 1
            self._active -= 1
            self._lanes.ready.set()

    async def _probe(self, lane: Lane) -> None:
        try:
            fault = await self._flow.probe(lane.destination)
            await self._learn(lane, fault, fault is None)
        except AMTPError:
            pass
        finally:
            lane.active -= 1
            self._active -= 1

    async def _learn(self, lane: Lane, blame: str | None, answered: bool) -> None:
        now = self._clock.now()
        if blame is not None:
            lane.failed(now, blame, random.random())
            if lane.open_until is not None:
                await destinations.note_failure(
                    self._database, lane.destination, lane.failures, lane.open_until, blame
                )
        elif answered and lane.succeeded():
            await destinations.note_recovery(self._database, lane.destination)
            self._hungry.set()

    async def _hand_back(self, waiting: Sequence[Waiting]) -> None:
        if waiting:
            await deliveries.hand_back(
                self._database,
                [(w.delivery.message, w.delivery.recipient, w.delivery.token) for w in waiting],
            )
