"""The seam for followers of messages: each interest adds rows to the transaction in which something happens.

Notifications are one such interest. While nobody listens, telling costs nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from gateway.protocol.message import Message
from gateway.protocol.status import RecipientState
from gateway.report.naming import Named
from gateway.store.admitted import Admitted, Rider
from gateway.store.inbox.acknowledge import Acknowledgement
from gateway.store.inbox.acknowledge import Named as Acknowledged
from gateway.store.inbox.inbox import Item
from gateway.store.inbox.poison import Buried
from gateway.store.intake.duplicates import Gained
from gateway.store.queue.delays import Late
from gateway.store.queue.deliveries import Letter
from gateway.store.queue.settle import Settlement


class Interest(Protocol):
    """Follows messages. Every method returns rows to be written with what happened."""

    @property
    def idle(self) -> bool:
        """Whether nobody listens now, so that nothing need be told."""

    def accepted(self, message: Message, states: Sequence[RecipientState]) -> Iterable[Rider]:
        """A message came in; `states` stand in the order of its recipients."""

    def joined(self, admitted: Admitted, states: Sequence[RecipientState], gained: Gained) -> Iterable[Rider]:
        """A repetition added recipients. Entries stand in the order of those states that are delivered."""

    def settled(self, settlement: Settlement, letter: Letter) -> Iterable[Rider]:
        """A delivery was tried; it ended, or will be tried again."""

    def delayed(self, letter: Letter, late: Sequence[Late]) -> Iterable[Rider]:
        """Recipients of a message have waited too long."""

    def cancelled(self, message: Named, recipients: Sequence[str]) -> Iterable[Rider]:
        """A sender or an operator ended deliveries."""

    def read(self, recipient: str, items: Sequence[Item]) -> Iterable[Rider]:
        """Entries were handed out, some of them for the first time."""

    def acknowledged(
        self, recipient: str, names: Sequence[Acknowledged], results: Sequence[Acknowledgement]
    ) -> Iterable[Rider]:
        """An agent is done with entries."""

    def undigested(self, buried: Sequence[Buried]) -> Iterable[Rider]:
        """Entries became dead letters, for their agents took them time and again."""

    def unavailable(self, agent: str, reason: str) -> Iterable[Rider]:
        """An agent's push target failed so often that it gets a rest."""


class Interests:
    """All interests of a gateway, told as one."""

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
