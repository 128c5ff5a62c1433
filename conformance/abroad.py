"""What the suite brings along to see how a gateway treats others: a DNS server, peers, an authority for their TLS.

The gateway under test must ask that DNS server, trust that authority and be allowed to that address: README.md.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from conformance.dns_server import DnsServer
from conformance.fake_peer import Authority, Behaviour, FakePeer, Received, answers
from conformance.target import PATIENCE_SECONDS, Target, Unusable, eventually

TTL_SECONDS = 60
CA_FILE = "ca.pem"
REQUIRE_SECONDS = 10.0  # nothing stands in the way of a first attempt


class Abroad:
    """Domains that exist for one check each, and who answers for them."""

    def __init__(self, folder: Path, address: str, dns_port: int) -> None:
        """`folder` keeps the authority from run to run."""
        self.authority = Authority.kept_in(folder)
        self.ca_file = (folder / CA_FILE).resolve()
        self.address = address
        self.dns = DnsServer(address, dns_port)

    async def __aenter__(self) -> Self:
        try:
            await self.dns.__aenter__()
        except OSError as taken:
            raise Unusable(f"no DNS server can listen at {self.address}:{self.dns.port}: {taken}") from taken
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.dns.__aexit__(kind, error, trace)

    @property
    def configuration(self) -> str:
        """What an operator tells the gateway under test, in its own words."""
        return (
            "dns:\n"
            f'  nameservers: ["{self.address}:{self.dns.port}"]\n'
            "  timeout_seconds: 1\n"
            "outbound:\n"
            f'  allow_networks: ["{self.address}/32"]\n'
            f"  ca_file: {self.ca_file}"
        )

    def domain(self) -> str:
        """A domain that nobody has asked for before."""
        return f"conformance-{secrets.token_hex(6)}.test"

    def prepare(self, domain: str | None = None, **how: Any) -> FakePeer:
        """A peer that neither listens nor is published yet."""
        domain = domain or self.domain()
        usual = {"authority": self.authority, "host": f"amtp.{domain}", "address": self.address}
        return FakePeer(domain=domain, **{**usual, **how})

    @asynccontextmanager
    async def peer(self, domain: str | None = None, **how: Any) -> AsyncIterator[FakePeer]:
        """A peer that listens and is published."""
        peer = self.prepare(domain, **how)
        async with peer.listening():
            self.publish(peer)
            yield peer

    @asynccontextmanager
    async def hook(self, *behaviours: Behaviour, **how: Any) -> AsyncIterator[FakePeer]:
        """Somebody's own HTTPS server, found by its name."""
        hook = self.prepare(**{"path": "/hook", **how})
        hook.will(*(behaviours or [answers(200)]))
        self.dns.add(hook.host, "A", self.address)
        async with hook.listening():
            yield hook

    def publish(self, peer: FakePeer, *records: str, ttl: int = TTL_SECONDS, string_bytes: int = 255) -> None:
        """The peer's own record, or those given, and its address."""
        self.dns.txt(f"_amtp.{peer.domain}", *(records or [peer.record]), ttl=ttl, string_bytes=string_bytes)
        self.dns.add(peer.host, "A", self.address)

    async def require(self, target: Target) -> None:
        """Raises Unusable where the gateway was not told of all this: every check would fail for that."""
        async with self.peer() as peer:
            alice = await target.agent()
            await alice.sent(f"bob@{peer.domain}")
            try:
                await arrived(peer, seconds=REQUIRE_SECONDS)
            except AssertionError:
                raise Unusable(self._missing(peer)) from None

    def _missing(self, peer: FakePeer) -> str:
        if not self.dns.count(f"_amtp.{peer.domain}"):
            return f"the gateway does not ask the DNS server at {self.address}:{self.dns.port}"
        if not peer.connections:
            return f"the gateway does not connect to {self.address}, or does not trust {self.ca_file}"
        return "the gateway connects to its peer, and posts nothing"


async def arrived(peer: FakePeer, count: int = 1, seconds: float = PATIENCE_SECONDS) -> list[Received]:
    """What was posted there, once it is so many requests, read to their ends."""

    async def look() -> list[Received]:
        whole = [post for post in peer.posts if post.body]
        return whole if len(whole) >= count else []

    found: list[Received] = await eventually(look, f"{count} requests at the peer {peer.domain}", seconds)
    return found
