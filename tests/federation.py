"""Several gateways that find each other by DNS and speak TLS, each with a database of its own, on one clock.

async with loopback() as ground, federation(world, ground) as net:
    async with net.gateway("acme.test") as acme, net.gateway("umbrella.test") as umbrella:
        ...
    peer = net.peer("peer.test")      # a FakePeer whose domain is published when it listens
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Protocol

from conformance.dns_server import ADDRESS, Behaviour, DnsServer
from conformance.fake_peer import Authority, FakePeer
from gateway.config.sections import DnsSettings, ListenerSettings, OutboundSettings
from gateway.config.values import HostPort
from gateway.store.clock import Clock
from tests.ports import free_port
from tests.world import LISTEN, Gateway, World

TTL_SECONDS = 60


class Names(Protocol):
    """The DNS as a story changes it."""

    def add(self, name: str, kind: str, *values: str, ttl: int = TTL_SECONDS) -> None: ...

    def txt(self, name: str, *texts: str, ttl: int = TTL_SECONDS) -> None: ...

    def behave(self, name: str, behaviour: Behaviour | None) -> None: ...


class Ground(Protocol):
    """Where gateways stand, and who tells them where the others do."""

    @property
    def dns(self) -> Names: ...

    @property
    def resolution(self) -> DnsSettings: ...

    @property
    def network(self) -> str: ...

    @property
    def words_there(self) -> tuple[str, ...]:
        """What stands before the command of a process that listens at a site."""

    def site(self, host: str) -> HostPort:
        """Where that host listens, always the same."""


class Loopback:
    """Everybody on loopback, each on a port of its own."""

    def __init__(self, dns: DnsServer) -> None:
        self.dns = dns
        self.resolution = DnsSettings(nameservers=(f"{ADDRESS}:{dns.port}",), timeout_seconds=1.0)
        self.network = "127.0.0.0/8"
        self.words_there = ()
        self._sites: dict[str, HostPort] = {}

    def site(self, host: str) -> HostPort:
        return self._sites.setdefault(host, HostPort(ADDRESS, free_port(ADDRESS)))


@dataclass
class Federation:
    """What the gateways share: names, trust and time."""

    world: World
    ground: Ground
    authority: Authority
    ca_file: Path
    clock: Clock = field(default_factory=Clock)
    _databases: dict[str, str] = field(default_factory=dict)

    @property
    def dns(self) -> Names:
        return self.ground.dns

    @asynccontextmanager
    async def gateway(
        self, *domains: str, tls: ssl.SSLContext | None = None, **changes: Any
    ) -> AsyncIterator[Gateway]:
        """A gateway for these domains, published; started again it has its port and database of before."""
        home = domains[0]
        host = host_of(home)
        if home not in self._databases:
            self._databases[home] = await self.world.create_database()
        for domain in domains:
            self.publish(domain, host)
        usual = {
            "hostname": host,
            "data": self.world.folder / home,
            "listen": (*LISTEN, ListenerSettings(self.ground.site(host), tls=True, roles=("public",))),
            "dns": self.ground.resolution,
            "outbound": OutboundSettings(
                allow_networks=(ip_network(self.ground.network),), ca_file=self.ca_file
            ),
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

    def publish(self, domain: str, host: str, *, ttl: int = TTL_SECONDS) -> None:
        """The records of a domain whose gateway is that host."""
        site = self.ground.site(host)
        self.dns.txt(
            f"_amtp.{domain}", f"v=amtp1;gateway=https://{host}:{site.port};features=batch,ids", ttl=ttl
        )
        self.dns.add(host, "A", site.host)

    def fake(self, domain: str = "peer.test", host: str | None = None, **how: Any) -> FakePeer:
        """A peer of a test's making, at its place, neither listening nor published."""
        host = host or host_of(domain)
        site = self.ground.site(host)
        usual = {"authority": self.authority, "address": site.host, "port": site.port}
        return FakePeer(domain=domain, host=host, **{**usual, **how})

    @asynccontextmanager
    async def peer(self, domain: str = "peer.test", **how: Any) -> AsyncIterator[FakePeer]:
        """One that listens and is published."""
        peer = self.fake(domain, **how)
        async with peer.listening():
            self.introduce(peer)
            yield peer

    def introduce(self, peer: FakePeer, *, ttl: int = TTL_SECONDS) -> None:
        self.dns.txt(f"_amtp.{peer.domain}", peer.record, ttl=ttl)
        self.dns.add(peer.host, "A", peer.address)


@asynccontextmanager
async def federation(world: World, ground: Ground) -> AsyncIterator[Federation]:
    authority = Authority()
    yield Federation(world, ground, authority, authority.write_ca(world.folder))


@asynccontextmanager
async def loopback() -> AsyncIterator[Loopback]:
    async with DnsServer() as dns:
        yield Loopback(dns)


def host_of(domain: str) -> str:
    return f"amtp.{domain}"
