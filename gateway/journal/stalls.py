"""The longest stall of the event loop: how long something blocked it, and all else waited."""

import asyncio

from gateway.journal.journal import Journal

LOOK_SECONDS = 0.05  # shorter stalls may be missed, and don't matter
WINDOW_SECONDS = 60.0  # a stall is shown until the window after its own ends, so no scrape misses it
TOLD_SECONDS = 1.0  # a stall this long is logged


class Stalls:
    """A measurement of how late the loop wakes it; shows the longest delay of this window and the one before."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._window_ends = 0.0
        self._before = self._longest = 0.0

    async def run(self) -> None:
        """Measures until cancelled."""
        time = asyncio.get_running_loop().time
        while True:
            due = time() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            self.saw(due, time())

    def saw(self, due: float, came: float) -> None:
        """Notes that the loop came back at `came`, though it was due at `due`."""
        stall = max(came - due, 0.0)
        if came >= self._window_ends:
            self._window_ends = came + WINDOW_SECONDS
            self._before, self._longest = self._longest, stall
        elif stall > self._longest:
            self._longest = stall
        else:
            return
        self._journal.loop_held(max(self._before, self._longest))
        if stall >= TOLD_SECONDS:
            self._journal.loop_stalled(stall)
