"""Connections, counted from the moment they are accepted: who fills a listener keeps nobody else out."""

import asyncio
import resource
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trustme

from gateway.config.sections import LimitSettings, ListenerSettings
from gateway.config.values import HostPort
from gateway.http.answers import Answer
from gateway.http.request import Request
from gateway.http.roles import Role
from gateway.http.routing import Route
from gateway.net.shares import Holder
from tests.attacks.test_slow import MOMENT_SECONDS, PATIENT, ROUTES
from tests.receive.doorway import LIMITS, MANNERS, Doorway, Wire, doorway, get, post, until
from tests.world import Gateway, World

ATTACKER = "127.0.0.66"
DESCRIPTORS = 512
EVICTING = replace(MANNERS, waited_seconds=0.0)
TWO_LISTENERS = (
    ListenerSettings(HostPort("127.0.0.1", 0), roles=("public", "agents")),
    ListenerSettings(HostPort("127.0.0.1", 0), roles=("admin",)),
)


def server_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("gateway.test").configure_cert(context)
    return context


async def test_handshakes_that_never_happen_are_counted_for_their_address() -> None:
    limits = replace(PATIENT, connections=30, address_share_percent=10)
    async with doorway(ROUTES, limits=limits, tls=server_context()) as opened:
        for _ in range(3):
            await opened.wire(ATTACKER, tls=False)
        await until(lambda: opened.door.load.connections == 3)
        assert await (await opened.wire(ATTACKER, tls=False)).rest() == b""
        assert opened.diary.refused == [("address", ATTACKER)]
        assert (await opened.ask(post("/take", b"{}"))).status == 202
        for wire in opened.wires[:3]:
            wire.close()
        await until(lambda: opened.door.load.connections == 1)


async def test_a_handshake_that_stops_half_way_is_given_up_and_forgotten() -> None:
    limits = replace(PATIENT, head_seconds=MOMENT_SECONDS)
    async with doorway(ROUTES, limits=limits, tls=server_context()) as opened:
        wire = await opened.wire(tls=False)
        await wire.send(b"\x16\x03\x01\x02\x00\x01")
        assert await wire.rest() == b""
        await until(lambda: opened.door.load.connections == 0)


async def test_what_is_no_handshake_is_hung_up_on() -> None:
    async with doorway(ROUTES, limits=PATIENT, tls=server_context()) as opened:
        wire = await opened.wire(tls=False)
        await wire.send(get("/take"))
        await wire.rest()
        await until(lambda: opened.door.load.connections == 0)


async def test_a_door_that_closes_does_not_wait_for_handshakes() -> None:
    async with doorway(ROUTES, limits=PATIENT, tls=server_context()) as opened:
        wire = await opened.wire(tls=False)
        await until(lambda: opened.door.load.connections == 1)
        await asyncio.wait_for(opened.door.close(grace_seconds=60), 5)
        assert await wire.rest() == b""


async def test_a_request_that_comes_with_the_end_of_the_handshake_is_answered() -> None:
    async with doorway(ROUTES, limits=PATIENT, tls=server_context()) as opened:
        for _ in range(20):
            assert (await opened.ask(post("/take", b"{}"))).status == 202


async def test_a_newcomer_gets_the_place_of_the_stranger_who_was_idle_longest() -> None:
    async with doorway(ROUTES, limits=replace(PATIENT, connections=3), manners=EVICTING) as opened:
        crowd = [await opened.wire(f"127.0.0.{n}") for n in (2, 3, 4)]
        for wire in (crowd[1], crowd[0], crowd[2]):
            assert (await wire.ask(get("/take"))).status == 202
            await next_moment()
        assert (await opened.ask(post("/take", b"{}"))).status == 202
        assert await crowd[1].rest() == b""
        assert (await crowd[0].ask(get("/take"))).status == 202
        assert (await crowd[2].ask(get("/take"))).status == 202
        assert opened.diary.refused == [("idle", "127.0.0.1")]
        await until(lambda: opened.door.load.connections == 3)


