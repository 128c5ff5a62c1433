"""Who lives here, as seen by two processes on one database."""

from functools import partial
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest

from gateway.admit.api_key import mint_key
from gateway.admit.remembered import DirectoryWatch
from gateway.admit.residents import Residents
from gateway.store.agents import keys
from gateway.store.agents.agents import Agents, Profile
from gateway.store.agents.keys import NamedKeys, NewKey, directory_changes
from gateway.store.audit import Audit
from gateway.store.clock import Clock
from gateway.store.database import Database


async def register(agents: Agents, local: str) -> None:
    key = mint_key()
    await agents.register(local, "acme.test", Profile(), NewKey(key.id, key.digest), "ops")


async def look(watch: DirectoryWatch, database: Database) -> None:
    """What the watch does each second."""
    asked_at = monotonic()
    watch.seen(await directory_changes(database, watch.version), asked_at)


class Counting(Database):
    """A database that counts what it is asked."""

    asked = 0

    async def fetch(self, statement: str, *arguments: object) -> list[Any]:
        self.asked += 1
        return await super().fetch(statement, *arguments)


async def test_whoever_is_registered_or_changed_elsewhere_costs_no_look_up_of_anybody_else(
    database: Database, dsn: str, clock: Clock
) -> None:
    elsewhere = Agents(database, Audit(uuid4()))
    for local in ("alice", "bob"):
        await register(elsewhere, local)
    counting = Counting(dsn, clock=clock)
    await counting.open()
    watch = DirectoryWatch(partial(directory_changes, counting))
    here = Residents(counting, watch)
    known = await here.resolve(["alice@acme.test", "bob@acme.test"])
    for number in range(5):
        await register(elsewhere, f"new{number}")
    await elsewhere.retire("new0@acme.test", "ops")
    await NamedKeys(database, Audit(uuid4())).add(NewKey("k", b"d"), "ci", ["submit"], "ops")
    await look(watch, counting)
    asked = counting.asked
    assert await here.resolve(["alice@acme.test", "bob@acme.test"]) == known
    assert counting.asked == asked
    await elsewhere.retire("bob@acme.test", "ops")
    await look(watch, counting)
    found = await here.resolve(["alice@acme.test", "bob@acme.test"])
    assert found["bob@acme.test"].state == "retired"
    assert counting.asked == asked + 2
    await counting.close()


async def test_a_change_that_names_nobody_makes_everything_forgotten(database: Database) -> None:
    agents, watch = Agents(database, Audit(uuid4())), DirectoryWatch(partial(directory_changes, database))
    here = Residents(database, watch)
    await register(agents, "alice")
    await here.resolve(["alice@acme.test"])
    # As a release does that doesn't note whom a change concerns.
    await database.execute("update agents set state = 'retired'")
    await database.execute("update directory_version set version = version + 1")
    await look(watch, database)
    assert (await here.resolve(["alice@acme.test"]))["alice@acme.test"].state == "retired"


async def test_only_the_last_changes_are_kept(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "CHANGES_KEPT", 3)
    agents = Agents(database, Audit(uuid4()))
    for number in range(6):
        await register(agents, f"n{number}")
    assert await database.fetchval("select count(*) from directory_changes") == 3
    now = (await directory_changes(database, None)).version
    assert (await directory_changes(database, now - 3)).since is not None
    assert (await directory_changes(database, now - 4)).since is None


async def test_an_agent_registered_elsewhere_is_found_at_once_and_a_removed_one_soon(
    database: Database,
) -> None:
    agents = Agents(database, Audit(uuid4()))
    watch = DirectoryWatch(partial(directory_changes, database))
    here = Residents(database, watch)
    await register(agents, "alice")
    assert set(await here.resolve(["alice@acme.test", "bob@acme.test"])) == {"alice@acme.test"}

    await register(agents, "bob")
    assert set(await here.resolve(["alice@acme.test", "bob@acme.test"])) == {
        "alice@acme.test",
        "bob@acme.test",
    }

    await agents.retire("alice@acme.test", "ops")
    await agents.remove("bob@acme.test", "drop", "ops")
    await look(watch, database)
    found = await here.resolve(["alice@acme.test", "bob@acme.test"])
    assert {name: resident.state for name, resident in found.items()} == {"alice@acme.test": "retired"}
