"""The retry schedule: 1 s, doubled each time, capped at an hour, with a quarter of jitter either way."""

FIRST_SECONDS = 1.0
CAP_SECONDS = 3600.0
SPREAD = 0.25
ATTEMPTS_MAX = 168


def delay_seconds(attempts: int, draw: float, retry_after_seconds: float | None = None) -> float:
    """Returns the seconds from the end of attempt number `attempts` to the next; `draw` is random in [0, 1).

    A peer's Retry-After is honoured up to the cap, and never shortens our own delay.
    """
    own = min(FIRST_SECONDS * 2.0 ** min(attempts - 1, 32), CAP_SECONDS)
    asked = min(retry_after_seconds or 0.0, CAP_SECONDS)
    return max(own * (1 - SPREAD + 2 * SPREAD * draw), asked)
