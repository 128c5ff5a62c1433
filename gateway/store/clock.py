"""The time of day, from one place, so that a test can turn it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(slots=True)
class Clock:
    offset: timedelta = timedelta(0)  # tests turn it; in production it stays nought

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset
