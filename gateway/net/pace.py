"""The least rate at which bytes must come or go. Pure.

Each byte extends the time by its share of the rate and does not restart it: a client that sends one byte now and then
has hardly more time than one that sends nothing. Unused time is kept up to the grace only, so a fast start does not
allow a long stop.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """A least rate, and how long a client may be behind it."""

    grace_seconds: float
    bytes_per_second_min: int

    def seconds_left(self, seconds: float, size: int) -> float:
        """Returns the seconds left after `size` more bytes; `seconds` were left before."""
        return min(seconds + size / self.bytes_per_second_min, self.grace_seconds)
