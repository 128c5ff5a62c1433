"""The DNS through dnspython: UDP, TCP where an answer was cut, CNAMEs followed, all name servers tried.

What comes back is an answer as a value; nothing is cached here.
"""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.resolver

from gateway.net.dns_answer import Absent, DnsAnswer, DnsFailure, Records

# How long each name server is waited for at first, and when it is asked again: UDP loses packets, and some are slow.
TRIES_SECONDS: Final = (1.0, 3.0)
QUESTION_SECONDS: Final = 8.0  # everything together
CNAME_LINKS_MAX: Final = 8  # questions along one chain of names
PAYLOAD_BYTES: Final = 1232  # EDNS: fits every path without fragments
CONCURRENT_MAX: Final = 200  # sockets open at once
PORT: Final = 53
LOOPBACK: Final = Records(("127.0.0.1", "::1"), 60)  # RFC 6761: localhost is never asked for


@dataclass(frozen=True, slots=True)
class Nameserver:
    address: str
    port: int = PORT

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def system_nameservers() -> tuple[Nameserver, ...]:
    """Returns the name servers of /etc/resolv.conf."""
    try:
        system = dns.resolver.Resolver()
    except dns.resolver.NoResolverConfiguration:
        return ()
    return tuple(Nameserver(str(address), system.port) for address in system.nameservers)


class _UnusableError(Exception):
    """A failure of one name server; the next one may help."""


class Dns:
    def __init__(
        self,
        nameservers: Sequence[Nameserver] = (),
        *,
        tries_seconds: Sequence[float] = TRIES_SECONDS,
        question_seconds: float = QUESTION_SECONDS,
    ) -> None:
        """Takes the name servers; without them the system's are asked, read anew at each question."""
        self._nameservers = tuple(nameservers)
        self._tries_seconds = tuple(tries_seconds)
        self._question_seconds = question_seconds
        self._sockets = asyncio.Semaphore(CONCURRENT_MAX)

    async def texts(self, name: str) -> DnsAnswer:
        """Returns the TXT records, the strings of each joined."""
        return await self._ask(name, dns.rdatatype.TXT)

    async def addresses(self, host: str) -> DnsAnswer:
        """Returns every address of a host, IPv4 first."""
        if host == "localhost" or host.endswith(".localhost"):
            return LOOPBACK
        both = await asyncio.gather(self._ask(host, dns.rdatatype.A), self._ask(host, dns.rdatatype.AAAA))
        found = [answer for answer in both if isinstance(answer, Records)]
        if found:
            values = tuple(value for answer in found for value in answer.values)
            return Records(values, min(answer.ttl_seconds for answer in found))
        trouble = [answer for answer in both if isinstance(answer, DnsFailure)]
        return trouble[0] if trouble else both[0]

    async def _ask(self, name: str, kind: dns.rdatatype.RdataType) -> DnsAnswer:
        try:
            question = dns.name.from_text(name)
        except dns.exception.DNSException:
            return Absent(0)  # a name that can't be written has no records
        try:
            async with asyncio.timeout(self._question_seconds), self._sockets:
                return await self._follow(question, kind)
        except TimeoutError:
            return DnsFailure(f"no answer for {name} within {self._question_seconds:g} s")

    async def _follow(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> DnsAnswer:
        """Asks on along CNAMEs: a server that knows only its own zones ends a chain at its border."""
        ttl_seconds, seen = 2**31, {name}
        for _ in range(CNAME_LINKS_MAX):
            answer = await self._ask_nameservers(name, kind)
            if isinstance(answer, DnsFailure):
                return answer
            chain = answer.resolve_chaining()
            ttl_seconds = min(ttl_seconds, chain.minimum_ttl)
            if chain.answer is not None:
                return Records(tuple(map(_value, chain.answer)), ttl_seconds)
            if answer.rcode() == dns.rcode.NXDOMAIN or chain.canonical_name == name or _has_soa(answer):
                return Absent(ttl_seconds)
            name = chain.canonical_name
            if name in seen:
                break
            seen.add(name)
        return DnsFailure("its CNAME records go in a circle or too far")

    async def _ask_nameservers(
        self, name: dns.name.Name, kind: dns.rdatatype.RdataType
    ) -> dns.message.QueryMessage | DnsFailure:
        nameservers = self._nameservers or system_nameservers()
        if not nameservers:
            return DnsFailure("no name server is configured")
        reasons: dict[str, str] = {}
        for seconds, nameserver in itertools.product(self._tries_seconds, nameservers):
            try:
                return await _exchange(nameserver, name, kind, seconds)
            except _UnusableError as unusable:
                reasons[f"{nameserver} {unusable}"] = f"a name server {unusable}"
        return DnsFailure("; ".join(reasons), "; ".join(dict.fromkeys(reasons.values())))


async def _exchange(
    nameserver: Nameserver, name: dns.name.Name, kind: dns.rdatatype.RdataType, seconds: float
) -> dns.message.QueryMessage:
    query = dns.message.make_query(name, kind, use_edns=0, payload=PAYLOAD_BYTES)
    where, port = nameserver.address, nameserver.port
    try:
        try:
            answer = await dns.asyncquery.udp(
                query,
                where,
                seconds,
                port,
                ignore_unexpected=True,
                raise_on_truncation=True,
                ignore_errors=True,
            )
        except dns.message.Truncated:
            answer = await dns.asyncquery.tcp(query, where, seconds, port)
        return _checked(answer)
    except dns.exception.Timeout:
        raise _UnusableError("did not answer in time") from None
    except dns.exception.DNSException as fault:
        raise _UnusableError(f"answered nonsense ({type(fault).__name__})") from None
    except (OSError, EOFError) as fault:
        raise _UnusableError(f"could not be reached ({type(fault).__name__})") from None


def _checked(answer: dns.message.Message) -> dns.message.QueryMessage:
    if not isinstance(answer, dns.message.QueryMessage):
        raise _UnusableError("answered something else")
    if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise _UnusableError(f"answered {dns.rcode.to_text(answer.rcode())}")
    if answer.flags & dns.flags.TC:
        raise _UnusableError("cut its answer even over TCP")
    answer.resolve_chaining()  # raises where the chain makes no sense
    referral = any(rrset.rdtype == dns.rdatatype.NS for rrset in answer.authority)
    if not answer.answer and referral and not _has_soa(answer):
        raise _UnusableError("only pointed to other name servers; it must be a resolver or serve the zone")
    return answer


def _has_soa(answer: dns.message.QueryMessage) -> bool:
    return any(rrset.rdtype == dns.rdatatype.SOA for rrset in answer.authority)


def _value(rdata: object) -> str:
    if isinstance(rdata, dns.rdtypes.ANY.TXT.TXT):
        return b"".join(rdata.strings).decode("utf-8", "replace")
    return str(ip_address(str(rdata)))
