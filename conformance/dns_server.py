"""An authoritative DNS server in the caller's own loop: real packets over UDP and TCP, misbehaving as told.

    async with DnsServer() as dns:
        dns.txt("_amtp.b.test", "v=amtp1;gateway=https://gw.b.test", ttl=60)
        dns.add("gw.b.test", "A", "127.0.0.1")
        dns.behave("_amtp.b.test", Behaviour.SERVFAIL)
        ...  # ask 127.0.0.1 at dns.port

A name that has no records is NXDOMAIN, one that lacks only the type is NODATA; both come with an SOA.
"""

import asyncio
import struct
from dataclasses import dataclass
from enum import Enum, auto
from types import TracebackType
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

ADDRESS = "127.0.0.1"


class Behaviour(Enum):
    SERVFAIL = auto()
    REFUSE = auto()
    TIMEOUT = auto()  # never answers, over UDP and TCP
    TRUNCATE = auto()  # cut over UDP, whole over TCP
    TRUNCATE_ONLY = auto()  # cut over UDP, silent over TCP
    TRUNCATE_ALWAYS = auto()  # cut over both
    GARBAGE = auto()  # bytes that are no DNS message
    WRONG_ID = auto()  # an answer to a question that was not asked
    SPOOF_FIRST = auto()  # a forged answer with a wrong id, then the true one
    REFERRAL = auto()  # points to other name servers
    NO_SOA = auto()  # negative answers without an SOA


CUTTING = {Behaviour.TRUNCATE, Behaviour.TRUNCATE_ONLY, Behaviour.TRUNCATE_ALWAYS}


@dataclass
class Records:
    values: list[str]
    ttl: int


@dataclass(frozen=True)
class Query:
    name: str
    kind: str
    transport: str  # udp or tcp


