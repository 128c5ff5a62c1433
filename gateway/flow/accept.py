"""Accept, everything before the answer: checks the message, places each recipient, commits, answers."""

import asyncio
from collections.abc import Sequence
from functools import partial
from types import TracebackType

from gateway.admit.caller import Caller
from gateway.admit.checks import Checks, Keeper
from gateway.admit.provable import Provable
from gateway.admit.rules import immediate_rule, offered_rule, sender_rule
from gateway.admit.strangers import Strangers
from gateway.flow.immediate import Immediate
from gateway.flow.lanes import Lanes
from gateway.protocol.errors import STATUS_OF, AMTPError, Code
from gateway.protocol.identifiers import is_derived
from gateway.protocol.message import Message, in_reply_to
from gateway.protocol.status import LIVE, Acceptance, RecipientState, Status, brought_up_to_date
from gateway.report.interests import Interests
from gateway.report.receipts import owing
from gateway.route.placing import Places, Placing, is_immediate
from gateway.store.admitted import Admitted, Rider
from gateway.store.intake.duplicates import originals, repeat
from gateway.store.intake.intake import Intake
from gateway.store.intake.uniqueness import Original, Repeat
from gateway.store.messages.correspondence import known_here
from gateway.store.messages.messages import states
from gateway.store.runtime import Runtime


class NobodyAccepted(AMTPError):
    """The refusal of all recipients: the first error is the answer, the others stand beside it.

    A `message_id` is set where delivery was attempted, on the immediate path.
    """

    def __init__(
        self, first: AMTPError, recipients: Sequence[RecipientState], message_id: str | None = None
    ) -> None:
        super().__init__(first.code, first.message, first.details, first.retry_after)
        self.recipients = recipients
        self.message_id = message_id


class Entrance:
    """A message that passed every rule, as a context: leaving it before `committed()` gives its places back."""

    __slots__ = ("_accept", "_caller", "_committed", "admitted", "keeper", "message", "places")

    places: Places
    admitted: Admitted
    keeper: Keeper | None

    def __init__(self, accept: "Accept", message: Message, caller: Caller) -> None:
        self._accept = accept
        self._caller = caller
        self._committed = False
        self.message = message

    async def __aenter__(self) -> "Entrance":
        """Judges the message; raises where it may not enter."""
        self.places, self.admitted, self.keeper = await self._accept.judge(self.message, self._caller)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._committed:
            self._accept.give_up(self.admitted)

    def committed(self) -> None:
        """Lets couriers start on what waits for them."""
        self._committed = True
        self._accept.begin(self.admitted)


