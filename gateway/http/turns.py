"""Turns of the event loop: how long the work for large or many messages may hold it before everybody else is served."""

import asyncio
from collections import deque

TURN_SECONDS = 0.015  # of such work; with what comes on top, the loop comes round in 20 ms
REST_SECONDS = 0.002  # for everybody else, before the next turn of such work
# What work is expected to take: the worst of it, and never more than a turn.
SECONDS_PER_BYTE = 5e-8
SECONDS_PER_RECIPIENT = 1e-5


class Turns:
    """Time to work in each turn of the loop; who finds none left waits for a later one, in order."""

    __slots__ = ("_left", "_waiting")

    def __init__(self) -> None:
        self._left = TURN_SECONDS
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()

    def take(self, expected: float) -> bool:
        """Whether this turn has room for work that is expected to take so many seconds, which are then taken."""
        if self._waiting or (expected > self._left and self._left < TURN_SECONDS):
            return False
        self.spend(expected)
        return True

    async def wait(self, expected: float) -> None:
        """Waits until a turn has room, where this one has not."""
        room = asyncio.get_running_loop().create_future()
        self._waiting.append((expected, room))
        await room

    async def have(self, expected: float) -> None:
        """Takes room, in this turn or the first that has it."""
        if not self.take(expected):
            await self.wait(expected)

    def spend(self, seconds: float) -> None:
        """Counts time of this turn that was not expected."""
        if self._left == TURN_SECONDS:
            asyncio.get_running_loop().call_soon(self._renew)
        self._left -= seconds

    def _renew(self) -> None:
        """Begins a new turn. Those who wait let everybody else come first."""
        self._left = TURN_SECONDS
        if self._waiting:
            asyncio.get_running_loop().call_later(REST_SECONDS, self._admit)

    def _admit(self) -> None:
        while self._waiting:
            expected, room = self._waiting[0]
            if expected > self._left and self._left < TURN_SECONDS:
                break
            self._waiting.popleft()
            if not room.done():  # else whoever waited is gone
                self.spend(expected)
                room.set_result(None)
