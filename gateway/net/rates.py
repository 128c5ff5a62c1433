"""Rate limits for each of many callers, in this process."""

from collections.abc import Callable
from math import ceil
from time import monotonic

from gateway.protocol.errors import AMTPError, Code

MINUTE_SECONDS = 60.0
CALLERS_MAX = 10_000  # remembered; beyond them, the least recent is forgotten


class Rates:
    """A rate limit for each caller: a number of times a minute, all of which may come at once."""

    def __init__(
        self, what: str, per_minute: Callable[[], int], seconds: Callable[[], float] = monotonic
    ) -> None:
        """`what` names the thing in answers, in the plural: "look-ups of other domains"."""
        self._what = what
        self._per_minute = per_minute
        self._seconds = seconds
        self._left: dict[str, tuple[float, float]] = {}  # how many are left, and when that was counted

    def take(self, caller: str) -> None:
        """Counts one use by this caller; raises RATE_LIMIT_EXCEEDED over the limit."""
        now, most = self._seconds(), self._per_minute()
        left, at = self._left.pop(caller, (float(most), now))
        left = min(most, left + (now - at) * most / MINUTE_SECONDS)
        allowed = left >= 1
        self._left[caller] = (left - allowed, now)
        if len(self._left) > CALLERS_MAX:
            del self._left[next(iter(self._left))]
        if not allowed:
            raise AMTPError(
                Code.RATE_LIMIT_EXCEEDED,
                f"{most} {self._what} a minute are the most for one caller; wait a little.",
                {"limit": most},
                retry_after=ceil((1 - left) * MINUTE_SECONDS / most),
            )
