"""The seam for followers of messages: each interest adds rows to the transaction in which something happens.

Notifications are one such interest. While it is idle, nothing is built.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from gateway.protocol.message import Message
from gateway.protocol.status import RecipientState
from gateway.report.naming import Named
from gateway.store.admitted import Admitted, Rider
from gateway.store.inbox.acknowledge import Acknowledgement
from gateway.store.inbox.acknowledge import EntryName as Acknowledged
from gateway.store.inbox.inbox import Item
from gateway.store.inbox.poison import Buried
from gateway.store.intake.duplicates import Gained
from gateway.store.queue.delays import Late
from gateway.store.queue.deliveries import Letter
from gateway.store.queue.settle import Settlement


class Interest(Protocol):
    """A follower of messages. Every method returns rows to be written with what happened."""

    @property
    def idle(self) -> bool:
        """Returns whether nobody listens now, so that no rows need be built."""

    def accepted(self, message: Message, states: Sequence[RecipientState]) -> Iterable[Rider]:
        """Follows an accepted message; `states` are in the order of its recipients."""

    def joined(self, admitted: Admitted, states: Sequence[RecipientState], gained: Gained) -> Iterable[Rider]:
        """Follows recipients added by a repetition. Entries are in the order of those states that are delivered."""

    def settled(self, settlement: Settlement, letter: Letter) -> Iterable[Rider]:
        """Follows an attempt: the delivery ended, or will be retried."""

    def delayed(self, letter: Letter, late: Sequence[Late]) -> Iterable[Rider]:
        """Follows recipients of a message that have waited too long."""

    def cancelled(self, message: Named, recipients: Sequence[str]) -> Iterable[Rider]:
        """Follows deliveries cancelled by a sender or an operator."""

    def read(self, recipient: str, items: Sequence[Item]) -> Iterable[Rider]:
        """Follows entries that are handed out, some of them for the first time."""

    def acknowledged(
        self, recipient: str, names: Sequence[Acknowledged], results: Sequence[Acknowledgement]
    ) -> Iterable[Rider]:
        """Follows entries that an agent acknowledged."""

    def undigested(self, buried: Sequence[Buried]) -> Iterable[Rider]:
        """Follows entries that became dead letters because their agents never acknowledged them."""

    def unavailable(self, agent: str, reason: str) -> Iterable[Rider]:
        """Follows an agent whose webhook failed so often that its breaker opened."""


class Interests:
    """The interests of a gateway, called as one."""

    def __init__(self, interests: Sequence[Interest]) -> None:
        self._interests = tuple(interests)

    @property
    def idle(self) -> bool:
        return all(interest.idle for interest in self._interests)

    def accepted(self, message: Message, states: Sequence[RecipientState]) -> tuple[Rider, ...]:
        return self._told(lambda interest: interest.accepted(message, states))

    def joined(
        self, admitted: Admitted, states: Sequence[RecipientState], gained: Gained
    ) -> tuple[Rider, ...]:
        return self._told(lambda interest: interest.joined(admitted, states, gained))

    def settled(self, settlement: Settlement, letter: Letter) -> tuple[Rider, ...]:
        return self._told(lambda interest: interest.settled(settlement, letter))

    def delayed(self, letter: Letter, late: Sequence[Late]) -> tuple[Rider, ...]:
        return self._told(lambda interest: interest.delayed(letter, late))

    def cancelled(self, message: Named, recipients: Sequence[str]) -> tuple[Rider, ...]:
        return self._told(lambda interest: interest.cancelled(message, recipients))

    def read(self, recipient: str, items: Sequence[Item]) -> tuple[Rider, ...]:
        return self._told(lambda interest: interest.read(recipient, items))

    def acknowledged(
        self, recipient: str, names: Sequence[Acknowledged], results: Sequence[Acknowledgement]
    ) -> tuple[Rider, ...]:
        return self._told(lambda interest: interest.acknowledged(recipient, names, results))

    def undigested(self, buried: Sequence[Buried]) -> tuple[Rider, ...]:
        return self._told(lambda interest: interest.undigested(buried))

    def unavailable(self, agent: str, reason: str) -> tuple[Rider, ...]:
        return self._told(lambda interest: interest.unavailable(agent, reason))

    def _told(self, tell: Callable[[Interest], Iterable[Rider]]) -> tuple[Rider, ...]:
        riders: tuple[Rider, ...] = ()
        for interest in self._interests:
            if not interest.idle:
                riders += tuple(tell(interest))
        return riders
