"""The directory: which gateway takes messages for a domain, from configuration, cache, DNS and memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from gateway.clock import Clock
from gateway.protocol.discovery import Capabilities, Speaks
from gateway.protocol.dns_answer import DnsAnswer
from gateway.route.cache import ENTRIES_MAX, Cache, Kept
from gateway.route.decide import Decision, HostDecision, HostMemory, Lookup, Memory, decide, decide_host


class Memories(Protocol):
    """Where memories outlive the process; the store keeps them in a table."""

    async def recall(self, domain: str) -> Memory | None: ...

    async def remember(self, memory: Memory) -> None: ...

    async def recall_host(self, host: str) -> HostMemory | None: ...

    async def remember_host(self, memory: HostMemory) -> None: ...


class Questions(Protocol):
    """Who asks the DNS."""

    async def texts(self, name: str) -> DnsAnswer: ...

    async def addresses(self, host: str) -> DnsAnswer: ...


@dataclass(frozen=True, slots=True)
class Known:
    """What the directory holds on a domain, for people who ask why."""

    result: Lookup
    asked_at: datetime | None  # None: by configuration
    good_until: datetime | None
    stale: bool = False


class Directory:
    def __init__(
        self,
        dns: Questions,
        clock: Clock,
        memories: Memories,
        *,
        peers: Mapping[str, Capabilities] | None = None,
        plain_domains: frozenset[str] = frozenset(),
        entries_max: int = ENTRIES_MAX,
    ) -> None:
        """`peers` are configured and never asked for; `plain_domains` may be reached without TLS."""
        self._dns = dns
        self._clock = clock
        self._memories = memories
        self.adopt(peers or {}, plain_domains)
        self._domains = Cache(self._ask_domain, clock, entries_max)
        self._hosts = Cache(self._ask_host, clock, entries_max)

    def adopt(self, peers: Mapping[str, Capabilities], plain_domains: frozenset[str]) -> None:
        self._peers, self._plain_domains = dict(peers), plain_domains

    async def lookup(self, domain: str) -> Lookup:
        peer = self._peers.get(domain)
        return Speaks(peer) if peer is not None else (await self._domains.get(domain)).result

    async def resolve_host(self, host: str) -> DnsAnswer:
        """Every address of a host, IPv4 first."""
        return (await self._hosts.get(host)).answer

    def known(self, domain: str) -> Known | None:
        """What is held now, without asking."""
        peer = self._peers.get(domain)
        if peer is not None:
            return Known(Speaks(peer), None, None)
        kept = self._domains.peek(domain)
        if kept is None:
            return None
        return Known(kept.value.result, kept.asked_at, kept.good_until, kept.value.stale)

    async def ask_again(self, domain: str) -> Lookup:
        """As `lookup`, without the cache: for a probe."""
        self._domains.expire(domain)
        return await self.lookup(domain)

    async def close(self) -> None:
        await self._domains.close()
        await self._hosts.close()

    async def _ask_domain(self, domain: str) -> Kept[Decision]:
        last = self._domains.peek(domain)
        memory = last.value.memory if last else None
        if memory is None:
            memory = await self._memories.recall(domain)
        answer = await self._dns.texts(f"_amtp.{domain}")
        now = self._clock.now()
        decision = decide(domain, answer, memory, now, plain=domain in self._plain_domains)
        if decision.write and decision.memory is not None:
            await self._memories.remember(decision.memory)
        return Kept(decision, now, now + timedelta(seconds=decision.kept_seconds))

    async def _ask_host(self, host: str) -> Kept[HostDecision]:
        last = self._hosts.peek(host)
        memory = last.value.memory if last else None
        if memory is None:
            memory = await self._memories.recall_host(host)
        answer = await self._dns.addresses(host)
        now = self._clock.now()
        decision = decide_host(host, answer, memory, now)
        if decision.write and decision.memory is not None:
            await self._memories.remember_host(decision.memory)
        return Kept(decision, now, now + timedelta(seconds=decision.kept_seconds))
