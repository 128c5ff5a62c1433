"""The spine: accept() is everything before the answer, carry() everything after it.

Read it top to bottom: may this enter, where does each recipient live, commit, answer; then route, courier, verdict,
settle.
"""

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from time import monotonic
from typing import assert_never
from uuid import UUID

from gateway.admit.admission import offered_rule, sender_rule
from gateway.admit.caller import Caller
from gateway.clock import Clock
from gateway.deliver.courier import Parcel
from gateway.deliver.outcome import (
    Again,
    Deferred,
    Done,
    Ended,
    Facts,
    Outcome,
    Placed,
    Refused,
    Shelved,
    Verdict,
    verdict_on,
)
from gateway.deliver.peer import PeerCourier
from gateway.journal import Journal
from gateway.lanes import Lanes
from gateway.mint import Mint
from gateway.placing import Places, Placing, tagged
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.message import Message
from gateway.protocol.retry import ATTEMPTS_MAX
from gateway.protocol.status import Receipt, RecipientState, Status
from gateway.report.failure import DELAY, FAILURE, Trouble, may_report, report_on
from gateway.route.router import Here, NotNow, NoWay, Router, There, Way
from gateway.store import delays
from gateway.store.database import Database
from gateway.store.deliveries import Delivery, Letter
from gateway.store.intake import Admitted, Intake
from gateway.store.messages import message_id_of, states
from gateway.store.repeats import repeat
from gateway.store.settle import Settle, Settlement

LATE_AT_ONCE = 200  # messages told of as late in one round
PRESSING = frozenset(
    {Code.RATE_LIMIT_EXCEEDED, Code.QUEUE_FULL, Code.TEMPORARY_FAILURE}
)  # "not so much at once"


class NobodyAccepted(AMTPError):
    """Nobody was accepted: the first refusal is the answer, the others stand beside it."""

    def __init__(self, first: AMTPError, recipients: Sequence[RecipientState]) -> None:
        super().__init__(first.code, first.message, first.details, first.retry_after)
        self.recipients = recipients


