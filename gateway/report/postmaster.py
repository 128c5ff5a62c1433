"""The postmaster: writes to senders about their messages, and addresses its own mail."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from uuid import UUID

from gateway.protocol.errors import Code
from gateway.protocol.message import Message
from gateway.report.failures import DELAY, FAILURE, FailureFacts, may_report, report_on
from gateway.report.interests import Interests
from gateway.route.placing import Placing
from gateway.store.admitted import Admitted
from gateway.store.queue import delays
from gateway.store.queue.deliveries import Letter
from gateway.store.queue.settle import Settlement
from gateway.store.runtime import Runtime

LATE_AT_ONCE = 200  # messages told of as late in one round


class Postmaster:
    """The writer of reports. They are committed together with what they are about."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        domains: Sequence[str],
        placing: Placing,
        interests: Interests,
    ) -> None:
        self._domains = frozenset(domains)
        self._home = next(iter(domains))
        self._runtime = runtime
        self._placing = placing
        self._interests = interests

    async def tell_delays(self, hours: float) -> None:
        """Sends one report for each message that waits too long."""
        for row, letter in (
            await delays.late_messages(self._runtime.database, hours=hours, limit=LATE_AT_ONCE)
        ).items():
            report = partial(self._delay_report, letter)
            told = await delays.tell(
                self._runtime.database,
                self._runtime.row_ids,
                row,
                hours=hours,
                report=report,
                riders=partial(self._interests.delayed, letter),
            )
            if told is not None:
                self._runtime.ring([entry.agent for entry in told.entries])

    async def _delay_report(self, letter: Letter, late: Sequence[delays.Late]) -> Admitted | None:
        first = late[0]
        trouble = FailureFacts(
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

    async def reports(
        self, settlements: Sequence[Settlement], letters: Mapping[UUID, Letter], now: datetime
    ) -> dict[int, tuple[Admitted, ...]]:
        """Returns a report for each message that ended badly, by the place of its first such settlement."""
        ended: dict[UUID, list[int]] = {}
        for index, settlement in enumerate(settlements):
            if settlement.report:
                ended.setdefault(settlement.message, []).append(index)
        reports: dict[int, tuple[Admitted, ...]] = {}
        for row, indexes in ended.items():
            first = settlements[indexes[0]]
            trouble = FailureFacts(
                FAILURE,
                letters[row].message_id,
                letters[row].sender,
                [settlements[index].address for index in indexes],
                Code(first.code or Code.TEMPORARY_FAILURE),
                first.error or "",
                first.attempts,
                now,
                details=first.details,
            )
            report = await self.report(trouble, proven=letters[row].proven, automatic=letters[row].automatic)
            if report is not None:
                reports[indexes[0]] = (report,)
        return reports

    async def report(self, trouble: FailureFacts, *, proven: bool, automatic: bool) -> Admitted | None:
        """Returns a report to the sender of the message; None where the sender is gone or may get none."""
        if not may_report(sender=trouble.sender, proven=proven, automatic=automatic):
            return None
        domain, now = self.home_of(trouble.sender, *trouble.recipients), self._runtime.clock.now()
        return await self.addressed(report_on(trouble, domain=domain, row=self._runtime.row_ids(), now=now))

    async def addressed(self, message: Message, *, heard: bool = True) -> Admitted | None:
        """Returns a message of our own as admitted; None where its recipient is gone. `heard`: subscribers are told."""
        places = await self._placing.place(message)
        if not places.accepted:
            return None
        return Admitted(
            message,
            True,
            tuple(places.entries),
            tuple(places.queued),
            automatic=message.headers.auto_submitted != "no",
            riders=self._interests.accepted(message, places.states) if heard else (),
        )

    def home_of(self, *addresses: str | None) -> str:
        """Returns the local domain in whose name we write: that of the first local address given, else our first."""
        domains = ((address or "").rpartition("@")[2].lower() for address in addresses)
        return next((domain for domain in domains if domain in self._domains), self._home)
