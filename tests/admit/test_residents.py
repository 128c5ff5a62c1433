"""Who lives here, as seen by two processes on one database."""

from uuid import uuid4

from gateway.admit.api_key import mint_key
from gateway.admit.directory import DirectoryWatch
from gateway.admit.residents import Residents
from gateway.store.agents import Agents, Profile
from gateway.store.audit import Audit
from gateway.store.database import Database
from gateway.store.keys import NewKey, directory_version


async def register(agents: Agents, local: str) -> None:
    key = mint_key()
    await agents.register(local, "acme.test", Profile(), NewKey(key.id, key.digest), "ops")


async def test_an_agent_registered_elsewhere_is_found_at_once_and_a_removed_one_soon(
    database: Database,
) -> None:
    agents = Agents(database, Audit(uuid4()))
    watch = DirectoryWatch(lambda: directory_version(database))
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
    watch.forget()
    found = await here.resolve(["alice@acme.test", "bob@acme.test"])
    assert {name: resident.state for name, resident in found.items()} == {"alice@acme.test": "retired"}
