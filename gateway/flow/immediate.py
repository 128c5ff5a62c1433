"""The immediate path: one attempt for each recipient, made before the answer, which contains the outcome.

Such a message is committed, carried and settled like any other, except that its deliveries are leased to this process
at once and have no second attempt; so a repetition finds it, its status shows it, and the tally balances. Only the way
the sender is told differs. While a request waits here, its answer tells; where none waits any more, because the process
died or the client hung up, a failure is reported like any other.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

from gateway.route.placing import IMMEDIATE_SECONDS, ONCE
from gateway.store.admitted import Admitted
from gateway.store.queue.deliveries import Delivery
from gateway.store.wakeups.bell import Ear, hushed_at


@dataclass(slots=True)
class _Hope:
    """A message whose sender waits, and how many of its deliveries are under way."""

    left: int
    until: float  # on the loop's clock
    ear: Ear
    deciding: int = 0  # parcels whose verdicts are found and not yet written, which only the answer will tell
    decided: asyncio.Event = field(default_factory=asyncio.Event)


class Immediate:
    """The requests that wait for the outcome of their messages."""

    def __init__(self) -> None:
        self._hopes: dict[UUID, _Hope] = {}

    def expect(self, admitted: Admitted) -> None:
        """Lets the answer tell this message's outcome from now on, until an answer's timeout."""
        left = sum(queued.expiry == ONCE for queued in admitted.deliveries)
        if left:
            loop = asyncio.get_running_loop()
            row = admitted.message.row
            self._hopes[row] = _Hope(left, loop.time() + IMMEDIATE_SECONDS, Ear())
            loop.call_later(IMMEDIATE_SECONDS, self._hopes.pop, row, None)

    @contextmanager
    def deciding(self, deliveries: Iterable[Delivery]) -> Iterator[Collection[UUID]]:
        """Yields those of the messages whose senders wait here; none stops waiting before the block ends."""
        counts = Counter(d.message for d in deliveries if d.expiry == ONCE and d.message in self._hopes)
        hopes = [(self._hopes[row], count) for row, count in counts.items()]
        for hope, _ in hopes:
            hope.deciding += 1
        try:
            yield counts.keys()
        finally:
            for hope, count in hopes:
                hope.deciding -= 1
                hope.left -= count
                hope.decided.set()
                if hope.left <= 0:
                    hope.ear.ring()

    async def over(self, row: UUID | None, ending: asyncio.Event) -> None:
        """Returns when all its deliveries are settled, at the timeout, or at `ending`; never amid a verdict."""
        hope = None if row is None else self._hopes.get(row)
        if row is None or hope is None:
            return
        try:
            with hushed_at(ending, hope.ear):
                await hope.ear.rung(hope.until - asyncio.get_running_loop().time())
            while hope.deciding:
                hope.decided.clear()
                await hope.decided.wait()
        finally:
            self._hopes.pop(row, None)