async def next_moment() -> None:
    """Waits until the loop's clock, which may count in milliseconds, has moved."""
    loop = asyncio.get_running_loop()
    now = loop.time()
    await until(lambda: loop.time() > now)


async def test_a_newcomer_gets_the_place_of_a_handshake_that_never_happened() -> None:
    limits = replace(PATIENT, connections=1)
    async with doorway(ROUTES, limits=limits, manners=EVICTING, tls=server_context()) as opened:
        silent = await opened.wire(ATTACKER, tls=False)
        await until(lambda: opened.door.load.connections == 1)
        assert (await opened.ask(post("/take", b"{}"))).status == 202
        assert await silent.rest() == b""


async def test_an_address_that_has_its_share_takes_nobodys_place() -> None:
    limits = replace(PATIENT, connections=4, address_share_percent=50)
    async with doorway(ROUTES, limits=limits, manners=EVICTING) as opened:
        others = [await opened.wire() for _ in range(2)]
        for _ in range(2):
            await opened.wire(ATTACKER)
        assert (await (await opened.wire(ATTACKER)).ask(b"")).status == 429
        for wire in others:
            assert (await wire.ask(get("/take"))).status == 202


async def test_an_agent_keeps_its_idle_connection_while_strangers_crowd_in() -> None:
    async def prove(request: Request) -> Answer:
        request.belongs_to(Holder(owner="alice@acme.test"))
        return Answer(204)

    routes = [*ROUTES, Route("GET", "/prove", prove)]
    async with doorway(routes, limits=replace(PATIENT, connections=4), manners=EVICTING) as opened:
        alice = await opened.wire()
        assert (await alice.ask(get("/prove"))).status == 204
        for n in range(2, 12):
            assert (await (await opened.wire(f"127.0.0.{n}")).ask(get("/take"))).status == 202
        assert (await alice.ask(get("/prove"))).status == 204


async def wire_to(port: int, address: str) -> Wire:
    return Wire(*await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0)))


@asynccontextmanager
async def full(world: World) -> AsyncIterator[Gateway]:
    """A gateway whose listener for agents takes nobody more."""
    async with world.gateway(limits=LimitSettings(connections=20), listen=TWO_LISTENERS) as gateway:
        crowd = [await wire_to(gateway.app.ports[0], "127.0.0.1") for _ in range(60)]
        yield gateway
        for wire in crowd:
            wire.close()


async def test_an_operator_is_answered_while_the_listener_for_agents_is_full(world: World) -> None:
    async with full(world) as gateway:
        for path in ("/health", "/ready", "/metrics"):
            reply = await asked_at(gateway.app.ports[1], path)
            assert reply.startswith(b"HTTP/1.1 200 "), reply


async def test_a_crowd_of_refused_connections_is_one_line_and_a_count(world: World) -> None:
    async with full(world) as gateway:
        shown = (await asked_at(gateway.app.ports[1], "/metrics")).decode()
        counted = [line for line in shown.splitlines() if line.startswith("amtp_connections_refused_total")]
        assert counted == ['amtp_connections_refused_total{cause="address"} 58.0']
        assert gateway.log.getvalue().count("connection_refused") == 1


async def asked_at(port: int, path: str) -> bytes:
    wire = await wire_to(port, "127.0.0.1")
    await wire.send(get(path, "Connection: close"))
    heard = await wire.rest()
    wire.close()
    return heard


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """The process may open this many files, its own ends of these connections among them."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_connections_leave_descriptors_to_the_database_and_to_operators(few_descriptors: None) -> None:
    async with doorway(ROUTES, limits=LIMITS, roles=frozenset({Role.AGENTS})) as opened:
        operators = await opened.door.open("127.0.0.1", 0, {Role.ADMIN})
        while not opened.diary.refused:
            await opened.wire()
            assert len(opened.wires) < DESCRIPTORS
        assert {cause for cause, _ in opened.diary.refused} == {"descriptors"}
        assert (await (await opened.wire()).ask(b"")).status == 503
        beside = Doorway(opened.door, operators, opened.diary, tls=False)
        assert (await beside.ask(get("/take"))).status == 202
