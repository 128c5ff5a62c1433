"""What leaves together: answers to a commit's requests, requests that start at once.

A send wakes whoever waits for it, which on a busy machine costs more than all else about a small message. Sent
in one go, one waking serves many.
"""

import asyncio

TOGETHER_BYTES_MAX = 16_384  # what is larger goes by itself, and waits until it is taken
TOGETHER_MAX = 8  # then whoever waits for these begins: else the two ends work by turns


class Outbox:
    """Holds small sends until what runs now has run."""

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
        """Sends what waits, before the loop would; nothing may overtake it."""
        waiting, self._waiting = self._waiting, []
        for transport, data in waiting:
            if not transport.is_closing():
                transport.write(data)
