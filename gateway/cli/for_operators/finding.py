"""What the doctor says of one thing it looked at."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at and seen; with a remedy it is a problem."""

    name: str
    text: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        return not self.remedy
