"""Webhooks as a way inside (S4), as a leak (S16, S20), and as a drag (S12)."""

import asyncio
import json
from collections.abc import AsyncIterator
from ipaddress import ip_network
from typing import Any

import pytest

from conformance.dns_server import DnsServer
from gateway.config.sections import DnsSettings, LimitSettings, OutboundSettings
from gateway.deliver.webhook import TROUBLE
from gateway.features.notifications import notifier
from gateway.features.notifications import target as target_module
from gateway.net.outbound import Kind
from tests.attacks.test_push_targets import targets
from tests.attacks.test_ssrf import LEADING
from tests.raw_server import RawServer, answer
from tests.telling import until
from tests.world import Agent, Gateway, World

PATIENCE_SECONDS = 30.0
HOOKS = "/v1/webhooks"
TOKEN = "token-of-the-target"


@pytest.fixture
async def listener() -> AsyncIterator[RawServer]:
    """What must not be reached."""
    async with RawServer(answer(200, b"secret")) as running:
        yield running


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(target_module, "TRY_SECONDS", 1.0)


@pytest.fixture
async def gw(world: World) -> AsyncIterator[Gateway]:
    """A gateway that would speak plain HTTP to webhooks, so that nothing but the address stands in the way."""
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


async def added(agent: Agent, url: str) -> str:
    reply = await agent.gateway.call("POST", HOOKS, key=agent.key, json={"url": url})
    assert reply.status == 201, reply.text
    number: str = reply.json["webhook"]["webhook_id"]
    return number


async def test_no_webhook_leads_inside(gw: Gateway, listener: RawServer) -> None:
    taken = 0
    for number, url in enumerate(targets(listener.port)):
        if taken % 20 == 0:  # so many one agent may have
            agent = await gw.register(f"a{number}")
        reply = await gw.call("POST", HOOKS, key=agent.key, json={"url": url})
        taken += reply.status == 201
        if reply.status != 201:
            assert (reply.status, reply.code) == (400, "INVALID_MESSAGE_FORMAT"), url
    assert taken >= 2 * len(LEADING)  # what a name leads to is seen when it is connected to
    tried = "select count(distinct subscription) from notice_attempts"
    await until(lambda: _reached(gw, tried, taken), PATIENCE_SECONDS)
    said = await gw.app.database.fetch("select distinct error, status from notice_attempts")
    allowed = {TROUBLE[Kind.RESOLVE], "leads to an address that is not posted to"}
    assert {row["error"] for row in said} <= {f"The target {trouble}." for trouble in allowed}
    assert {row["status"] for row in said} == {None}
    assert listener.accepted == 0


async def _reached(gw: Gateway, statement: str, count: int) -> bool:
    found: int = await gw.app.database.fetchval(statement)
    return found >= count


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_another_url_is_judged_as_the_first_one(gw: Gateway, listener: RawServer, method: str) -> None:
    alice = await gw.register("alice")
    place = HOOKS if method == "POST" else f"{HOOKS}/{await added(alice, 'https://hooks.test/in')}"
    for url in (
        f"http://127.0.0.1:{listener.port}/",
        f"https://[::1]:{listener.port}/",
        "https://x.test:25/",
    ):
        reply = await gw.call(method, place, key=alice.key, json={"url": url})
        assert (reply.status, reply.code) == (400, "INVALID_MESSAGE_FORMAT")
    assert listener.accepted == 0


async def test_the_listener_is_reached_where_its_network_is_allowed(
    world: World, listener: RawServer
) -> None:
    """The control: what the other tests prove is not that nothing is ever posted. A redirect leads nowhere."""
    limits = OutboundSettings(plain_webhooks=True, allow_networks=(ip_network("127.0.0.0/8"),))
    moved = answer(307, Location=f"http://127.0.0.1:{listener.port}/moved")
    async with RawServer(moved) as elsewhere, world.gateway(outbound=limits) as gw:
        alice = await gw.register("alice")
        await added(alice, f"http://127.0.0.1:{elsewhere.port}/")
        await asyncio.wait_for(elsewhere.connected.wait(), PATIENCE_SECONDS)
        assert listener.accepted == 0
        await added(alice, f"http://127.0.0.1:{listener.port}/in")
        await asyncio.wait_for(listener.connected.wait(), PATIENCE_SECONDS)


