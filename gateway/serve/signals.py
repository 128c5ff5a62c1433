"""Signals of a gateway process: stop, reload."""

import asyncio
import signal
from typing import Any

STOP = (signal.SIGTERM, signal.SIGINT)
HEARD = (*STOP, signal.SIGHUP)


class Signals:
    """The signal handlers, installed when it is made. Until `started`, a stop cancels the task that made it."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.reload = asyncio.Event()
        self.reason = ""  # of the stop
        self._starting: asyncio.Task[Any] | None = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in STOP:
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self.reload.set)

    def started(self) -> None:
        """Makes later stop signals shut down in order instead of cancelling the start."""
        self._starting = None

    def _stop(self, number: signal.Signals) -> None:
        self.reason = self.reason or number.name
        self.stop.set()
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
