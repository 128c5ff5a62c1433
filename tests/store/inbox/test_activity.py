"""When agents were last seen."""

from datetime import timedelta

from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.inbox.activity import Activity
from gateway.store.row_ids import Mint
from tests.store.inbox.test_inbox import box_of


async def test_those_who_were_seen_are_written_down_together(
    database: Database, mint: Mint, clock: Clock
) -> None:
    alice, bob, carol = [await box_of(database, mint, clock, local) for local in ("alice", "bob", "carol")]
    activity = Activity(database)
    for agent in (alice.agent, bob.agent, alice.agent):
        activity.saw(agent)
    await activity.write()
    rows = await database.fetch("select id, last_active_at from agents order by id")
    seen = {row["id"]: row["last_active_at"] for row in rows}
    assert seen[alice.agent] == seen[bob.agent] is not None
    assert seen[carol.agent] is None
    clock.offset += timedelta(hours=1)
    activity.saw(bob.agent)
    await activity.write()
    later = dict(await database.fetch("select id, last_active_at from agents"))
    assert later[bob.agent] > seen[bob.agent]
    assert later[alice.agent] == seen[alice.agent]
