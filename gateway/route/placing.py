"""The placing of recipients at the door: an inbox here at once, the queue, or a refusal with a reason."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gateway.admit.caller import Caller
from gateway.admit.residents import Resident, Residents
from gateway.admit.rules import relay_rule, resident_rule
from gateway.admit.strangers import Strangers
from gateway.protocol.address import Address, tagged
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.message import Message
from gateway.protocol.status import RecipientState, Status
from gateway.store.admitted import Entry, Queued
from gateway.store.clock import Clock

# Seconds a delivery goes ahead of its time, so that ageing is free.
HEAD_START_SECONDS = {"urgent": 720, "high": 120, "normal": 60, "low": 0}
INBOX = "inbox"
HEARTBEAT = "heartbeat"
ONCE = "once"  # the expiry of a delivery that is tried once, now
IMMEDIATE_SECONDS = 30.0  # from the commit to the answer
_IMMEDIATE = timedelta(seconds=IMMEDIATE_SECONDS)


def is_immediate(message: Message, local_domains: Collection[str]) -> bool:
    """Returns whether the answer waits for the outcome: our own agents may ask for it, others ask their own gateway."""
    return message.headers.delivery == "best_effort" and message.sender.domain in local_domains


@dataclass(slots=True)
class Places:
    """The recipients of a message by where they live."""

    entries: list[Entry] = field(default_factory=list)
    queued: list[Queued] = field(default_factory=list)
    states: list[RecipientState] = field(default_factory=list)
    refusals: list[AMTPError] = field(default_factory=list)

    heartbeats: int = 0  # recipients here of a heartbeat

    @property
    def accepted(self) -> bool:
        return bool(self.entries or self.queued or self.heartbeats)

    def refuse(self, recipient: Address, refusal: AMTPError, now: datetime) -> None:
        self.refusals.append(refusal)
        error = (refusal.code, refusal.message)
        self.states.append(RecipientState(recipient.written, Status.FAILED, error=error, timestamp=now))


class Placing:
    """The rules of placing: agents here by the directory, all others into the queue."""

    def __init__(
        self,
        domains: Collection[str],
        residents: Residents,
        strangers: Strangers,
        clock: Clock,
        horizon: timedelta,
        *,
        saw: Callable[[int], None],
        takes_at_once: Callable[[str], bool],
    ) -> None:
        self._domains = frozenset(domains)
        self._residents = residents
        self._strangers = strangers
        self._clock = clock
        self._horizon = horizon
        self._saw = saw  # called with an agent that showed a sign of life
        self._takes_at_once = takes_at_once  # whether a delivery to that destination may start now

    async def place(self, message: Message, caller: Caller | None = None, *, proven: bool = True) -> Places:
        """Places each recipient: local ones in their inbox, others in the queue. Without a caller the message is our own.

        An unproven sender reaches only agents that are active, up to its share of each inbox.
        """
        names = [address.name for address in message.recipients if address.domain in self._domains]
        if message.sender.domain in self._domains:
            names.append(message.sender.name)
        residents = await self._residents.resolve(names) if names else {}
        if caller is not None and message.sender.domain in self._domains:
            resident_rule(caller, message.sender, residents.get(message.sender.name))
        if message.headers.kind == HEARTBEAT and (sender := residents.get(message.sender.name)):
            self._saw(sender.id)
        now = self._clock.now()
        places = Places()
        for recipient in message.recipients:
            try:
                relay_rule(message.sender, recipient, self._domains)
                self._one(message, recipient, residents, now, places, proven=proven)
            except AMTPError as refusal:
                places.refuse(recipient, refusal, now)
        return places

    def _one(
        self,
        message: Message,
        recipient: Address,
        residents: Mapping[str, Resident],
        now: datetime,
        places: Places,
        *,
        proven: bool,
    ) -> None:
        if recipient.domain not in self._domains:
            self._queue(message, recipient, recipient.domain, now, places)
            return
        resident = residents.get(recipient.name)
        if resident is None or not (proven or resident.state == "active"):
            raise AMTPError(
                Code.AGENT_UNKNOWN,
                f"No agent {recipient.name} is registered here.",
                {"recipient": recipient.written},
            )
        if message.headers.kind == HEARTBEAT:
            places.heartbeats += 1
            places.states.append(
                RecipientState(recipient.written, Status.DELIVERED, timestamp=now, delivered_at=now)
            )
            return
        if not proven:
            self._strangers.check_inbox(resident)
        if resident.pushed or _not_yet(message, now):
            self._queue(message, recipient, resident.name, now, places)
            return
        places.entries.append(Entry(resident.id, tagged(recipient.written, recipient.name)))
        places.states.append(
            RecipientState(recipient.written, Status.DELIVERED, timestamp=now, delivered_at=now, via=INBOX)
        )

    def _queue(
        self, message: Message, recipient: Address, destination: str, now: datetime, places: Places
    ) -> None:
        due = message.headers.deliver_after if _not_yet(message, now) else now
        assert due is not None
        immediate = is_immediate(message, self._domains)
        if immediate and not self._takes_at_once(destination):
            raise AMTPError(
                Code.RECIPIENT_UNAVAILABLE,
                f"{destination} can't be reached at the moment, and this message may not wait.",
                {"recipient": recipient.written},
            )
        horizon = max(due, now) + (_IMMEDIATE if immediate else self._horizon)
        expires = message.expires_at
        places.queued.append(
            Queued(
                recipient=recipient.name,
                address=recipient.written,
                destination=destination,
                due=due
                if due > now
                else now - timedelta(seconds=HEAD_START_SECONDS[message.headers.priority]),
                expires_at=min(expires, horizon) if expires else horizon,
                expiry=ONCE if immediate else "ttl" if expires and expires < horizon else "horizon",
            )
        )
        places.states.append(
            RecipientState(address=recipient.written, status=Status.QUEUED, timestamp=now, next_retry=due)
        )


def _not_yet(message: Message, now: datetime) -> bool:
    after = message.headers.deliver_after
    return after is not None and after > now