class Accept:
    """The entrance of messages: judged, committed, answered."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        domains: Sequence[str],
        checks: Checks,
        placing: Placing,
        provable: Provable,
        strangers: Strangers,
        intake: Intake,
        interests: Interests,
        lanes: Lanes,
        immediate: Immediate,
    ) -> None:
        self._runtime = runtime
        self._clock = runtime.clock
        self._domains = frozenset(domains)
        self._checks = checks
        self._placing = placing
        self._provable = provable
        self._strangers = strangers
        self._intake = intake
        self._interests = interests
        self._lanes = lanes
        self._immediate = immediate

    async def accept(self, message: Message, caller: Caller) -> Acceptance:
        """Commits the message and returns its acceptance, or raises. Nothing is acknowledged before the commit."""
        if message.in_reply_to is not None and is_derived(message.in_reply_to):
            known = await known_here(self._runtime.database, message.in_reply_to)
            message = message if known is None else in_reply_to(message, known)
        places, admitted, keeper = await self.judge(message, caller)
        committed = False
        try:
            if keeper is not None:
                return await keeper.keep(admitted, places.states)
            if admitted.entries or admitted.deliveries:  # a heartbeat leaves nothing behind
                seen = await self._intake.commit(admitted)
                if seen is not None:
                    return await self._repeat(admitted, seen, places.states)
                committed = True
        finally:
            if not committed:
                self.give_up(admitted)
        if committed:
            if self.tells_outcome(message):
                self._immediate.expect(admitted)
            self.begin(admitted)
        return Acceptance(message.message_id, tuple(places.states), message.row)

    def entering(self, message: Message, caller: Caller) -> Entrance:
        """Returns the context in which a message is judged and then committed, here or by the caller."""
        return Entrance(self, message, caller)

    def tells_outcome(self, message: Message) -> bool:
        """Returns whether the answer to this message waits for the outcome of its delivery."""
        return is_immediate(message, self._domains)

    async def outcome(
        self, acceptance: Acceptance, names: Sequence[str], ending: asyncio.Event
    ) -> Acceptance:
        """Waits for the outcome of a message on the immediate path; raises where no recipient has it.

        A recipient still being tried at the timeout, or tried by another process, is shown as queued.
        """
        await self._immediate.over(acceptance.row, ending)
        if acceptance.row is not None and acceptance.status != "delivered":
            try:
                known = await states(self._runtime.database, [acceptance.row])
            except AMTPError:  # it is committed all the same: its status tells, when the database is back
                return acceptance
            acceptance = brought_up_to_date(acceptance, names, known.get(acceptance.row, {}))
        if {recipient.status for recipient in acceptance.recipients} & {Status.DELIVERED, *LIVE}:
            return acceptance
        raise NobodyAccepted(_first_error(acceptance), acceptance.recipients, acceptance.message_id)

    async def judge(self, message: Message, caller: Caller) -> tuple[Places, Admitted, Keeper | None]:
        """Decides whether a message may enter, and finds where each recipient lives."""
        proven = sender_rule(caller, message.sender, self._domains)
        if not proven:
            self._strangers.arrive(len(message.body), caller.address)
            await self._check_unproven(message, caller)
        if caller.proven_domain is not None:
            self._lanes.hear(caller.proven_domain)
        if message.sender.domain in self._domains:
            offered_rule(message)
            immediate_rule(message)
        places = await self._placing.place(message, caller, proven=proven)
        if places.refusals and any(refusal.code is Code.RELAY_DENIED for refusal in places.refusals):
            self._runtime.journal.security("relay_denied", caller.address, sender=message.sender.name)
        if not places.accepted:
            raise NobodyAccepted(places.refusals[0], places.states)
        if not proven:
            self._strangers.keep(places.entries, places.queued, len(message.body))
        riders, keeper = await self._checks.judge(message, caller)
        if keeper is not None:  # its receipts and notices follow when it is sent
            return places, self._admit(message, caller, proven, places, riders), keeper
        riders += self._interests.accepted(message, places.states)
        return places, owing(self._admit(message, caller, proven, places, riders), places), None

    async def _check_unproven(self, message: Message, caller: Caller) -> None:
        """Applies the rules for mail whose sender proved nothing."""
        try:
            await self._provable.check_unproven(message.sender.domain)
        except AMTPError as refusal:
            if refusal.code is Code.AUTHENTICATION_FAILED:
                self._runtime.journal.security("unproven_peer", caller.address, sender=message.sender.name)
            raise

    def begin(self, admitted: Admitted) -> None:
        """Starts couriers after the commit."""
        message = admitted.message
        self._lanes.take(admitted)
        self._runtime.journal.accepted(
            message.message_id, message.sender.name, len(message.recipients), len(message.body)
        )

    def give_up(self, admitted: Admitted) -> None:
        """Releases the leases of a commit that failed, or that was another message's."""
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

    async def _repeat(self, admitted: Admitted, seen: Repeat, placed: Sequence[RecipientState]) -> Acceptance:
        """Returns the acceptance for a key or id seen before: this request's recipients, with their current states."""
        original, database = seen.original, self._runtime.database
        if original is None or not original.has_all(admitted):
            riders = partial(self._interests.joined, admitted, placed)
            gained = await repeat(database, self._runtime.row_ids, admitted, seen.row, riders)
            if gained:
                self._runtime.ring(gained)
            original = (await originals(database, [seen.row])).get(seen.row)
        self._runtime.journal.repeated(admitted.message.message_id, admitted.message.sender.name)
        if original is None:  # its time is over, its key's is not
            original = Original(admitted.message.message_id, frozenset(), {})
        acceptance = Acceptance(original.message_id, tuple(placed), seen.row)
        names = [recipient.name for recipient in admitted.message.recipients]
        return brought_up_to_date(acceptance, names, original.states)


def _first_error(acceptance: Acceptance) -> AMTPError:
    """Returns the first recipient's error."""
    errors = [recipient.error for recipient in acceptance.recipients if recipient.error]
    code, text = errors[0] if errors else (Code.RECIPIENT_UNAVAILABLE, "It was not delivered.")
    return AMTPError(code if code in STATUS_OF else Code.RECIPIENT_UNAVAILABLE, text)
