"""Push targets that lead to the inside (S4), and URLs that must not be told to anybody (S20)."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_network

import pytest

from conformance.dns_server import DnsServer
from gateway.config.sections import DnsSettings, OutboundSettings
from gateway.deliver.webhook import TROUBLE
from gateway.flow import worker
from gateway.net.outbound import Kind
from tests.attacks.test_ssrf import LEADING, WRITTEN
from tests.raw_server import RawServer, answer
from tests.world import Agent, Gateway, World

PATIENCE_SECONDS = 15.0
AGENTS = "/v1/admin/agents"


@pytest.fixture
async def listener() -> AsyncIterator[RawServer]:
    """What must not be reached."""
    async with RawServer(answer(200, b"secret")) as running:
        yield running


@pytest.fixture
async def gw(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    """A gateway that would speak plain HTTP to webhooks, so that nothing but the address stands in the way."""
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.1)
    async with DnsServer() as dns:
        for label, records in LEADING.items():
            for kind, values in records.items():
                dns.add(f"{label}.evil.test", kind, *values, ttl=0)
        dns.add("inside.other.test", "A", "127.0.0.1")
        dns.add("localhost", "A", "127.0.0.1")
        async with world.gateway(
            dns=DnsSettings(nameservers=(f"127.0.0.1:{dns.port}",), timeout_seconds=1.0),
            outbound=OutboundSettings(plain_webhooks=True, connect_seconds=1.0),
        ) as gateway:
            yield gateway


def targets(port: int) -> Iterator[str]:
    for scheme in ("http", "https"):
        for host in (*WRITTEN, *(f"{label}.evil.test" for label in LEADING)):
            yield f"{scheme}://{host}:{port}/in"


async def test_no_push_target_leads_inside(gw: Gateway, listener: RawServer) -> None:
    alice = await gw.register("alice")
    taken: list[str] = []
    for number, target in enumerate(targets(listener.port)):
        body = {"address": f"a{number}", "delivery_mode": "push", "push_target": target}
        reply = await gw.call("POST", AGENTS, key=gw.admin_key, json=body)
        if reply.status == 201:
            taken.append(reply.json["agent"]["address"])
        else:
            assert (reply.status, reply.code) == (400, "INVALID_MESSAGE_FORMAT"), target
    assert len(taken) >= 2 * len(LEADING)  # what a name leads to is seen when it is connected to
    reply = await alice.send(*taken)
    assert reply.status == 202
    reasons = await reasons_of(alice, reply.json["message_id"], len(taken))
    allowed = {f"The agent's webhook {TROUBLE[kind]}." for kind in (Kind.REFUSED_ADDRESS, Kind.RESOLVE)}
    assert reasons <= allowed
    assert listener.accepted == 0


async def test_the_listener_is_reached_where_its_network_is_allowed(
    world: World, listener: RawServer
) -> None:
    """The control: what the other test proves is not that nothing is ever pushed."""
    limits = OutboundSettings(plain_webhooks=True, allow_networks=(ip_network("127.0.0.0/8"),))
    async with world.gateway(outbound=limits) as gw:
        alice = await gw.register("alice")
        await gw.register("bob", delivery_mode="push", push_target=f"http://127.0.0.1:{listener.port}/in")
        message_id = (await alice.send("bob@acme.test")).json["message_id"]
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await alice.status(message_id))["status"] != "delivered":
                await asyncio.sleep(0.02)
    assert listener.accepted == 1


async def reasons_of(sender: Agent, message_id: str, count: int) -> set[str]:
    """Why each recipient waits, once all of them were tried."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            recipients = (await sender.status(message_id))["recipients"]
            told = [each["last_error"] for each in recipients if each["last_error"]]
            if len(told) == count:
                return set(told)
            await asyncio.sleep(0.05)


NEVER = [
    "http://hooks.test/",
    "ftp://hooks.test/",
    "https://hooks.test:25/",
    "https://169.254.169.254/latest/meta-data",
    "https://[::1]/",
    "https://me:secret@hooks.test/",
    "https://hooks.test/#part",
    "https://hooks.test/\r\nX-Injected: 1",
    "javascript:alert(1)",
]


async def test_what_could_never_be_posted_to_is_refused_when_it_is_said(world: World) -> None:
    async with world.gateway() as gw:
        await gw.register("carol")
        for target in NEVER:
            said = {"push_target": target}
            new = await gw.call("POST", AGENTS, key=gw.admin_key, json={"address": "bob", **said})
            changed = await gw.call("PATCH", f"{AGENTS}/carol", key=gw.admin_key, json=said)
            for reply in (new, changed):
                assert (reply.status, reply.json["error"]["details"]) == (400, {"field": "push_target"}), (
                    target
                )
