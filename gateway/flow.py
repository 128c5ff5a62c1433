"""The spine: accept() is everything before the answer, carry() everything after it.

Read it top to bottom: may this enter, where does each recipient live, commit, answer; then route, courier, verdict,
settle.
"""

import asyncio
import random
from collections.abc import Callable, Collection, Sequence
from functools import partial
from time import monotonic
from uuid import UUID

from msgspec.structs import replace

from gateway.admit.admission import immediate_rule, offered_rule, sender_rule
from gateway.admit.attachments import AttachmentAdmission
from gateway.admit.caller import Caller
from gateway.admit.provable import Provable
from gateway.clock import Clock
from gateway.deliver.courier import Parcel
from gateway.deliver.outcome import (
    Deferred,
    Facts,
    Outcome,
    Placed,
    Refused,
    verdict_on,
)
from gateway.deliver.peer import PeerCourier
from gateway.deliver.settlement import Carried, carried_of, settlement_of, too_late
from gateway.deliver.webhook import WebhookCourier
from gateway.immediate import ONCE, Immediate, is_immediate
from gateway.journal import Journal
from gateway.lanes import Lanes
from gateway.mint import Mint
from gateway.placing import Places, Placing, tagged
from gateway.protocol.errors import STATUS_OF, AMTPError, Code
from gateway.protocol.message import Message
from gateway.protocol.repeat import plan_of
from gateway.protocol.retry import ATTEMPTS_MAX
from gateway.protocol.status import LIVE, Receipt, RecipientState, Status, brought_up_to_date
from gateway.report.aftermath import Aftermath
from gateway.report.interests import Interests
from gateway.report.postmaster import Postmaster
from gateway.report.receipt import owing
from gateway.route.router import Here, NotNow, NoWay, Router, There, Way
from gateway.store.admitted import Admitted, Rider
from gateway.store.database import Database
from gateway.store.deliveries import Delivery
from gateway.store.intake import Intake
from gateway.store.messages import message_id_of, states
from gateway.store.repeats import repeat
from gateway.store.schedules import Schedules
from gateway.store.settle import Settle
from gateway.store.topics import Topic


class NobodyAccepted(AMTPError):
    """Nobody was accepted: the first refusal is the answer, the others stand beside it.

    With a `message_id` it was tried, on the immediate path, and is known by it.
    """

    def __init__(
        self, first: AMTPError, recipients: Sequence[RecipientState], message_id: str | None = None
    ) -> None:
        super().__init__(first.code, first.message, first.details, first.retry_after)
        self.recipients = recipients
        self.message_id = message_id


