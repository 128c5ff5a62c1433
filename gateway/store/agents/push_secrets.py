"""The secrets of one agent's webhook, as they are sealed: one a line, the one in force first.

A line may hold, behind the secret, the second of the epoch at which it ends. So a replaced secret still signs beside
the new one until the agent has had time to switch.
"""

from datetime import UTC, datetime
from hmac import compare_digest

LIVE_MAX = 2  # the one in force and the one before it


def live_secrets(text: str, now: datetime) -> list[str]:
    """Returns the secrets to sign with at `now`."""
    lines = (line.split() for line in text.splitlines() if line)
    return [secret for secret, *end in lines if not end or now < datetime.fromtimestamp(int(end[0]), UTC)]


def replace_secret(text: str, fresh: str, ends: datetime, now: datetime) -> str:
    """Returns the lines with a new secret in force; the one it replaces stays valid until `ends`."""
    others = (old for old in live_secrets(text, now) if not compare_digest(old.encode(), fresh.encode()))
    before = [f"{old} {int(ends.timestamp())}" for old in others]
    return "\n".join([fresh, *before[: LIVE_MAX - 1]] if ends > now else [fresh])
