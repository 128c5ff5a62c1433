"""Turns of the event loop: a limit on how long work for large or many messages may block it."""

import asyncio
from collections import deque

TURN_SECONDS = 0.015  # of such work; with other work, an iteration of the loop takes 20 ms
REST_SECONDS = 0.002  # for other work, before the next turn
# The expected cost of work: its worst case, and at most one turn.
SECONDS_PER_BYTE = 5e-8
SECONDS_PER_RECIPIENT = 1e-5


class Turns:
    """The time budget of each turn; work that finds none left waits for a later turn, first come first served."""

    __slots__ = ("_left", "_waiting")

    def __init__(self) -> None:
        self._left = TURN_SECONDS
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()

    def take(self, expected: float) -> bool:
        """Takes this many seconds from the budget of this turn; returns False if they don't fit."""
        if self._waiting or (expected > self._left and self._left < TURN_SECONDS):
            return False
        self.spend(expected)
        return True

    async def wait(self, expected: float) -> None:
        """Waits for a later turn that has room, and takes it."""
        room = asyncio.get_running_loop().create_future()
        self._waiting.append((expected, room))
        await room

    async def have(self, expected: float) -> None:
        """Takes room in this turn, or waits for one that has it."""
        if not self.take(expected):
            await self.wait(expected)

    def spend(self, seconds: float) -> None:
        """Takes seconds from this turn without asking for room."""
        if self._left == TURN_SECONDS:
            asyncio.get_running_loop().call_soon(self._renew)
        self._left -= seconds

    def _renew(self) -> None:
        """Begins a new turn; waiting work starts after a rest, so that other work comes first."""
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