@dataclass(frozen=True, slots=True)
class Carried:
    """What a lane learns from a parcel about its destination."""

    answered: bool = False  # it took something, or refused it in order
    pressed: bool = False  # it has no room for so much at once
    blame: str | None = None  # it failed as a whole
    unreachable: bool = False  # in that nothing could be sent
    batch: bool = False  # it takes several messages at once


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
        placing: Placing,
        lanes: Lanes,
        committed: Callable[[Collection[int]], None],
        clock: Clock,
        mint: Mint,
        journal: Journal,
        attempts_max: int = ATTEMPTS_MAX,
    ) -> None:
        self._domains = frozenset(domains)
        self._home = next(iter(domains))
        self._database = database
        self._intake = intake
        self._settle = settle
        self._router = router
        self._peer = peer
        self._placing = placing
        self._lanes = lanes
        self._committed = committed
        self._clock = clock
        self._mint = mint
        self._journal = journal
        self._attempts_max = attempts_max

    async def accept(self, message: Message, caller: Caller) -> Receipt:
        """Commits the message and says so, or raises why not. Nothing is acknowledged before it is committed."""
        proven = sender_rule(caller, message.sender, self._domains)
        if caller.proven_domain is not None:
            self._lanes.hear(caller.proven_domain)
        if message.sender.domain in self._domains:
            offered_rule(message)
        places = await self._placing.place(message, caller)
        if not places.accepted:
            raise NobodyAccepted(places.refusals[0], places.states)
        admitted = self._admit(message, caller, proven, places)
        try:
            seen = await self._intake.commit(admitted)
        except BaseException:
            self._lanes.give_up(admitted)
            raise
        if seen is not None:
            self._lanes.give_up(admitted)
            return await self._repeat(admitted, seen.row, places)
        self._lanes.take(admitted)
        self._journal.accepted(
            message.message_id, message.sender.name, len(message.recipients), len(message.body)
        )
        return Receipt(message.message_id, tuple(places.states))

    def _admit(self, message: Message, caller: Caller, proven: bool, places: Places) -> Admitted:
        return Admitted(
            message=message,
            proven=proven,
            entries=tuple(places.entries),
            deliveries=self._lanes.lease(places.queued, self._clock.now()),
            automatic=message.headers.auto_submitted != "no",
            hops=caller.hops,
            local=message.sender.domain in self._domains,
        )

    async def _repeat(self, admitted: Admitted, original: UUID, places: Places) -> Receipt:
        """The answer to a key or id seen before: this request's recipients, as they stand now."""
        gained = await repeat(self._database, self._mint, admitted, original)
        if gained:
            self._committed(gained)
        known = (await states(self._database, [original])).get(original, {})
        self._journal.repeated(admitted.message.message_id, admitted.message.sender.name)
        now_known = [
            replace(known[recipient.name], address=recipient.written) if recipient.name in known else state
            for recipient, state in zip(admitted.message.recipients, places.states, strict=True)
        ]
        public_id = await message_id_of(self._database, original) or admitted.message.message_id
        return Receipt(public_id, tuple(now_known))

    async def tell_delays(self, hours: float) -> None:
        """One report for each message that waits too long."""
        for row, letter in (
            await delays.late_messages(self._database, hours=hours, limit=LATE_AT_ONCE)
        ).items():
            report = partial(self._delay_report, letter)
            told = await delays.tell(self._database, self._mint, row, hours=hours, report=report)
            if told is not None:
                self._committed([entry.agent for entry in told.entries])

    async def _delay_report(self, letter: Letter, late: Sequence[delays.Late]) -> Admitted | None:
        first = late[0]
        trouble = Trouble(
            DELAY,
            letter.message_id,
            letter.sender,
            [one.address for one in late],
            Code(first.code) if first.code else Code.RECIPIENT_UNAVAILABLE,
            first.error or "It waits for its destination.",
            first.attempts,
            first.last_attempt,
            first.due,
        )
        return await self.report(trouble, proven=letter.proven, automatic=letter.automatic)

    async def report(self, trouble: Trouble, *, proven: bool, automatic: bool) -> Admitted | None:
        """A report on its way to the sender of what it is about; None where nobody is there or may be told."""
        if not may_report(sender=trouble.sender, proven=proven, automatic=automatic):
            return None
        domain, now = self._home_of(trouble.sender), self._clock.now()
        return await self._addressed(report_on(trouble, domain=domain, row=self._mint(), now=now))

    async def carry(self, parcel: Parcel) -> Carried:
        """One parcel's way after the answer: route, courier, verdict, settle."""
        started = monotonic()
        if all(delivery.expires_at <= self._clock.now() for delivery in parcel.deliveries):
            outcomes, carried = [_too_late(delivery) for delivery in parcel.deliveries], Carried()
        else:
            way = await self._router.way_to(parcel.destination)
            outcomes = list(await self._hand(parcel, way))
            carried = _carried(way, outcomes)
        milliseconds = int((monotonic() - started) * 1000)
        now = self._clock.now()
        letters = {consignment.letter.row: consignment.letter for consignment in parcel.consignments}
        draws = {
            row: random.random() for row in letters
        }  # one each: what failed together is retried together
        settlements = [
            _settlement(
                delivery,
                verdict_on(outcome, self._facts(delivery), now, draws[delivery.message]),
                milliseconds,
            )
            for delivery, outcome in zip(parcel.deliveries, outcomes, strict=True)
        ]
        reports = await self._reports(settlements, letters, now)
        kept = await self._settle.settle(
            [replace(s, follow_ups=reports.get(i, ())) for i, s in enumerate(settlements)]
        )
        self._journal.settled(kept, letters)
        return carried

    def _facts(self, delivery: Delivery) -> Facts:
        return Facts(delivery.attempts, delivery.expires_at, delivery.expiry, self._attempts_max)

    async def probe(self, destination: str) -> str | None:
        """Whether a troubled destination is back: None, or what is wrong with it."""
        match await self._router.way_to(destination):
            case There(gateway):
                return await self._peer.probe(gateway)
            case NotNow(reason):
                return reason
            case _:
                return None

    async def _hand(self, parcel: Parcel, way: Way) -> Sequence[Outcome]:
        """What the courier for this way saw, delivery by delivery."""
        deliveries = parcel.deliveries
        match way:
            case Here(resident) if resident.delivery_mode == "pull":
                return [Placed(resident.id, tagged(d.address, d.recipient)) for d in deliveries]
            case Here():
                reason = "Push delivery is not available in this release."
                return [Deferred(Code.RECIPIENT_UNAVAILABLE, reason)] * len(deliveries)
            case There(destination):
                return await self._peer.deliver(parcel, destination)
            case NoWay(reason):
                return [Refused(Code.RECIPIENT_NOT_FOUND, reason)] * len(deliveries)
            case NotNow(reason):
                fault = Deferred(Code.RECIPIENT_UNAVAILABLE, reason, blames=True, unreachable=True)
                return [fault] * len(deliveries)

    async def _reports(
        self, settlements: Sequence[Settlement], letters: Mapping[UUID, Letter], now: datetime
    ) -> dict[int, tuple[Admitted, ...]]:
        """A report for each message that ended badly, beside the settlement of its first such recipient."""
        ended: dict[UUID, list[int]] = {}
        for index, settlement in enumerate(settlements):
            if settlement.report:
                ended.setdefault(settlement.message, []).append(index)
        reports: dict[int, tuple[Admitted, ...]] = {}
        for row, indexes in ended.items():
            first = settlements[indexes[0]]
            trouble = Trouble(
                FAILURE,
                letters[row].message_id,
                letters[row].sender,
                [settlements[index].address for index in indexes],
                Code(first.code or Code.TEMPORARY_FAILURE),
                first.error or "",
                first.attempts,
                now,
            )
            report = await self.report(trouble, proven=letters[row].proven, automatic=letters[row].automatic)
            if report is not None:
                reports[indexes[0]] = (report,)
        return reports

    async def _addressed(self, report: Message) -> Admitted | None:
        """A message of our own on its way in; None where its recipient is gone."""
        places = await self._placing.place(report)
        if not places.accepted:
            return None
        return Admitted(report, True, tuple(places.entries), tuple(places.queued), automatic=True)

    def _home_of(self, sender: str) -> str:
        """The local domain in whose name we write about a message: its sender's, else our first."""
        domain = sender.rpartition("@")[2]
        return domain if domain in self._domains else self._home


