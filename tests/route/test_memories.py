"""What the directory remembers, in the table where it outlives a restart."""

from datetime import timedelta

from gateway.route.decide import HostMemory, Memory
from gateway.route.memories import StoredMemories
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.queue import discovered


async def test_what_is_remembered_last_is_recalled(database: Database, clock: Clock) -> None:
    memories, now = StoredMemories(database), clock.now()
    assert await memories.recall("b.test") is None
    assert await memories.recall_host("gw.b.test") is None
    for hours in (0, 1):
        at = now + timedelta(hours=hours)
        domain = Memory("b.test", f"v=amtp1;gateway=https://gw{hours}.b.test", at, at)
        host = HostMemory("gw.b.test", (f"192.0.2.{hours}", "2001:db8::1"), at)
        await memories.remember(domain)
        await memories.remember_host(host)
        assert await memories.recall("b.test") == domain
        assert await memories.recall_host("gw.b.test") == host


async def test_addresses_are_forgotten_when_they_are_too_old_to_serve(
    database: Database, clock: Clock
) -> None:
    memories = StoredMemories(database)
    for host, days in (("old.test", 8), ("new.test", 6)):
        told_at = clock.now() - timedelta(days=days)
        await memories.remember_host(HostMemory(host, ("192.0.2.1",), told_at))
    await discovered.forget_hosts(database, 7)
    assert await memories.recall_host("old.test") is None
    assert await memories.recall_host("new.test") is not None
