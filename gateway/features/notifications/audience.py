"""The subscribers as this process knows them, and the notices that follow from happenings.

A new or ended subscription is known to all processes within two seconds: each polls one number every second, and reads
the list again when it changed. While the list is empty, nothing is built.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from time import monotonic
from uuid import UUID

import msgspec

from gateway.features.notifications import happenings as notify
from gateway.features.notifications.events import Happening, Subscriber, notice_id, render_event
from gateway.features.notifications.notices import Notice
from gateway.features.notifications.subscriptions import subscribers, subscriptions_version
from gateway.protocol.address import Address, parse_address
from gateway.protocol.errors import AMTPError
from gateway.protocol.message import Message, members_of
from gateway.protocol.status import RecipientState, Status
from gateway.report.naming import Name, Named
from gateway.store.admitted import Admitted
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.inbox.acknowledge import Acknowledgement, Result
from gateway.store.inbox.acknowledge import EntryName as Acknowledged
from gateway.store.inbox.inbox import Item
from gateway.store.inbox.poison import Buried
from gateway.store.intake.duplicates import Gained
from gateway.store.queue.delays import Late
from gateway.store.queue.deliveries import Letter
from gateway.store.queue.settle import Settlement

LOOK_SECONDS = 1.0

log = logging.getLogger(__name__)


class Audience:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._version = -1
        self._house: list[Subscriber] = []
        self._owners: dict[str, list[Subscriber]] = {}
        self.stirred = asyncio.Event()  # notices are on their way into the store

    async def run(self) -> None:
        """Polls each second until cancelled. A failed poll is made up for by the next."""
        while True:
            looked_at = monotonic()
            try:
                async with asyncio.timeout(2 * LOOK_SECONDS):
                    await self.look()
            except (AMTPError, TimeoutError) as failure:
                log.debug("the subscriptions could not be looked at: %s", failure)
            await asyncio.sleep(max(0.0, looked_at + LOOK_SECONDS - monotonic()))

    async def look(self) -> None:
        """Reads the list if it changed."""
        if await subscriptions_version(self._database) == self._version:
            return
        self._version, found = await subscribers(self._database)
        owners: dict[str, list[Subscriber]] = {}
        for subscriber in found:
            if subscriber.owner is not None:
                owners.setdefault(subscriber.owner, []).append(subscriber)
        self._house = [subscriber for subscriber in found if subscriber.owner is None]
        self._owners = owners

    @property
    def idle(self) -> bool:
        return not self._house and not self._owners

    def listens(self, sender: Address, recipients: Iterable[Address]) -> bool:
        """Returns whether any subscriber could be told of a message between these."""
        if self._house or sender.name in self._owners:
            return True
        return bool(self._owners) and any(recipient.name in self._owners for recipient in recipients)

    def notices(self, happenings: Iterable[Happening]) -> tuple[Notice, ...]:
        """Returns the notices to write in the transaction of these happenings."""
        found: list[Notice] = []
        for happening in happenings:
            body = b""
            for subscriber in self._concerned(happening):
                if subscriber.hears(happening):
                    body = body or render_event(happening)
                    identity = notice_id(happening, subscriber.id)
                    found.append(Notice(identity, subscriber.id, happening.event.value, body))
        if found:
            self.stirred.set()
        return tuple(found)

    def told(self, happenings: Callable[[datetime], Iterable[Happening]]) -> tuple[Notice, ...]:
        """Does the same as `notices`, but builds the happenings only if there are subscribers."""
        return () if self.idle else self.notices(happenings(self._clock.now()))

    def accepted(self, message: Message, states: Sequence[RecipientState]) -> tuple[Notice, ...]:
        """Returns the notices of an incoming message."""
        if not self.listens(message.sender, message.recipients):
            return ()
        return self.notices(notify.accepted(message, states, self._clock.now()))

    def joined(
        self, admitted: Admitted, states: Sequence[RecipientState], gained: Gained
    ) -> tuple[Notice, ...]:
        """Returns the notices of recipients added by a repetition; entries are in the order of the delivered `states`."""
        message = admitted.message
        delivered = (
            recipient.name
            for recipient, state in zip(message.recipients, states, strict=True)
            if state.status is Status.DELIVERED
        )
        placed = {
            name
            for name, entry in zip(delivered, admitted.entries, strict=False)
            if entry.agent in gained.agents
        }
        original = Name(gained.message, gained.message_id, message.sender.name)
        return self.told(
            lambda now: notify.accepted(
                message, states, now, original=original, joined=placed | gained.queued
            )
        )

    def settled(self, settlement: Settlement, letter: Letter) -> tuple[Notice, ...]:
        return self.told(lambda now: notify.settled(settlement, letter, now))

    def delayed(self, letter: Letter, late: Sequence[Late]) -> tuple[Notice, ...]:
        return self.told(lambda now: notify.delayed(late, letter, now))

    def cancelled(self, message: Named, recipients: Sequence[str]) -> tuple[Notice, ...]:
        return self.told(lambda now: notify.cancelled(recipients, message, now))

    def undigested(self, buried: Sequence[Buried]) -> tuple[Notice, ...]:
        return self.told(lambda now: notify.undigested(buried, now))

    def unavailable(self, agent: str, reason: str) -> tuple[Notice, ...]:
        return self.told(lambda now: [notify.unavailable(agent, reason, now)])

    def read(self, recipient: str, items: Sequence[Item]) -> tuple[Notice, ...]:
        """Returns the notices of unread entries that are handed out."""
        now = self._clock.now()
        return self.notices(
            notify.read(recipient, _name_of(item.row, item.body), now) for item in items if item.unread
        )

    def acknowledged(
        self, recipient: str, names: Sequence[Acknowledged], results: Sequence[Acknowledgement]
    ) -> tuple[Notice, ...]:
        """Returns the notices of entries acknowledged for the first time."""
        now = self._clock.now()
        return self.notices(
            notify.acknowledged(recipient, Name(result.row, name.message_id, result.sender or ""), now)
            for name, result in zip(names, results, strict=True)
            if result.result is Result.ACKNOWLEDGED and result.row is not None and not result.again
        )

    def _concerned(self, happening: Happening) -> list[Subscriber]:
        if not self._owners:
            return self._house
        owned = [s for name in dict.fromkeys(happening.concerned) for s in self._owners.get(name, ())]
        return [*self._house, *owned]


def _name_of(row: UUID, body: bytes) -> Name:
    """Returns the message as its stored body names it."""
    members = members_of(body)
    message_id, sender = (msgspec.json.decode(members[name], type=str) for name in ("message_id", "sender"))
    return Name(row, message_id, parse_address(sender, "sender").name)
