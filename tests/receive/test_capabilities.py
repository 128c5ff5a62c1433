"""What a caller is told of another domain's gateway, with real DNS packets behind it."""

import io
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial

import pytest

from conformance.dns_server import Behaviour, DnsServer
from gateway.admit.authenticate import Authenticator
from gateway.admit.remembered import DirectoryWatch
from gateway.config.settings import Config, complete
from gateway.journal.journal import Journal
from gateway.net.rates import Rates
from gateway.receive.capabilities import CapabilityDoor
from gateway.route.configured import published
from gateway.route.directory import Directory
from gateway.route.dns import Dns, Nameserver
from gateway.route.memories import StoredMemories
from gateway.route.outage import Outage
from gateway.store.agents.keys import directory_changes
from gateway.store.clock import Clock
from gateway.store.database import Database
from tests.receive.doorway import Doorway, Reply, doorway, get

KEY = "the secret of a configured peer"
CONFIG = complete(replace(Config(), domains=("acme.test",), hostname="amtp.acme.test"))


@dataclass(frozen=True)
class Desk:
    dns: DnsServer
    entrance: Doorway

    async def ask(self, domain: str, *lines: str) -> Reply:
        return await self.entrance.ask(get(f"/v1/capabilities/{domain}", *lines))

    async def ask_with_key(self, domain: str) -> Reply:
        return await self.ask(domain, f"Authorization: Bearer {KEY}")


@pytest.fixture
async def desk(database: Database, clock: Clock) -> AsyncIterator[Desk]:
    async with DnsServer() as dns:
        directory = Directory(
            Dns([Nameserver("127.0.0.1", dns.port)], tries_seconds=(0.2, 0.2), question_seconds=2),
            clock,
            StoredMemories(database),
            Outage(clock, Journal(io.StringIO())),
        )
        watch = DirectoryWatch(partial(directory_changes, database))
        door = CapabilityDoor(
            directory=directory,
            authenticator=Authenticator(
                database, watch, clock, Journal(io.StringIO()), development=False, peers={"friend.test": KEY}
            ),
            domains=CONFIG.domains,
            published=published(CONFIG),
            lookups=Rates("look-ups", lambda: 2),
        )
        async with doorway(door.routes()) as entrance:
            yield Desk(dns, entrance)
        await directory.close()


async def test_a_known_caller_is_told_what_a_domain_publishes(desk: Desk) -> None:
    desk.dns.txt(
        "_amtp.b.test",
        "v=amtp1;gateway=https://gw.b.test:8443/in;auth=cert,oauth;max-size=5000;features=batch",
        ttl=120,
    )
    reply = await desk.ask_with_key("B.test")
    assert reply.status == 200
    told = reply.json
    assert told["domain"] == "b.test"
    assert told["gateway"] == "https://gw.b.test:8443/in"
    assert (told["auth"], told["max_size"], told["features"]) == (["cert", "oauth"], 5000, ["batch"])
    assert (told["stale"], told["warnings"]) == (False, [])
    assert told["discovered_at"] < told["expires_at"]


async def test_the_record_told_is_one_that_could_be_published(desk: Desk) -> None:
    desk.dns.txt("_amtp.b.test", "V=AMTP1; gateway = https://GW.b.test/ ; color=blue")
    told = (await desk.ask_with_key("b.test")).json
    assert told["record"] == "v=amtp1;gateway=https://gw.b.test;max-size=10485760"


async def test_our_own_domain_is_answered_from_the_configuration(desk: Desk) -> None:
    told = (await desk.ask_with_key("acme.test")).json
    assert (told["gateway"], told["features"]) == ("https://amtp.acme.test", ["batch", "ids"])
    assert desk.dns.queries == []


async def test_a_domain_without_a_record_is_not_found(desk: Desk) -> None:
    reply = await desk.ask_with_key("silent.test")
    assert (reply.status, reply.code) == (404, "NOT_FOUND")


async def test_a_broken_record_is_told_with_its_fault(desk: Desk) -> None:
    desk.dns.txt("_amtp.b.test", "v=amtp1;gateway=http://gw.b.test")
    reply = await desk.ask_with_key("b.test")
    assert (reply.status, reply.code) == (503, "RECIPIENT_UNAVAILABLE")
    assert "https://" in reply.json["error"]["message"]


async def test_a_name_server_in_trouble_is_temporary(desk: Desk) -> None:
    desk.dns.behave("_amtp.b.test", Behaviour.SERVFAIL)
    reply = await desk.ask_with_key("b.test")
    assert (reply.status, reply.code) == (503, "TEMPORARY_FAILURE")
    assert "retry-after" in reply.headers


@pytest.mark.parametrize("lines", [[], ["Authorization: Bearer wrong"]], ids=["no key", "a wrong key"])
async def test_a_stranger_causes_no_question_to_the_dns(desk: Desk, lines: list[str]) -> None:
    reply = await desk.ask("b.test", *lines)
    assert (reply.status, reply.code) == (401, "AUTHENTICATION_FAILED")
    assert desk.dns.queries == []


@pytest.mark.parametrize("name", ["127.0.0.1", "_amtp.b.test", "b..test", "a%20b.test", "x" * 254])
async def test_what_is_no_domain_is_refused_with_its_field(desk: Desk, name: str) -> None:
    reply = await desk.ask_with_key(name)
    assert (reply.status, reply.code) == (400, "INVALID_MESSAGE_FORMAT")
    assert reply.json["error"]["details"] == {"field": "domain"}
    assert desk.dns.queries == []


async def test_one_caller_has_so_many_domains_looked_up_a_minute_and_what_is_known_is_free(
    desk: Desk,
) -> None:
    for name in ("b.test", "c.test"):
        assert (await desk.ask_with_key(name)).status == 404
    refused = await desk.ask_with_key("d.test")
    assert (refused.status, refused.code) == (429, "RATE_LIMIT_EXCEEDED")
    assert {query.name for query in desk.dns.queries} == {"_amtp.b.test", "_amtp.c.test"}
    assert (await desk.ask_with_key("b.test")).status == 404
    assert (await desk.ask_with_key("acme.test")).status == 200
