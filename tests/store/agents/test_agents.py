"""The register: an agent's life from registration to removal, and the keys that go with it."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from gateway.protocol.errors import AMTPError, Code
from gateway.store.agents.agents import Agents, Profile, Search, find_residents
from gateway.store.agents.keys import NamedKeys, NewKey, directory_changes, find_keys
from gateway.store.audit import Audit, verify
from gateway.store.clock import Clock
from gateway.store.database import Database

PUSH = Profile(delivery_mode="push", push_url="https://hooks.test/in", push_secrets=b"sealed")


@pytest.fixture
def audit() -> Audit:
    return Audit(uuid4())


@pytest.fixture
def agents(database: Database, audit: Audit) -> Agents:
    return Agents(database, audit)


def key(name: str) -> NewKey:
    return NewKey(name, name.encode().ljust(32))


async def live(database: Database, *ids: str) -> set[str]:
    _, keys = await find_keys(database, ids)
    return {key.id for key in keys.values() if key.ended is None}


async def acts(database: Database) -> list[str]:
    return [row["act"] for row in await database.fetch("select act from audit order by number")]


async def test_a_registered_agent_lives_here_and_its_key_opens(database: Database, agents: Agents) -> None:
    agent = await agents.register("alice", "acme.test", Profile(), key("k1"), "ops")
    _, residents = await find_residents(database, ["alice@acme.test", "bob@acme.test"])
    _, keys = await find_keys(database, ["k1", "k2"])

    assert (agent.name, agent.state, agent.delivery_mode) == ("alice@acme.test", "active", "pull")
    assert {name: resident.id for name, resident in residents.items()} == {"alice@acme.test": agent.id}
    assert [(k.agent, k.scopes) for k in keys.values()] == [("alice@acme.test", frozenset({"agent"}))]


async def test_the_same_name_in_two_domains_is_two_agents(agents: Agents) -> None:
    one = await agents.register("alice", "acme.test", Profile(), key("k1"), "ops")
    other = await agents.register("alice", "zeta.test", Profile(), key("k2"), "ops")

    assert one.id != other.id


async def test_a_name_in_use_is_a_conflict_and_changes_nothing(database: Database, agents: Agents) -> None:
    await agents.register("alice", "acme.test", Profile(), key("k1"), "ops")

    with pytest.raises(AMTPError) as refused:
        await agents.register("alice", "acme.test", PUSH, key("k2"), "ops")

    assert refused.value.code is Code.CONFLICT
    assert await live(database, "k1", "k2") == {"k1"}
    assert (await agents.get("alice@acme.test")).delivery_mode == "pull"


async def test_of_many_who_register_one_name_at_once_exactly_one_succeeds(
    database: Database, agents: Agents
) -> None:
    results = await asyncio.gather(
        *(agents.register("alice", "acme.test", Profile(), key(f"k{n}"), "ops") for n in range(8)),
        return_exceptions=True,
    )

    assert len([result for result in results if not isinstance(result, AMTPError)]) == 1
    assert await database.fetchval("select count(*) from keys") == 1


async def test_every_change_counts_up_the_directory_and_is_audited(
    database: Database, agents: Agents
) -> None:
    versions = [(await directory_changes(database, None)).version]
    for change in (
        agents.register("alice", "acme.test", Profile(), key("k1"), "ops"),
        agents.update("alice@acme.test", Profile(details={"description": "sells"}), "ops"),
        agents.rotate_key("alice@acme.test", key("k2"), 60, "ops"),
        agents.retire("alice@acme.test", "ops"),
        agents.remove("alice@acme.test", "drop", "ops"),
    ):
        await change
        versions.append((await directory_changes(database, None)).version)

    assert versions == sorted(set(versions))
    assert await acts(database) == [
        "agent.registered",
        "agent.changed",
        "agent.key_rotated",
        "agent.retired",
        "agent.removed",
    ]
    assert await verify(database) == []


async def test_a_rotated_key_lives_for_its_grace_and_an_older_one_dies_at_once(
    database: Database, agents: Agents, clock: Clock
) -> None:
    await agents.register("alice", "acme.test", Profile(), key("k1"), "ops")
    await agents.rotate_key("alice@acme.test", key("k2"), 3600, "ops")
    assert await live(database, "k1", "k2") == {"k1", "k2"}

    await agents.rotate_key("alice@acme.test", key("k3"), 3600, "ops")
    assert await live(database, "k1", "k2", "k3") == {"k2", "k3"}

    clock.offset += timedelta(seconds=3601)
    assert await live(database, "k1", "k2", "k3") == {"k3"}


async def test_a_rotation_without_grace_ends_the_old_key_at_once(database: Database, agents: Agents) -> None:
    await agents.register("alice", "acme.test", Profile(), key("k1"), "ops")
    await agents.rotate_key("alice@acme.test", key("k2"), 0, "ops")

    assert await live(database, "k1", "k2") == {"k2"}


async def test_a_retired_agent_has_no_key_but_still_lives_here(database: Database, agents: Agents) -> None:
    registered = await agents.register("alice", "acme.test", Profile(), key("k1"), "ops")
    retired = await agents.retire("alice@acme.test", "ops")
    again = await agents.retire("alice@acme.test", "ops")
    _, residents = await find_residents(database, ["alice@acme.test"])

    assert (retired.state, again.state) == ("retired", "retired")
    assert await live(database, "k1") == set()
    assert residents["alice@acme.test"].id == registered.id
    with pytest.raises(AMTPError, match="retired"):
        await agents.rotate_key("alice@acme.test", key("k2"), 0, "ops")


async def test_registering_again_gives_a_new_key_and_the_old_inbox(
    database: Database, agents: Agents
) -> None:
    first = await agents.register("alice", "acme.test", PUSH, key("k1"), "ops")
    await agents.retire("alice@acme.test", "ops")
    second = await agents.register("alice", "acme.test", Profile(), key("k2"), "ops")

    assert (second.id, second.state, second.delivery_mode) == (first.id, "active", "pull")
    assert second.retired_at is None
    assert await live(database, "k1", "k2") == {"k2"}


async def test_whoever_takes_the_name_of_a_removed_agent_does_not_get_its_inbox(
    database: Database, agents: Agents
) -> None:
    first = await agents.register("alice", "acme.test", Profile(), key("k1"), "ops")
    await agents.remove("alice@acme.test", "drop", "ops")
    _, residents = await find_residents(database, ["alice@acme.test"])
    second = await agents.register("alice", "acme.test", Profile(), key("k2"), "ops")

    assert residents == {}
    assert second.id != first.id
    assert await live(database, "k1", "k2") == {"k2"}


async def test_push_takes_an_url_which_may_come_earlier(agents: Agents) -> None:
    await agents.register("alice", "acme.test", Profile(), key("k1"), "ops")

    with pytest.raises(AMTPError, match="push_target") as refused:
        await agents.update("alice@acme.test", Profile(delivery_mode="push"), "ops")
    await agents.update("alice@acme.test", Profile(push_url="https://hooks.test/in"), "ops")
    changed = await agents.update("alice@acme.test", Profile(delivery_mode="push"), "ops")

    assert refused.value.details == {"field": "push_target"}
    assert (changed.delivery_mode, changed.push_url) == ("push", "https://hooks.test/in")


async def test_a_change_leaves_alone_what_it_does_not_name_and_null_takes_a_detail_away(
    agents: Agents,
) -> None:
    details = {"description": "sells", "supported_schemas": ["agntcy:shop.*"]}
    await agents.register("alice", "acme.test", Profile(details=details), key("k1"), "ops")
    changed = await agents.update("alice@acme.test", Profile(details={"description": None}), "ops")

    assert changed.details == {"supported_schemas": ["agntcy:shop.*"]}


@pytest.mark.parametrize(
    "call",
    [
        lambda agents: agents.get("nobody@acme.test"),
        lambda agents: agents.update("nobody@acme.test", Profile(), "ops"),
        lambda agents: agents.rotate_key("nobody@acme.test", key("k"), 0, "ops"),
        lambda agents: agents.retire("nobody@acme.test", "ops"),
        lambda agents: agents.remove("nobody@acme.test", "drop", "ops"),
    ],
)
async def test_who_is_not_here_is_agent_unknown(agents: Agents, call: object) -> None:
    with pytest.raises(AMTPError) as refused:
        await call(agents)  # type: ignore[operator]  # a table of calls

    assert refused.value.code is Code.AGENT_UNKNOWN


async def test_postmasters_are_made_once_hidden_and_without_a_key(database: Database, agents: Agents) -> None:
    await agents.ensure_postmasters(["acme.test", "zeta.test"])
    version = (await directory_changes(database, None)).version
    await agents.ensure_postmasters(["acme.test", "zeta.test"])

    assert (await directory_changes(database, None)).version == version
    assert [agent.name for agent in await agents.find(Search(), "", 10)] == [
        "postmaster@acme.test",
        "postmaster@zeta.test",
    ]
    assert await agents.find(Search(hidden=False), "", 10) == []
    assert await database.fetchval("select count(*) from keys") == 0


@pytest.mark.parametrize(
    ("search", "found"),
    [
        (Search(), ["bob", "carol", "dave"]),
        (Search(domain="zeta.test"), ["dave"]),
        (Search(state="retired"), ["carol"]),
        (Search(delivery_mode="push"), ["bob"]),
        (Search(schema="agntcy:shop.*"), ["dave"]),
        (Search(text="SELLS"), ["dave"]),
        (Search(text="l@ACME"), ["carol"]),
        (Search(text="%"), []),
        (Search(hidden=False), ["carol", "dave"]),
        (Search(active_within=timedelta(days=30)), ["bob", "dave"]),
        (Search(active_within=timedelta(days=30), hidden=False), ["dave"]),
    ],
)
async def test_a_search_finds_those_for_whom_every_condition_holds(
    agents: Agents, clock: Clock, search: Search, found: list[str]
) -> None:
    await agents.register("carol", "acme.test", Profile(), key("k2"), "ops")
    await agents.retire("carol@acme.test", "ops")
    clock.offset += timedelta(days=60)
    await agents.register(
        "bob", "acme.test", Profile("push", "https://x.test", b"", {"hidden": True}), key("k1"), "ops"
    )
    details = {"description": "Sells shoes", "supported_schemas": ["agntcy:shop.*"]}
    await agents.register("dave", "zeta.test", Profile(details=details), key("k3"), "ops")

    names = [agent.name.partition("@")[0] for agent in await agents.find(search, "", 10)]

    assert names == found


async def test_a_listing_goes_on_behind_the_last_name(agents: Agents) -> None:
    for local in ("alice", "bob", "carol"):
        await agents.register(local, "acme.test", Profile(), key(local), "ops")

    first = await agents.find(Search(), "", 2)
    second = await agents.find(Search(), first[-1].name, 2)

    assert [agent.name[0] for agent in first + second] == ["a", "b", "c"]


async def test_a_named_key_is_listed_and_dies_when_revoked_by_name_or_id(
    database: Database, audit: Audit
) -> None:
    keys = NamedKeys(database, audit)
    await keys.add(key("k1"), "laptop", ["admin"], "cli")
    await keys.add(key("k2"), "robot", ["submit"], "cli")
    assert await live(database, "k1", "k2") == {"k1", "k2"}

    by_name, by_id, again = [await keys.revoke(which, "cli") for which in ("laptop", "k2", "laptop")]

    assert by_name
    assert by_id
    assert (by_name[0].id, by_id[0].name, again) == ("k1", "robot", None)
    assert await live(database, "k1", "k2") == set()
    assert [(k.name, k.scopes, k.revoked_at is None) for k in await keys.all()] == [
        ("laptop", ("admin",), False),
        ("robot", ("submit",), False),
    ]


async def test_a_name_belongs_to_one_live_key(database: Database, audit: Audit) -> None:
    keys = NamedKeys(database, audit)
    await keys.add(key("k1"), "laptop", ["admin"], "cli")

    with pytest.raises(AMTPError, match="laptop"):
        await keys.add(key("k2"), "laptop", ["admin"], "cli")
    await keys.revoke("laptop", "cli")
    await keys.add(key("k3"), "laptop", ["admin"], "cli")

    assert await live(database, "k1", "k2", "k3") == {"k3"}


async def test_a_key_kept_in_a_file_replaces_its_forerunner_and_stays_revoked(
    database: Database, audit: Audit
) -> None:
    keys = NamedKeys(database, audit)
    await asyncio.gather(*(keys.ensure(key("k1"), "file", ["admin"], "start") for _ in range(4)))
    assert await live(database, "k1") == {"k1"}

    await keys.ensure(key("k2"), "file", ["admin"], "start")
    assert await live(database, "k1", "k2") == {"k2"}

    await keys.revoke("file", "cli")
    await keys.ensure(key("k2"), "file", ["admin"], "start")
    assert await live(database, "k1", "k2") == set()


async def test_an_agents_key_is_none_of_the_named_ones(
    database: Database, agents: Agents, audit: Audit
) -> None:
    await agents.register("alice", "acme.test", Profile(), key("k1"), "ops")
    keys = NamedKeys(database, audit)

    assert await keys.all() == []
    assert await keys.revoke("k1", "cli") is None
    assert await live(database, "k1") == {"k1"}
