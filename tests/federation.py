"""Several gateways that find each other by DNS and speak TLS, each with a database of its own, on one clock.

async with federation(world) as net:
    async with net.gateway("acme.test") as acme, net.gateway("umbrella.test") as umbrella:
        ...
    peer = net.peer("peer.test")      # a FakePeer whose domain is published when it listens
"""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from conformance.dns_server import ADDRESS, DnsServer
from conformance.fake_peer import Authority, FakePeer
from gateway.clock import Clock
from gateway.config_sections import Dns, Listener, Outbound
from gateway.config_values import HostPort
from tests.world import LISTEN, Gateway, World

TTL_SECONDS = 60


@dataclass
class Federation:
    """What the gateways share: names, trust and time."""

    world: World
    dns: DnsServer
    authority: Authority
    ca_file: Path
    clock: Clock = field(default_factory=Clock)
    _ports: dict[str, int] = field(default_factory=dict)
    _databases: dict[str, str] = field(default_factory=dict)

    @asynccontextmanager
    async def gateway(
        self, *domains: str, tls: ssl.SSLContext | None = None, **changes: Any
    ) -> AsyncIterator[Gateway]:
        """A gateway for these domains, published; started again it has its port and database of before."""
        home = domains[0]
        host = host_of(home)
        port = self._ports.setdefault(home, free_port())
        if home not in self._databases:
            self._databases[home] = await self.world.create_database()
        for domain in domains:
            self.publish(domain, host, port)
        usual = {
            "hostname": host,
            "data": self.world.folder / home,
            "listen": (*LISTEN, Listener(HostPort(ADDRESS, port), tls=True, roles=("public",))),
            "dns": Dns(nameservers=(f"{ADDRESS}:{self.dns.port}",), timeout_seconds=1.0),
            "outbound": Outbound(allow_networks=(ip_network("127.0.0.0/8"),), ca_file=self.ca_file),
        }
        async with self.world.gateway(
            domains,
            dsn=self._databases[home],
            clock=self.clock,
            tls=tls or self.authority.server_context(host),
            **{**usual, **changes},
        ) as gateway:
            yield gateway

    def turn(self, seconds: float) -> None:
        """Turns the clock of all of them."""
        self.clock.offset += timedelta(seconds=seconds)

    def publish(self, domain: str, host: str, port: int, *, ttl: int = TTL_SECONDS, rest: str = "") -> None:
        """The records of a domain whose gateway is there."""
        features = rest or ";features=batch"
        self.dns.txt(f"_amtp.{domain}", f"v=amtp1;gateway=https://{host}:{port}{features}", ttl=ttl)
        self.dns.add(host, "A", ADDRESS)

    @asynccontextmanager
    async def peer(self, domain: str = "peer.test", **how: Any) -> AsyncIterator[FakePeer]:
        """A peer of a test's making, listening and published."""
        peer = FakePeer(self.authority, domain, host_of(domain), **how)
        async with peer.listening():
            self.introduce(peer)
            yield peer

    def introduce(self, peer: FakePeer, *, ttl: int = TTL_SECONDS) -> None:
        self.dns.txt(f"_amtp.{peer.domain}", peer.record, ttl=ttl)
        self.dns.add(peer.host, "A", ADDRESS)


@asynccontextmanager
async def federation(world: World) -> AsyncIterator[Federation]:
    authority = Authority()
    async with DnsServer() as dns:
        yield Federation(world, dns, authority, authority.write_ca(world.folder))


def host_of(domain: str) -> str:
    return f"amtp.{domain}"


def free_port() -> int:
    with socket.create_server((ADDRESS, 0)) as taken:
        return int(taken.getsockname()[1])
