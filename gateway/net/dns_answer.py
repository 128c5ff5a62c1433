"""What a question to the DNS can come to. The keeper of the DNS makes these; who asked matches on them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Records:
    """At least one record: texts of a TXT answer, or addresses of a host."""

    values: tuple[str, ...]
    ttl_seconds: int


@dataclass(frozen=True, slots=True)
class Absent:
    """The DNS says with authority that there is none (no such name, or no such data)."""

    ttl_seconds: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """Nobody could tell: a failing, refusing, silent or unintelligible name server."""

    reason: str
    told: str = ""  # the reason without the addresses of our name servers, where it has any


DnsAnswer = Records | Absent | Trouble
