"""Batching of small sends: answers to the requests of one commit, requests that start at once.

A send wakes the process that waits for it, which on a busy machine costs more than all other work for a small message.
Sent in one batch, one wake-up serves many.
"""

import asyncio

TOGETHER_BYTES_MAX = 16_384  # larger ones are sent alone, with backpressure
TOGETHER_MAX = 8  # so that the receiver starts early: else the two ends take turns


class Outbox:
    """Small sends, held until the end of this iteration of the event loop."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []

    def post(self, transport: asyncio.Transport, data: bytes) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        self._waiting.append((transport, data))
        if len(self._waiting) == TOGETHER_MAX:
            self.flush()

    def flush(self) -> None:
        """Sends what is held now; call it before a direct write, to keep the order."""
        waiting, self._waiting = self._waiting, []
        for transport, data in waiting:
            if not transport.is_closing():
                transport.write(data)
