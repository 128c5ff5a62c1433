"""What the DNS said of domains is not kept for ever."""

from datetime import timedelta

from gateway.route.decide import DOWNGRADE_DAYS
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.queue.discovered import forget_domains, recall, remember


async def test_a_domain_is_remembered_while_its_silence_is_judged_by_it_and_then_forgotten(
    database: Database, clock: Clock
) -> None:
    now = clock.now()
    await remember(database, "young.test", "v=amtp1", now - timedelta(days=DOWNGRADE_DAYS - 1), None)
    await remember(database, "old.test", "v=amtp1", now - timedelta(days=DOWNGRADE_DAYS, hours=1), None)
    await forget_domains(database, DOWNGRADE_DAYS)
    assert await recall(database, "young.test") is not None
    assert await recall(database, "old.test") is None
