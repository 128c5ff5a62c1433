"""Results of a DNS query. The resolver returns one of them, and callers match on it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Records:
    """At least one record: texts of a TXT answer, or addresses of a host."""

    values: tuple[str, ...]
    ttl_seconds: int


@dataclass(frozen=True, slots=True)
class Absent:
    """An authoritative answer that there is no record (no such name, or no such data)."""

    ttl_seconds: int


@dataclass(frozen=True, slots=True)
class DnsFailure:
    """A failed query: the name server failed, refused, timed out or sent nonsense."""

    reason: str
    told: str = ""  # the reason without the addresses of our name servers, where it has any


DnsAnswer = Records | Absent | DnsFailure
