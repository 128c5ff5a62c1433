"""The heartbeat of a worker's event loop: one byte a second on a pipe to the supervisor.

The loop itself writes it, not a thread, so a loop that hangs sends none.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable

from gateway.journal.journal import Journal

BEAT_SECONDS = 1.0
START_SECONDS_MAX = 300.0  # until the first beat: Python starts before, maybe in many workers at once
READ_BYTES = 4096
READY, BEAT = b"r", b"."


class Heartbeat:
    """The worker's side of a heartbeat."""

    def __init__(self, descriptor: int, journal: Journal) -> None:
        os.set_blocking(descriptor, False)  # a supervisor that is stopped doesn't stop its workers
        self._descriptor = descriptor
        self._journal = journal

    async def run(self) -> None:
        """Sends a heartbeat each second until cancelled."""
        while True:
            self._journal.beat()
            self._write(BEAT)
            await asyncio.sleep(BEAT_SECONDS)

    def ready(self) -> None:
        """Tells the supervisor that the worker is listening."""
        self._write(READY)

    def _write(self, word: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(self._descriptor, word)


class Pulse:
    """The supervisor's side of one worker's heartbeat, for as long as the block lasts."""

    def __init__(self, descriptor: int, ready: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._ready = ready
        self._silent_seconds = 0.0
        self._patience_seconds = START_SECONDS_MAX

    def __enter__(self) -> "Pulse":
        asyncio.get_running_loop().add_reader(self._descriptor, self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)

    async def stopped(self, seconds_max: float) -> float:
        """Waits until the worker has been silent for too long; returns the seconds.

        Silence is counted in our own beats, so a supervisor that was itself stopped does not blame its workers.
        """
        while self._silent_seconds < max(seconds_max, self._patience_seconds):
            await asyncio.sleep(BEAT_SECONDS)
            self._silent_seconds += BEAT_SECONDS
        return self._silent_seconds

    def _heard(self) -> None:
        words = os.read(self._descriptor, READ_BYTES)
        if not words:  # the worker has ended, which is handled elsewhere
            asyncio.get_running_loop().remove_reader(self._descriptor)
            return
        self._silent_seconds = self._patience_seconds = 0.0
        if READY in words:
            self._ready()