class Flow:
    """A message's way into the house and through it."""

    def __init__(
        self,
        *,
        domains: Sequence[str],
        database: Database,
        intake: Intake,
        settle: Settle,
        router: Router,
        peer: PeerCourier,
        webhook: WebhookCourier,
        placing: Placing,
        provable: Provable,
        attachments: AttachmentAdmission,
        postmaster: Postmaster,
        interests: Interests,
        aftermath: Aftermath,
        lanes: Lanes,
        immediate: Immediate,
        schedules: Schedules,
        committed: Callable[[Collection[Topic]], None],
        clock: Clock,
        mint: Mint,
        journal: Journal,
        attempts_max: int = ATTEMPTS_MAX,
    ) -> None:
        self._domains = frozenset(domains)
        self._database = database
        self._intake = intake
        self._settle = settle
        self._router = router
        self._peer = peer
        self._webhook = webhook
        self._placing = placing
        self._provable = provable
        self._attachments = attachments
        self._postmaster = postmaster
        self._interests = interests
        self._aftermath = aftermath
        self._lanes = lanes
        self._immediate = immediate
        self._schedules = schedules
        self._committed = committed
        self._clock = clock
        self._mint = mint
        self._journal = journal
        self._attempts_max = attempts_max

    async def accept(self, message: Message, caller: Caller) -> Receipt:
        """Commits the message and says so, or raises why not. Nothing is acknowledged before it is committed."""
        places, admitted = await self.enter(message, caller)
        if message.headers.repeat is not None and admitted.local:
            self.give_up(admitted)
            return await self._repeating(admitted, places)
        if not admitted.entries and not admitted.deliveries:  # a heartbeat leaves nothing behind
            return Receipt(message.message_id, tuple(places.states), message.row)
        try:
            seen = await self._intake.commit(admitted)
        except BaseException:
            self.give_up(admitted)
            raise
        if seen is not None:
            self.give_up(admitted)
            return await self._repeat(admitted, seen.row, places)
        if self.tells_outcome(message):
            self._immediate.expect(admitted)
        self.begin(admitted)
        return Receipt(message.message_id, tuple(places.states), message.row)

    def tells_outcome(self, message: Message) -> bool:
        """Whether the answer to this message waits for what comes of it."""
        return is_immediate(message, self._domains)

    async def _repeating(self, admitted: Admitted, places: Places) -> Receipt:
        """A message that repeats is kept, to be sent at each tick."""
        schedule = await self._schedules.add(admitted, plan_of(admitted.message, self._clock.now()))
        status = Status.QUEUED if schedule.next_at else Status.CANCELLED
        waiting = [
            state
            if state.status is Status.FAILED
            else RecipientState(state.address, status, timestamp=state.timestamp)
            for state in places.states
        ]
        return Receipt(schedule.message_id, tuple(waiting), schedule.id, schedule.state)

    async def outcome(self, receipt: Receipt, names: Sequence[str], ending: asyncio.Event) -> Receipt:
        """What came of a message on the immediate path; raises where nobody has it.

        Who is still being tried when the time is over, or was tried by another process, shows as queued.
        """
        await self._immediate.over(receipt.row, ending)
        if receipt.row is not None and receipt.status != "delivered":
            try:
                known = await states(self._database, [receipt.row])
            except AMTPError:  # it is committed all the same: its status tells, when the database is back
                return receipt
            receipt = brought_up_to_date(receipt, names, known.get(receipt.row, {}))
        if {recipient.status for recipient in receipt.recipients} & {Status.DELIVERED, *LIVE}:
            return receipt
        raise NobodyAccepted(_first_error(receipt), receipt.recipients, receipt.message_id)

    async def enter(self, message: Message, caller: Caller) -> tuple[Places, Admitted]:
        """Everything before the commit: may this enter, and where does each recipient live.

        Whoever commits it says so with `begin`, or that it came to nothing with `give_up`.
        """
        proven = sender_rule(caller, message.sender, self._domains)
        if not proven:
            await self._check_unproven(message, caller)
        if caller.proven_domain is not None:
            self._lanes.hear(caller.proven_domain)
        if message.sender.domain in self._domains:
            offered_rule(message)
            immediate_rule(message)
        places = await self._placing.place(message, caller)
        if any(refusal.code is Code.RELAY_DENIED for refusal in places.refusals):
            self._journal.security("relay_denied", caller.address, sender=message.sender.name)
        if not places.accepted:
            raise NobodyAccepted(places.refusals[0], places.states)
        held: tuple[Rider, ...] = await self._attachments.check(message)
        riders = held + self._interests.accepted(message, places.states)
        return places, owing(self._admit(message, caller, proven, places, riders), places)

    async def _check_unproven(self, message: Message, caller: Caller) -> None:
        """What holds for mail whose sender proved nothing."""
        try:
            await self._provable.check_unproven(message.sender.domain)
        except AMTPError as refusal:
            if refusal.code is Code.AUTHENTICATION_FAILED:
                self._journal.security("unproven_peer", caller.address, sender=message.sender.name)
            raise

    def begin(self, admitted: Admitted) -> None:
        """After the commit: what of it waits for a courier may start."""
        message = admitted.message
        self._lanes.take(admitted)
        self._journal.accepted(
            message.message_id, message.sender.name, len(message.recipients), len(message.body)
        )

    def give_up(self, admitted: Admitted) -> None:
        """The commit did not come, or was another's."""
        self._lanes.give_up(admitted)

    def _admit(
        self, message: Message, caller: Caller, proven: bool, places: Places, riders: tuple[Rider, ...]
    ) -> Admitted:
        return Admitted(
            message=message,
            proven=proven,
            entries=tuple(places.entries),
            deliveries=self._lanes.lease(places.queued, self._clock.now()),
            automatic=message.headers.auto_submitted != "no",
            hops=caller.hops,
            local=message.sender.domain in self._domains,
            riders=riders,
        )

    async def _repeat(self, admitted: Admitted, original: UUID, places: Places) -> Receipt:
        """The answer to a key or id seen before: this request's recipients, as they stand now."""
        riders = partial(self._interests.joined, admitted, places.states)
        gained = await repeat(self._database, self._mint, admitted, original, riders)
        if gained:
            self._committed(gained)
        known = (await states(self._database, [original])).get(original, {})
        self._journal.repeated(admitted.message.message_id, admitted.message.sender.name)
        public_id = await message_id_of(self._database, original) or admitted.message.message_id
        receipt = Receipt(public_id, tuple(places.states), original)
        names = [recipient.name for recipient in admitted.message.recipients]
        return brought_up_to_date(receipt, names, known)

    async def carry(self, parcel: Parcel, handed: Callable[[Carried], None] = lambda _: None) -> Carried:
        """One parcel's way after the answer: route, courier, verdict, settle.

        Who asks is told as soon as the courier is back, before it is written down what it saw.
        """
        started = monotonic()
        if all(delivery.expires_at <= self._clock.now() for delivery in parcel.deliveries):
            outcomes, carried = [too_late(delivery) for delivery in parcel.deliveries], Carried()
        else:
            way = await self._router.way_to(parcel.destination)
            outcomes = list(await self._hand(parcel, way))
            carried = carried_of(way, outcomes)
        milliseconds = int((monotonic() - started) * 1000)
        handed(carried)
        with self._immediate.deciding(parcel.deliveries) as awaited:
            await self._conclude(parcel, outcomes, milliseconds, awaited)
        return carried

    async def turn_away(self, parcel: Parcel) -> None:
        """What may be tried only now can't be: nobody was asked."""
        reason = f"{parcel.destination} could not be reached in time, and this message may not wait."
        fault = Deferred(Code.RECIPIENT_UNAVAILABLE, reason)
        with self._immediate.deciding(parcel.deliveries) as awaited:
            await self._conclude(parcel, [fault] * len(parcel.deliveries), 0, awaited)

    async def _conclude(
        self, parcel: Parcel, outcomes: Sequence[Outcome], milliseconds: int, awaited: Collection[UUID]
    ) -> None:
        """Verdicts on what the courier saw, and everything that follows from them.

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
        reports = await self._postmaster.reports(settlements, letters, now)
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
        for follow_up in (follow_up for settlement in kept for follow_up in settlement.follow_ups):
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
        """Whether a troubled destination is back: None, or what is wrong with it."""
        match await self._router.way_to(destination):
            case There(gateway):
                return await self._peer.probe(gateway)
            case Here(resident) if resident.pushed:
                return await self._webhook.probe(resident)
            case NotNow(reason):
                return reason
            case _:
                return None

    async def _hand(self, parcel: Parcel, way: Way) -> Sequence[Outcome]:
        """What the courier for this way saw, delivery by delivery."""
        deliveries = parcel.deliveries
        match way:
            case Here(resident) if resident.pushed:
                return await self._webhook.deliver(parcel, resident)
            case Here(resident):
                return [Placed(resident.id, tagged(d.address, d.recipient)) for d in deliveries]
            case There(destination):
                return await self._peer.deliver(parcel, destination)
            case NoWay(reason):
                return [Refused(Code.RECIPIENT_NOT_FOUND, reason)] * len(deliveries)
            case NotNow(reason):
                fault = Deferred(Code.RECIPIENT_UNAVAILABLE, reason, blames=True, unreachable=True)
                return [fault] * len(deliveries)


def _first_error(receipt: Receipt) -> AMTPError:
    """Why the first of them does not have it."""
    errors = [recipient.error for recipient in receipt.recipients if recipient.error]
    code, text = errors[0] if errors else (Code.RECIPIENT_UNAVAILABLE, "It was not delivered.")
    return AMTPError(code if code in STATUS_OF else Code.RECIPIENT_UNAVAILABLE, text)