class DnsServer:
    """`zones[name][type]` may be changed at any time; names are written without a trailing dot."""

    def __init__(self, address: str = ADDRESS, port: int = 0) -> None:
        """Port 0 is any free one."""
        self.address = address
        self.port = port
        self.zones: dict[str, dict[str, Records]] = {}
        self.behaviours: dict[str, Behaviour] = {}
        self.delays: dict[str, float] = {}
        self.gates: dict[str, asyncio.Event] = {}  # answers wait until the event is set
        self.soa_minimum = 60
        self.down = False  # the whole server times out
        self.queries: list[Query] = []
        self.asked = asyncio.Event()  # set by every query; who waits for the next one clears it
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, name: str, kind: str, *values: str, ttl: int = 60) -> None:
        """Replaces what the name has of that type; values are written as in a zone file."""
        self.zones.setdefault(name.lower(), {})[kind] = Records(list(values), ttl)

    def txt(self, name: str, *texts: str | bytes, ttl: int = 60, string_bytes: int = 255) -> None:
        """One record per text, each cut into strings of at most `string_bytes`."""
        self.add(name, "TXT", *(_quoted(text, string_bytes) for text in texts), ttl=ttl)

    def remove(self, name: str, kind: str | None = None) -> None:
        if kind is None:
            self.zones.pop(name.lower(), None)
        else:
            self.zones.get(name.lower(), {}).pop(kind, None)

    def behave(self, name: str, behaviour: Behaviour | None) -> None:
        """How queries for that name are treated; None is well."""
        if behaviour is None:
            self.behaviours.pop(name.lower(), None)
        else:
            self.behaviours[name.lower()] = behaviour

    def count(self, name: str, kind: str = "TXT") -> int:
        return sum(query.name == name and query.kind == kind for query in self.queries)

    async def __aenter__(self) -> "DnsServer":
        loop = asyncio.get_running_loop()
        wanted = self.port
        for _ in range(1 if wanted else 20):  # a TCP port whose UDP twin is free
            self._tcp = await asyncio.start_server(self._serve_stream, self.address, wanted)
            self.port = self._tcp.sockets[0].getsockname()[1]
            try:
                self._udp, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self), (self.address, self.port)
                )
            except OSError:
                self._tcp.close()
            else:
                return self
        raise OSError(f"no free pair of ports at {self.address}")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._udp.close()
        self._tcp.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def take(self, packet: bytes, address: tuple[str, int], transport: asyncio.DatagramTransport) -> None:
        async def answer() -> None:
            for reply in await self._answers(packet, "udp"):
                transport.sendto(reply, address)

        self._own(asyncio.create_task(answer()))

    def _own(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._own(task)
        try:
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                for reply in await self._answers(await reader.readexactly(length), "tcp"):
                    writer.write(struct.pack("!H", len(reply)) + reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answers(self, packet: bytes, transport: str) -> list[bytes]:
        try:
            query = dns.message.from_wire(packet)
        except dns.exception.DNSException:
            return []
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        self.queries.append(Query(name, dns.rdatatype.to_text(question.rdtype), transport))
        self.asked.set()
        if name in self.gates:
            await self.gates[name].wait()
        if name in self.delays:
            await asyncio.sleep(self.delays[name])
        behaviour = self.behaviours.get(name)
        if self.down or behaviour is Behaviour.TIMEOUT:
            return []
        if behaviour is Behaviour.TRUNCATE_ONLY and transport == "tcp":
            return []
        if behaviour is Behaviour.GARBAGE:
            return [packet[:2] + b"\xff" * 9]
        return self._render(query, behaviour, transport)

    def _render(self, query: dns.message.Message, behaviour: Behaviour | None, transport: str) -> list[bytes]:
        reply = self._reply(query, behaviour)
        if behaviour in (Behaviour.WRONG_ID, Behaviour.SPOOF_FIRST):
            true = reply.to_wire()
            forged = dns.message.make_response(query)
            forged.set_rcode(dns.rcode.NXDOMAIN)
            forged.id = query.id ^ 1
            return [forged.to_wire()] + ([true] if behaviour is Behaviour.SPOOF_FIRST else [])
        if transport == "tcp" and behaviour is not Behaviour.TRUNCATE_ALWAYS:
            return [reply.to_wire(max_size=65535)]
        cut = behaviour in CUTTING
        if not cut:
            try:
                return [reply.to_wire(max_size=max(512, query.payload))]
            except dns.exception.TooBig:
                pass
        short = dns.message.make_response(query)
        short.flags |= dns.flags.TC | dns.flags.AA
        return [short.to_wire()]

    def _reply(self, query: dns.message.Message, behaviour: Behaviour | None) -> dns.message.Message:
        reply = dns.message.make_response(query)
        if behaviour is Behaviour.SERVFAIL:
            reply.set_rcode(dns.rcode.SERVFAIL)
            return reply
        if behaviour is Behaviour.REFUSE:
            reply.set_rcode(dns.rcode.REFUSED)
            return reply
        if behaviour is Behaviour.REFERRAL:
            apex = _apex(query.question[0].name)
            reply.authority.append(dns.rrset.from_text(apex, 60, "IN", "NS", "ns.elsewhere.test."))
            return reply
        reply.flags |= dns.flags.AA
        self._fill(reply, query.question[0].name, query.question[0].rdtype, behaviour)
        return reply

    def _fill(
        self,
        reply: dns.message.Message,
        name: dns.name.Name,
        kind: dns.rdatatype.RdataType,
        behaviour: Behaviour | None,
    ) -> None:
        for _ in range(20):
            here = self.zones.get(name.to_text(omit_final_dot=True).lower(), {})
            for wanted in (dns.rdatatype.to_text(kind), "CNAME"):
                if wanted in here:
                    records = here[wanted]
                    reply.answer.append(dns.rrset.from_text(name, records.ttl, "IN", wanted, *records.values))
                    break
            else:
                self._deny(reply, name, behaviour)
                return
            if wanted != "CNAME" or kind == dns.rdatatype.CNAME:
                return
            target = dns.name.from_text(here["CNAME"].values[0])
            if _apex(target) != _apex(name):
                return  # another server's zone
            name = target

    def _deny(self, reply: dns.message.Message, name: dns.name.Name, behaviour: Behaviour | None) -> None:
        text = name.to_text(omit_final_dot=True).lower()
        if not any(known == text or known.endswith("." + text) for known in self.zones):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        if behaviour is not Behaviour.NO_SOA:
            soa = f"ns.test. root.test. 1 3600 600 86400 {self.soa_minimum}"
            reply.authority.append(dns.rrset.from_text(_apex(name), 3600, "IN", "SOA", soa))


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # it is one, and does not say so

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.take(data, addr, self._transport)


def _apex(name: dns.name.Name) -> dns.name.Name:
    """Zones here are cut below two labels: `b.test`."""
    return dns.name.Name(name.labels[-3:])


def _quoted(text: str | bytes, string_bytes: int) -> str:
    raw = text.encode() if isinstance(text, str) else text
    strings = [raw[start : start + string_bytes] for start in range(0, len(raw), string_bytes)] or [b""]
    return " ".join('"' + "".join(f"\\{byte:03d}" for byte in string) + '"' for string in strings)
