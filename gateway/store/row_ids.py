"""Row ids, UUIDv7 on the gateway's clock: time-ordered, and strictly rising within a process."""

from os import urandom
from random import getrandbits
from uuid import UUID

from gateway.protocol.identifiers import uuid7
from gateway.store.clock import Clock

_RANDOM_BITS = 74
_RANDOM_MASK = (1 << _RANDOM_BITS) - 1


class Mint:
    """The source of row ids. Within a millisecond they count up from a random start: inboxes keep the order of arrival."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._millisecond = 0
        self._random = 0

    def __call__(self) -> UUID:
        millisecond = int(self._clock.now().timestamp() * 1000)
        if millisecond > self._millisecond:
            self._millisecond = millisecond
            self._random = int.from_bytes(urandom(10), "big") & (_RANDOM_MASK >> 1)
        else:
            self._random += 1 + getrandbits(8)
        return uuid7(self._millisecond, self._random)