async def test_nobody_is_shown_anothers_url_and_nothing_shows_a_secret(
    world: World, listener: RawServer
) -> None:
    limits = OutboundSettings(plain_webhooks=True, allow_networks=(ip_network("127.0.0.0/8"),))
    async with world.gateway(outbound=limits) as gw:
        alice, eve = await gw.register("alice"), await gw.register("eve")
        url = f"http://127.0.0.1:{listener.port}/in?{TOKEN}"
        reply = await gw.call("POST", HOOKS, key=alice.key, json={"url": url})
        number, secret = reply.json["webhook"]["webhook_id"], reply.json["webhook"]["secret"]
        await asyncio.wait_for(listener.connected.wait(), PATIENCE_SECONDS)
        await until(lambda: _reached(gw, "select count(*) from notice_attempts", 1), PATIENCE_SECONDS)
        own = await gw.call("GET", f"{HOOKS}/{number}", key=alice.key)
        shown = [
            await gw.call(
                method, path, key=eve.key, json={"url": "https://x.test/"} if method == "PATCH" else None
            )
            for method in ("GET", "PATCH", "DELETE", "POST")
            for path in (HOOKS, f"{HOOKS}/{number}", f"{HOOKS}/{number}/attempts", "/v1/discovery/agents")
        ]
        gw.app.journal.flush()
        written = await gw.app.database.fetch(
            "select s::text from subscriptions s union all select a::text from audit a"
            " union all select n::text from notices n union all select t::text from notice_attempts t"
        )
        assert TOKEN in own.text
        assert not any(TOKEN in reply.text or secret in reply.text for reply in shown)
        assert TOKEN not in gw.log.getvalue()
        for said in (own.text, gw.log.getvalue(), gw.app.journal.metrics.render().decode()):
            assert secret.removeprefix("whsec_") not in said
        assert not any(secret.removeprefix("whsec_") in row[0] for row in written)


async def test_a_target_that_trickles_holds_nobody_for_long(world: World) -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    limits = OutboundSettings(plain_webhooks=True, allow_networks=(ip_network("127.0.0.0/8"),))
    async with RawServer(trickle) as slow, world.gateway(outbound=limits) as gw:
        alice = await gw.register("alice")
        number = await added(alice, f"http://127.0.0.1:{slow.port}/")

        async def tried() -> list[dict[str, Any]]:
            reply = await gw.call("GET", f"{HOOKS}/{number}/attempts", key=alice.key)
            found: list[dict[str, Any]] = json.loads(reply.text)["attempts"]
            return found

        (first, *_) = await until(tried, PATIENCE_SECONDS)
        assert first["result"] == "failed"
        assert first["milliseconds"] < 5000


async def test_one_agent_causes_a_bounded_number_of_posts_to_urls_that_nobody_proved(world: World) -> None:
    async with world.gateway(limits=LimitSettings(webhook_challenges_per_minute=3)) as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        hook = f"{HOOKS}/{await added(alice, 'https://victim.test/0')}"
        changed = [
            await gateway.call("PATCH", hook, key=alice.key, json={"url": f"https://victim.test/{n}"})
            for n in range(1, 4)
        ]
        assert [reply.status for reply in changed] == [200, 200, 429]
        assert int(changed[-1].headers["retry-after"]) > 0
        more = await gateway.call("POST", HOOKS, key=alice.key, json={"url": "https://victim.test/4"})
        assert (more.status, more.code) == (429, "RATE_LIMIT_EXCEEDED")
        assert (await gateway.call("PATCH", hook, key=alice.key, json={"description": "mine"})).status == 200
        assert await added(bob, "https://victim.test/5")
