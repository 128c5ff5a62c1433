"""A small authoritative DNS server for the domains of the demo: UDP on loopback, records held in a table."""

import asyncio
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

ADDRESS = "127.0.0.1"
TTL_SECONDS = 60
SOA = "ns.demo.test. root.demo.test. 1 3600 600 86400 60"


class DnsServer(asyncio.DatagramProtocol):
    """`add` may be called at any time; names are written without a trailing dot."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], str] = {}
        self.port = 0

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, (ADDRESS, 0))
        self.port = transport.get_extra_info("sockname")[1]

    def add(self, name: str, kind: str, value: str) -> None:
        self.records[name, kind] = value

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            self._transport.sendto(self._answer(dns.message.from_wire(data)).to_wire(), addr)
        except dns.exception.DNSException:
            return  # what is no question gets no answer

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.AA
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        value = self.records.get((name, kind))
        if value is not None:
            answer.answer.append(dns.rrset.from_text(question.name, TTL_SECONDS, "IN", kind, value))
            return answer
        if not any(known == name or known.endswith(f".{name}") for known, _ in self.records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        answer.authority.append(dns.rrset.from_text(question.name, TTL_SECONDS, "IN", "SOA", SOA))
        return answer
