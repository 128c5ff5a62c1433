"""Rate limit for log lines that strangers can cause: one a minute for each thing, with the number left out."""

from collections.abc import Callable
from time import monotonic

MINUTE_SECONDS = 60.0
KNOWN_MAX = 1000  # things told apart in one minute; beyond them all share one line


class Seldom:
    """A rate limit: one line a minute for events of the same kind."""

    def __init__(self, seconds: Callable[[], float] = monotonic) -> None:
        self._seconds = seconds
        self._told: dict[str, tuple[float, int]] = {}  # when it was told last, and how often it was not since

    def due(self, thing: str) -> int | None:
        """Returns how many went untold since the last line about this thing, or None while it is too soon."""
        now = self._seconds()
        if thing not in self._told and len(self._told) >= KNOWN_MAX:
            self._forget(now)
            thing = thing if len(self._told) < KNOWN_MAX else ""
        told_at, untold = self._told.get(thing, (-MINUTE_SECONDS, 0))
        if now - told_at < MINUTE_SECONDS:
            self._told[thing] = (told_at, untold + 1)
            return None
        self._told[thing] = (now, 0)
        return untold

    def untold(self) -> dict[str, int]:
        """Returns how often each thing went untold, and begins anew."""
        told, self._told = self._told, {}
        return {thing: count for thing, (_, count) in told.items() if count}

    def _forget(self, now: float) -> None:
        """Forgets things last logged more than a minute ago, if none was left out since."""
        self._told = {
            thing: told for thing, told in self._told.items() if now - told[0] < MINUTE_SECONDS or told[1]
        }
