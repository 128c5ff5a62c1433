"""The decision on a domain, from the DNS answer and what is remembered of the domain. Pure.

| answer | remembered | result | kept for |
|---|---|---|---|
| record in order | - | Speaks | its TTL, 1 s … 1 day |
| record says v=amtp1 but is broken | - | Broken | its TTL, at most 5 min |
| none | nothing, or spoke over 30 days ago | Silent | the SOA's word, at most 5 min |
| none | spoke within 30 days | Temporary for 24 h, then Silent | the same |
| trouble | spoke within 7 days and was not silent since | Speaks, stale | 1 min |
| trouble | else | Temporary | 5 s |

The addresses of a host are what the DNS says, kept for a minute at most; in trouble, what it said within 7 days,
for a minute as well.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from gateway.net.dns_answer import Absent, DnsAnswer, DnsFailure, Records
from gateway.protocol.discovery import Broken, Silent, Speaks, choose, parse_record, render_record

KEPT_SECONDS_MIN: Final = 1  # TTL 0 would mean a query per message
KEPT_SECONDS_MAX: Final = 86_400  # a wrong record of a month is a month of trouble
NEGATIVE_SECONDS_MAX: Final = 300  # a domain that starts to speak is heard within five minutes
TROUBLE_SECONDS: Final = 5  # a failing name server is not asked for every message
STALE_SECONDS: Final = 60  # what serves meanwhile need not be looked up so often
HOST_SECONDS_MAX: Final = 60  # a host that moves is followed within a minute, whatever its TTL says
STALE_DAYS_MAX: Final = 7  # as long as a message is retried
DOWNGRADE_DAYS: Final = 30  # who spoke this recently is not believed to have stopped …
DOWNGRADE_SILENCE_HOURS: Final = 24  # … before it was silent for so long
MEMORY_REFRESH_HOURS: Final = 1  # how old `spoke_at` grows before it is written again


@dataclass(frozen=True, slots=True)
class Temporary:
    """A look-up without a result for now; to be repeated later."""

    reason: str
    gone: bool = False  # the DNS says that there is no record, which is not believed at once
    outside: str = ""  # the reason without the addresses of our name servers, where it has any

    def told(self, domain: str, *, operator: bool = False) -> str:
        """Returns what happened; only operators are told which name server said so."""
        if self.gone:
            return f"{domain} has no AMTP record any more: it {self.reason}."
        return (
            f"The DNS look-up of {domain} failed: {self.reason if operator else self.outside or self.reason}."
        )


Lookup = Speaks | Silent | Broken | Temporary


@dataclass(frozen=True, slots=True)
class Memory:
    """The last record of a domain that spoke AMTP, kept across restarts."""

    domain: str
    record: str  # the last good record
    spoke_at: datetime
    silent_since: datetime | None = None  # first time it was found to have no record since


@dataclass(frozen=True, slots=True)
class Decision:
    result: Lookup
    kept_seconds: int
    memory: Memory | None  # as it is now; to be written where `write` says so
    write: bool = False
    stale: bool = False


@dataclass(frozen=True, slots=True)
class HostMemory:
    """The last known addresses of a host, and when they were looked up."""

    host: str
    addresses: tuple[str, ...]
    told_at: datetime


@dataclass(frozen=True, slots=True)
class HostDecision:
    """The addresses of a host, or why there are none."""

    answer: DnsAnswer
    kept_seconds: int
    memory: HostMemory | None = None  # as it is now; to be written where `write` says so
    write: bool = False
    stale: bool = False


def decide(
    domain: str, answer: DnsAnswer, memory: Memory | None, now: datetime, *, plain: bool = False
) -> Decision:
    match answer:
        case DnsFailure() as trouble:
            return _in_trouble(trouble, memory, now, plain=plain)
        case Absent(ttl_seconds):
            return _silent(_clamp(ttl_seconds, NEGATIVE_SECONDS_MAX), memory, now)
        case Records(values, ttl_seconds):
            match choose(values, plain=plain):
                case Speaks() as speaks:
                    return _speaks(domain, speaks, _clamp(ttl_seconds, KEPT_SECONDS_MAX), memory, now)
                case Broken() as broken:
                    return Decision(broken, _clamp(ttl_seconds, NEGATIVE_SECONDS_MAX), memory)
                case Silent():
                    return _silent(_clamp(ttl_seconds, NEGATIVE_SECONDS_MAX), memory, now)


def decide_host(host: str, answer: DnsAnswer, memory: HostMemory | None, now: datetime) -> HostDecision:
    """Returns the decision on a host's addresses.

    They are remembered too, because a domain's record that outlives a DNS outage is useless without its host's addresses.
    """
    match answer:
        case Records(values, ttl_seconds):
            told = HostMemory(host, values, now)
            write = memory is None or memory.addresses != values or _worn(memory.told_at, now)
            return HostDecision(answer, _clamp(ttl_seconds, HOST_SECONDS_MAX), told, write)
        case Absent(ttl_seconds):
            gone = HostMemory(host, (), now)
            write = memory is not None and memory.addresses != ()
            return HostDecision(answer, _clamp(ttl_seconds, HOST_SECONDS_MAX), gone, write)
        case DnsFailure():
            if (
                memory is None
                or not memory.addresses
                or now - memory.told_at > timedelta(days=STALE_DAYS_MAX)
            ):
                return HostDecision(answer, TROUBLE_SECONDS, memory)
            return HostDecision(Records(memory.addresses, STALE_SECONDS), STALE_SECONDS, memory, stale=True)


def _worn(at: datetime, now: datetime) -> bool:
    """Returns whether it is old enough to be written again."""
    return abs(now - at) >= timedelta(hours=MEMORY_REFRESH_HOURS)


def _clamp(ttl_seconds: int, seconds_max: int) -> int:
    return max(KEPT_SECONDS_MIN, min(ttl_seconds, seconds_max))


def _speaks(domain: str, speaks: Speaks, kept_seconds: int, memory: Memory | None, now: datetime) -> Decision:
    heard = Memory(domain, render_record(speaks.capabilities), now)
    write = (
        memory is None or replace(heard, spoke_at=memory.spoke_at) != memory or _worn(memory.spoke_at, now)
    )
    return Decision(speaks, kept_seconds, heard, write)


def _silent(kept_seconds: int, memory: Memory | None, now: datetime) -> Decision:
    if memory is None or now - memory.spoke_at > timedelta(days=DOWNGRADE_DAYS):
        return Decision(Silent(), kept_seconds, memory)
    since = memory.silent_since or now
    known = replace(memory, silent_since=since)
    believed_at = since + timedelta(hours=DOWNGRADE_SILENCE_HOURS)
    if now >= believed_at:
        return Decision(Silent(), kept_seconds, known)
    reason = (
        f"spoke AMTP until {memory.spoke_at:%Y-%m-%d %H:%M} UTC, and counts as gone "
        f"from {believed_at:%Y-%m-%d %H:%M} UTC on"
    )
    return Decision(Temporary(reason, gone=True), kept_seconds, known, write=known != memory)


def _in_trouble(trouble: DnsFailure, memory: Memory | None, now: datetime, *, plain: bool) -> Decision:
    temporary = Temporary(trouble.reason, outside=trouble.told)
    if memory is None or memory.silent_since or now - memory.spoke_at > timedelta(days=STALE_DAYS_MAX):
        return Decision(temporary, TROUBLE_SECONDS, memory)
    last = parse_record(memory.record, plain=plain)
    if isinstance(last, Broken):  # configuration no longer allows what was written
        return Decision(temporary, TROUBLE_SECONDS, memory)
    warning = f"stale, last confirmed {memory.spoke_at:%Y-%m-%d %H:%M} UTC: {trouble.told or trouble.reason}"
    return Decision(Speaks(last.capabilities, (warning,)), STALE_SECONDS, memory, stale=True)
