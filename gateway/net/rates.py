"""How often each of many callers may do a thing, in this process."""

from collections.abc import Callable
from math import ceil
from time import monotonic

from gateway.protocol.errors import AMTPError, Code

MINUTE_SECONDS = 60.0
CALLERS_MAX = 10_000  # told apart; beyond them, those are forgotten who may have done it least lately


class Rates:
    """A number of times a minute for each caller. All of a minute's worth may come at once."""

    def __init__(
        self, what: str, per_minute: Callable[[], int], seconds: Callable[[], float] = monotonic
    ) -> None:
        """`what` names the thing in answers, in the plural: "look-ups of other domains"."""
        self._what = what
        self._per_minute = per_minute
        self._seconds = seconds
        self._left: dict[str, tuple[float, float]] = {}  # how many more times, as of when

    def take(self, caller: str) -> None:
        """Counts once more for this caller; RATE_LIMIT_EXCEEDED where that is too often."""
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
