"""The least rate at which bytes must come or go. Pure.

Time is earned by bytes and not renewed by them: whoever sends one byte now and then has no more time than whoever
sends nothing. Time that was earned and not needed is kept up to the grace, so a fast beginning pays for no long stop.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """A least rate, and how long a client may be behind it."""

    grace_seconds: float
    bytes_per_second_min: int

    def seconds_left(self, seconds: float, size: int) -> float:
        """Returns the time in hand after `size` more bytes, where so much was left before them."""
        return min(seconds + size / self.bytes_per_second_min, self.grace_seconds)
