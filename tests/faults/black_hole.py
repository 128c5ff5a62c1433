"""A destination that takes connections and never says a word, with much mail for it: the others do not feel it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from conformance.fake_peer import FakePeer
from gateway.flow.lane import WINDOW_FIRST
from gateway.flow.worker import CLAIM_PER_DESTINATION
from gateway.store.tallies import balance
from tests.federation import Federation, host_of
from tests.world import Agent, Gateway

PATIENCE_SECONDS = 120.0
LOOK_SECONDS = 0.02
SENDERS = 16  # that post at the same time
HOLE = "hole.test"

# Messages and their deliveries to one domain, all due, as an outage leaves them.
_QUEUE = """
with ids as (
    select (lpad(to_hex((extract(epoch from amtp_now()) * 1000)::bigint), 12, '0') || '7000' || '8000'
            || lpad(to_hex(n), 12, '0'))::uuid as id from generate_series(1::bigint, $1) as n
), m as (
    insert into messages (id, sender, proven, body, accepted_at)
    select id, $2, true, convert_to('{"version":"1.0","sender":"' || $2 || '","recipients":["bob@' || $3
                                    || '"],"payload":1}', 'UTF8'), amtp_now() from ids
), t as (
    insert into tallies (id, at, accepted, finished) values (gen_random_uuid(), amtp_now(), $1, 0)
)
insert into deliveries (message, recipient, address, destination, due, accepted_at, expires_at, expiry)
select id, 'bob@' || $3, 'bob@' || $3, $3, amtp_now(), amtp_now(), amtp_now() + interval '7 days', 'horizon' from ids
"""


@dataclass
class Hole:
    """A listener that keeps what connects, and how much it kept at once."""

    open: set[asyncio.StreamWriter] = field(default_factory=set)
    most: int = 0

    async def swallow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        self.most = max(self.most, len(self.open))
        with contextlib.suppress(ConnectionError):
            while await reader.read(65_536):
                pass
        self.open.discard(writer)
        writer.close()


@asynccontextmanager
async def black_hole(net: Federation) -> AsyncIterator[Hole]:
    """It is published, and takes connections while the block lasts."""
    hole, site = Hole(), net.ground.site(host_of(HOLE))
    server = await asyncio.start_server(hole.swallow, site.host, site.port)
    net.publish(HOLE, host_of(HOLE))
    try:
        yield hole
    finally:
        server.close()
        for writer in hole.open:
            writer.transport.abort()


async def deliver_beside(net: Federation, gateway: Gateway, *, queued: int, messages: int) -> None:
    """Queues so many for the hole; then everything sent to somebody else arrives while they all still wait."""
    async with black_hole(net) as hole, net.peer() as peer:
        alice = await gateway.register("alice")
        database = gateway.app.database
        await database.execute(_QUEUE, queued, alice.address, HOLE)
        await _until_swallowed(hole)
        await _send(alice, peer, messages)
        leased = "select count(*) from deliveries where destination = $1 and token is not null"
        waiting = "select count(*) from deliveries where destination = $1"
        assert await database.fetchval(waiting, HOLE) == queued
        assert await database.fetchval(leased, HOLE) <= CLAIM_PER_DESTINATION
        assert 0 < hole.most <= WINDOW_FIRST
        assert (await balance(database)).unaccounted == 0


async def _until_swallowed(hole: Hole) -> None:
    """Until somebody waits in the hole."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not hole.open:
            await asyncio.sleep(LOOK_SECONDS)


async def _send(sender: Agent, peer: FakePeer, messages: int) -> None:
    """Posts them all, and waits until the peer has each of them once."""
    serials = iter(range(messages))
    posted: list[str] = []

    async def post() -> None:
        for serial in serials:
            reply = await sender.send(f"bob@{peer.domain}", payload=serial)
            assert reply.status == 202, reply.text
            posted.append(reply.json["message_id"])

    await asyncio.gather(*(post() for _ in range(SENDERS)))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(peer.posts) < messages or not all(request.body for request in peer.posts):
            await asyncio.sleep(LOOK_SECONDS)
    arrived = [message["message_id"] for request in peer.posts for message in request.messages]
    assert sorted(arrived) == sorted(posted)
