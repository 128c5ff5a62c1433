"""The result of one of the doctor's checks."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """A checked thing and its state; a finding with a remedy is a problem."""

    name: str
    text: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        return not self.remedy