def _too_late(delivery: Delivery) -> Outcome:
    """Its time was over before this attempt; what the last one came to is the reason."""
    code = Code(delivery.last_code) if delivery.last_code else Code.RECIPIENT_UNAVAILABLE
    return Deferred(code, delivery.last_error or "It waited all the time and was never tried.")


def _settlement(delivery: Delivery, verdict: Verdict, milliseconds: int) -> Settlement:
    """The verdict as the store writes it."""
    settlement = Settlement(
        message=delivery.message,
        recipient=delivery.recipient,
        address=delivery.address,
        token=delivery.token,
        attempts=delivery.attempts,
        first_attempt=delivery.first_attempt,
        milliseconds=milliseconds,
    )
    match verdict:
        case Done(via):
            return replace(settlement, status=Status.DELIVERED.value, via=via)
        case Shelved(agent, address):
            expires = delivery.expires_at if delivery.expiry == "ttl" else None
            return replace(settlement, agent=agent, entry_address=address, expires_at=expires)
        case Again(due, code, reason):
            return replace(settlement, due=due, code=code.value, error=reason)
        case Ended(status, code, reason, dead_letter, report):
            return replace(
                settlement,
                status=status.value,
                code=code.value,
                error=reason,
                dead_letter=dead_letter,
                report=report,
            )
        case _:
            assert_never(verdict)


def _carried(way: Way, outcomes: Sequence[Outcome]) -> Carried:
    """What the outcomes say of the destination; one that was never asked is not told to be well."""
    batch = isinstance(way, There) and "batch" in way.destination.features
    blamed = [o for o in outcomes if isinstance(o, Deferred) and o.blames]
    if blamed:
        unreachable = all(o.unreachable for o in blamed)
        return Carried(blame=blamed[0].reason, unreachable=unreachable, batch=batch)
    if any(isinstance(o, Deferred) and o.code in PRESSING for o in outcomes):
        return Carried(pressed=True, batch=batch)
    asked = any(not isinstance(o, Refused) or o.code is not Code.MESSAGE_TOO_LARGE for o in outcomes)
    return Carried(answered=asked and isinstance(way, There | Here), batch=batch)
