"""The directory: which gateway takes messages for a domain, from configuration, cache, DNS and memory."""

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, TypeVar

from gateway.net.dns_answer import DnsAnswer, DnsFailure
from gateway.protocol.discovery import Capabilities, Speaks
from gateway.route.cache import ENTRIES_MAX, Cache, Kept
from gateway.route.decide import Decision, HostDecision, HostMemory, Lookup, Memory, decide, decide_host
from gateway.route.outage import Outage
from gateway.store.clock import Clock

PATIENCE_SECONDS: Final = 1.0  # with the DNS, where something is remembered that can serve instead
SLOW: Final = DnsFailure("no answer yet")

Decided = TypeVar("Decided", Decision, HostDecision)


class Memories(Protocol):
    """A store of memories that outlive the process; in production a table."""

    async def recall(self, domain: str) -> Memory | None: ...

    async def remember(self, memory: Memory) -> None: ...

    async def recall_host(self, host: str) -> HostMemory | None: ...

    async def remember_host(self, memory: HostMemory) -> None: ...


class Questions(Protocol):
    """A client of the DNS."""

    async def texts(self, name: str) -> DnsAnswer: ...

    async def addresses(self, host: str) -> DnsAnswer: ...


@dataclass(frozen=True, slots=True)
class Known:
    """A domain's cached result, as operators are shown it."""

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
        outage: Outage,
        *,
        peers: Mapping[str, Capabilities] | None = None,
        plain_domains: frozenset[str] = frozenset(),
        entries_max: int = ENTRIES_MAX,
    ) -> None:
        """Takes its collaborators; `peers` are configured and never looked up, `plain_domains` need no TLS."""
        self._dns = dns
        self._clock = clock
        self._memories = memories
        self.outage = outage
        self._late: set[asyncio.Task[Any]] = set()  # questions whose answers nobody waits for any more
        self.adopt(peers or {}, plain_domains)
        self._domains = Cache(self._ask_domain, clock, entries_max)
        self._hosts = Cache(self._ask_host, clock, entries_max)

    def adopt(self, peers: Mapping[str, Capabilities], plain_domains: frozenset[str]) -> None:
        self._peers, self._plain_domains = dict(peers), plain_domains

    async def lookup(self, domain: str) -> Lookup:
        peer = self._peers.get(domain)
        return Speaks(peer) if peer is not None else (await self._domains.get(domain)).result

    async def resolve_host(self, host: str) -> DnsAnswer:
        """Returns every address of a host, IPv4 first."""
        return (await self._hosts.get(host)).answer

    def known(self, domain: str) -> Known | None:
        """Returns what is cached, without asking."""
        peer = self._peers.get(domain)
        if peer is not None:
            return Known(Speaks(peer), None, None)
        kept = self._domains.peek(domain)
        if kept is None:
            return None
        return Known(kept.value.result, kept.asked_at, kept.good_until, kept.value.stale)

    async def close(self) -> None:
        for question in self._late:
            question.cancel()
        await asyncio.gather(*self._late, return_exceptions=True)
        await self._domains.close()
        await self._hosts.close()

    async def _ask_domain(self, domain: str) -> Kept[Decision]:
        last = self._domains.peek(domain)
        memory = last.value.memory if last else None
        if memory is None:
            memory = await self._memories.recall(domain)
        stale = decide(domain, SLOW, memory, self._clock.now(), plain=domain in self._plain_domains)
        question = self._learn_domain(domain, memory)
        return await self._soon(self._domains, domain, question, stale, waits=not (last and last.value.stale))

    async def _learn_domain(self, domain: str, memory: Memory | None) -> Kept[Decision]:
        answer = await self._dns.texts(f"_amtp.{domain}")
        self.outage.heard(domain, answer)
        decision = decide(domain, answer, memory, self._clock.now(), plain=domain in self._plain_domains)
        if decision.write and decision.memory is not None:
            await self._memories.remember(decision.memory)
        return self._kept(decision)

    async def _ask_host(self, host: str) -> Kept[HostDecision]:
        last = self._hosts.peek(host)
        memory = last.value.memory if last else None
        if memory is None:
            memory = await self._memories.recall_host(host)
        stale = decide_host(host, SLOW, memory, self._clock.now())
        question = self._learn_host(host, memory)
        return await self._soon(self._hosts, host, question, stale, waits=not (last and last.value.stale))

    async def _learn_host(self, host: str, memory: HostMemory | None) -> Kept[HostDecision]:
        answer = await self._dns.addresses(host)
        self.outage.heard(host, answer)
        decision = decide_host(host, answer, memory, self._clock.now())
        if decision.write and decision.memory is not None:
            await self._memories.remember_host(decision.memory)
        return self._kept(decision)

    async def _soon(
        self,
        cache: Cache[Decided],
        key: str,
        question: Coroutine[Any, Any, Kept[Decided]],
        stale: Decided,
        *,
        waits: bool,
    ) -> Kept[Decided]:
        """Returns the answer, or what is remembered if it does not come soon; the answer is then cached when it comes.

        While the cached answer is itself a remembered one, nobody waits.
        """
        if not stale.stale:
            return await question
        asking = asyncio.create_task(question)
        done, _ = await asyncio.wait({asking}, timeout=PATIENCE_SECONDS if waits else 0)
        if done:
            return asking.result()
        self._late.add(asking)
        asking.add_done_callback(lambda _: self._answered_late(cache, key, asking))
        return self._kept(stale)

    def _answered_late(self, cache: Cache[Decided], key: str, asking: "asyncio.Task[Kept[Decided]]") -> None:
        self._late.discard(asking)
        if not asking.cancelled() and asking.exception() is None:
            cache.put(key, asking.result())

    def _kept(self, decision: Decided) -> Kept[Decided]:
        now = self._clock.now()
        return Kept(decision, now, now + timedelta(seconds=decision.kept_seconds))
