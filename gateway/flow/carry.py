"""Carry, everything after the answer: route, courier, verdict, settle, and what follows from the verdict."""

import random
from collections.abc import Callable, Collection, Sequence
from time import monotonic
from uuid import UUID

from msgspec.structs import replace

from gateway.deliver.courier import Parcel
from gateway.deliver.couriers import Couriers
from gateway.deliver.outcome import Deferred, Facts, Outcome, verdict_on
from gateway.deliver.settlement import Carried, carried_of, settlement_of, too_late
from gateway.flow.immediate import Immediate
from gateway.flow.lanes import Lanes
from gateway.protocol.errors import Code
from gateway.protocol.retry import ATTEMPTS_MAX
from gateway.report.consequences import Aftermath
from gateway.report.interests import Interests
from gateway.route.placing import ONCE
from gateway.route.ways import WayFinder
from gateway.store.queue.deliveries import Delivery
from gateway.store.queue.settle import Settle
from gateway.store.runtime import Runtime


class Carry:
    """The delivery of parcels to their destinations."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        router: WayFinder,
        couriers: Couriers,
        settle: Settle,
        lanes: Lanes,
        immediate: Immediate,
        aftermath: Aftermath,
        interests: Interests,
        attempts_max: int = ATTEMPTS_MAX,
    ) -> None:
        self._clock = runtime.clock
        self._journal = runtime.journal
        self._router = router
        self._couriers = couriers
        self._settle = settle
        self._lanes = lanes
        self._immediate = immediate
        self._aftermath = aftermath
        self._interests = interests
        self._attempts_max = attempts_max

    async def carry(self, parcel: Parcel, handed: Callable[[Carried], None] = lambda _: None) -> Carried:
        """Routes a parcel, hands it to its courier and settles the outcomes.

        `handed` is called as soon as the courier is back, before its outcomes are written.
        """
        started = monotonic()
        if all(delivery.expires_at <= self._clock.now() for delivery in parcel.deliveries):
            outcomes, carried = [too_late(delivery) for delivery in parcel.deliveries], Carried()
        else:
            way = await self._router.way_to(parcel.destination)
            outcomes = list(await self._couriers.deliver(parcel, way))
            carried = carried_of(way, outcomes)
        milliseconds = int((monotonic() - started) * 1000)
        handed(carried)
        with self._immediate.deciding(parcel.deliveries) as awaited:
            await self._conclude(parcel, outcomes, milliseconds, awaited)
        return carried

    async def turn_away(self, parcel: Parcel) -> None:
        """Fails deliveries that may be tried only now and could not start in time. No courier is called."""
        reason = f"{parcel.destination} could not be reached in time, and this message may not wait."
        fault = Deferred(Code.RECIPIENT_UNAVAILABLE, reason)
        with self._immediate.deciding(parcel.deliveries) as awaited:
            await self._conclude(parcel, [fault] * len(parcel.deliveries), 0, awaited)

    async def _conclude(
        self, parcel: Parcel, outcomes: Sequence[Outcome], milliseconds: int, awaited: Collection[UUID]
    ) -> None:
        """Decides on what the courier saw, and writes the verdicts with everything that follows from them.

        The senders of the messages `awaited` hear of it in their answers.
        """
        consequences = await self._aftermath.of(parcel, outcomes)
        now = self._clock.now()
        letters = {consignment.letter.row: consignment.letter for consignment in parcel.consignments}
        draws = {
            row: random.random() for row in letters
        }  # one each: what failed together is retried together
        settlements = [
            settlement_of(
                delivery,
                verdict_on(consequence.outcome, self._facts(delivery, awaited), now, draws[delivery.message]),
                milliseconds,
            )
            for delivery, consequence in zip(parcel.deliveries, consequences, strict=True)
        ]
        reports = await self._aftermath.reports(settlements, letters, now)
        kept = await self._settle.settle(
            [
                replace(
                    s,
                    follow_ups=reports.get(i, ()) + after.follow_ups,
                    riders=after.riders + self._interests.settled(s, letters[s.message]),
                )
                for i, (s, after) in enumerate(zip(settlements, consequences, strict=True))
            ]
        )
        for settlement in kept:
            if settlement.due is not None:
                self._lanes.expect(settlement.due)
            for follow_up in settlement.follow_ups:
                self._lanes.take(follow_up)
        self._journal.settled(kept, letters)

    def _facts(self, delivery: Delivery, awaited: Collection[UUID]) -> Facts:
        attempts_max = 1 if delivery.expiry == ONCE else self._attempts_max
        return Facts(
            delivery.attempts,
            delivery.expires_at,
            delivery.expiry,
            attempts_max,
            awaited=delivery.message in awaited,
        )

    async def probe(self, destination: str) -> str | None:
        """Returns None if a troubled destination is back, else what is wrong with it."""
        return await self._couriers.probe(await self._router.way_to(destination))
