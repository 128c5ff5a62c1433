"""The operators' door to the register, and discovery, over HTTP."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from gateway.protocol.timestamp import parse_timestamp
from gateway.store.agents.agents import Agents
from gateway.store.agents.push_secrets import live_secrets
from gateway.store.sealed import Sealer
from tests.world import Gateway, Reply, World

AGENTS = "/v1/admin/agents"


@pytest.fixture
async def two_domains(world: World) -> AsyncIterator[Gateway]:
    async with world.gateway(domains=("acme.test", "zeta.test")) as gateway:
        yield gateway


async def call(gw: Gateway, method: str, path: str, body: Any = None) -> Reply:
    return await gw.call(method, path, key=gw.admin_key, json=body)


async def opens(gw: Gateway, key: str) -> bool:
    return (await gw.call("GET", "/v1/discovery/agents", key=key)).status == 200


async def test_registering_answers_with_the_address_and_a_key_that_opens(gw: Gateway) -> None:
    reply = await call(gw, "POST", AGENTS, {"address": "Alice", "description": "sells shoes"})
    agent = reply.json["agent"]

    assert reply.status == 201
    assert reply.json["message"]
    assert (agent["address"], agent["delivery_mode"], agent["state"]) == ("alice@acme.test", "pull", "active")
    assert await opens(gw, agent["api_key"])
    shown = (await call(gw, "GET", f"{AGENTS}/alice")).json["agent"]
    [key] = shown.pop("keys")
    assert key["key"] == agent["api_key"].split("_")[1]
    assert shown == {name: value for name, value in agent.items() if name != "api_key"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "address"),
        ({"address": 7}, "address"),
        ({"address": ""}, "address"),
        ({"address": "two words"}, "address"),
        ({"address": "alice@elsewhere.test"}, "address"),
        ({"address": "alice+tag"}, "address"),
        ({"address": "postmaster"}, "address"),
        ({"address": "Abuse@acme.test"}, "address"),
        ({"address": "alice", "delivery_mode": "carrier pigeon"}, "delivery_mode"),
        ({"address": "alice", "delivery_mode": "push"}, "push_target"),
        ({"address": "alice", "push_target": "http://hooks.test/"}, "push_target"),
        ({"address": "alice", "push_target": "https://user@hooks.test/"}, "push_target"),
        ({"address": "alice", "push_target": "https://x.test:25/"}, "push_target"),
        ({"address": "alice", "push_target": "https://192.168.0.1/"}, "push_target"),
        ({"address": "alice", "push_target": "https://x.test/", "push_secret": "short"}, "push_secret"),
        ({"address": "alice", "push_target": "https://x.test/", "push_secret": "two\n" * 8}, "push_secret"),
        (
            {"address": "alice", "push_target": "https://x.test/", "push_secret": "whsec_no-base64!"},
            "push_secret",
        ),
        ({"address": "alice", "description": "two\nlines"}, "description"),
        ({"address": "alice", "description": "x" * 1001}, "description"),
        ({"address": "alice", "capabilities": "all"}, "capabilities"),
        ({"address": "alice", "capabilities": ["x"] * 101}, "capabilities"),
        ({"address": "alice", "supported_schemas": ["ok", ""]}, "supported_schemas[1]"),
        ({"address": "alice", "hidden": "yes"}, "hidden"),
        ({"address": "alice", "api_key": "mine"}, "api_key"),
        (["alice"], "body"),
    ],
)
async def test_a_registration_that_is_wrong_names_the_field_and_changes_nothing(
    gw: Gateway, body: object, field: str
) -> None:
    reply = await call(gw, "POST", AGENTS, body)

    assert (reply.status, reply.code) == (400, "INVALID_MESSAGE_FORMAT")
    assert reply.json["error"]["details"]["field"] == field
    assert field.partition("[")[0] in reply.json["error"]["message"]
    assert (await call(gw, "GET", AGENTS)).json["agents"] == await postmasters(gw)


async def postmasters(gw: Gateway) -> list[Any]:
    agents = (await call(gw, "GET", AGENTS)).json["agents"]
    return [agent for agent in agents if agent["address"].startswith("postmaster@")]


async def test_a_push_agent_gets_a_secret_once_which_is_kept_sealed(gw: Gateway) -> None:
    body = {"address": "alice", "delivery_mode": "push", "push_target": "https://hooks.test/in"}
    agent = (await call(gw, "POST", AGENTS, body)).json["agent"]
    shown = await call(gw, "GET", f"{AGENTS}/alice")
    sealed = await gw.app.database.fetchval("select push_secrets from agents where local = 'alice'")

    assert agent["push_secret"].startswith("whsec_")
    assert agent["push_target"] == "https://hooks.test/in"
    assert "whsec_" not in shown.text
    assert Sealer.of(gw.app.config.data).open(sealed) == agent["push_secret"]


@pytest.mark.parametrize("secret", ["a-secret-of-its-own", "ein Wörtchen für sich"])
async def test_an_agents_own_secret_is_taken_and_never_shown(gw: Gateway, secret: str) -> None:
    body = {"address": "alice", "push_target": "https://hooks.test/in", "push_secret": secret}
    reply = await call(gw, "POST", AGENTS, body)

    assert reply.status == 201
    assert secret not in reply.text


async def test_an_agent_turns_to_push_with_its_first_url_and_gets_its_secret_then(gw: Gateway) -> None:
    await gw.register("alice")
    without = await call(gw, "PATCH", f"{AGENTS}/alice", {"delivery_mode": "push"})
    body = {"delivery_mode": "push", "push_target": "https://hooks.test/in"}
    first = await call(gw, "PATCH", f"{AGENTS}/alice", body)
    second = await call(gw, "PATCH", f"{AGENTS}/alice", {"push_target": "https://hooks.test/other"})

    assert (without.status, without.json["error"]["details"]) == (400, {"field": "push_target"})
    assert first.json["agent"]["push_secret"].startswith("whsec_")
    assert "push_secret" not in second.json["agent"]
    assert second.json["agent"]["push_target"] == "https://hooks.test/other"


async def rotated(gw: Gateway, **said: Any) -> Reply:
    return await call(gw, "POST", f"{AGENTS}/alice/rotate-push-secret", said)


async def test_a_rotated_secret_is_shown_once_and_signs_beside_the_old_one_until_the_grace_ends(
    gw: Gateway,
) -> None:
    body = {"address": "alice", "push_target": "https://hooks.test/in"}
    first = (await call(gw, "POST", AGENTS, body)).json["agent"]["push_secret"]
    reply = await rotated(gw, grace_seconds=60)
    second = reply.json["agent"]["push_secret"]
    sealed = await gw.app.database.fetchval("select push_secrets from agents where local = 'alice'")
    text, now = Sealer.of(gw.app.config.data).open(sealed), gw.app.clock.now()

    assert live_secrets(text, now) == [second, first]
    assert live_secrets(text, now + timedelta(seconds=61)) == [second]
    assert parse_timestamp(reply.json["previous_secret_ends_at"], "") > now
    assert second not in (await call(gw, "GET", f"{AGENTS}/alice")).text


async def test_an_agents_own_new_secret_is_taken_and_not_shown(gw: Gateway) -> None:
    await call(gw, "POST", AGENTS, {"address": "alice", "push_target": "https://hooks.test/in"})
    reply = await rotated(gw, push_secret="another-of-its-own")
    sealed = await gw.app.database.fetchval("select push_secrets from agents where local = 'alice'")

    assert (reply.status, "another-of-its-own" in reply.text) == (200, False)
    assert (
        live_secrets(Sealer.of(gw.app.config.data).open(sealed), gw.app.clock.now())[0]
        == "another-of-its-own"
    )


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"grace_seconds": -1}, "grace_seconds"),
        ({"grace_seconds": 31 * 86_400}, "grace_seconds"),
        ({"push_secret": "short"}, "push_secret"),
        ({"secret": "x" * 20}, "secret"),
    ],
)
async def test_a_rotation_that_is_wrong_names_the_field(
    gw: Gateway, said: dict[str, Any], field: str
) -> None:
    await call(gw, "POST", AGENTS, {"address": "alice", "push_target": "https://hooks.test/in"})
    reply = await rotated(gw, **said)

    assert (reply.status, reply.json["error"]["details"]["field"]) == (400, field)


async def test_an_agent_that_is_pushed_nowhere_has_no_secret_to_rotate(gw: Gateway) -> None:
    await gw.register("alice")
    assert [
        (await rotated(gw)).code,
        (await call(gw, "POST", f"{AGENTS}/nobody/rotate-push-secret")).code,
    ] == [
        "CONFLICT",
        "AGENT_UNKNOWN",
    ]


async def test_a_change_says_what_is_now_and_null_takes_away(gw: Gateway) -> None:
    await gw.register("alice", description="sells shoes", capabilities=["orders"])
    agent = (await call(gw, "PATCH", f"{AGENTS}/alice", {"description": None, "hidden": True})).json["agent"]

    assert "description" not in agent
    assert (agent["capabilities"], agent["hidden"]) == (["orders"], True)


async def test_a_name_in_use_is_a_conflict(gw: Gateway) -> None:
    await gw.register("alice")
    reply = await call(gw, "POST", AGENTS, {"address": "alice"})

    assert (reply.status, reply.code) == (409, "CONFLICT")


async def test_a_rotated_key_works_beside_the_new_one_until_its_grace_ends(gw: Gateway) -> None:
    alice = await gw.register("alice")
    reply = await call(gw, "POST", f"{AGENTS}/alice/rotate-key", {"grace_seconds": 60})
    new = reply.json["agent"]["api_key"]

    assert reply.json["previous_key_ends_at"]
    assert await opens(gw, alice.key)
    assert await opens(gw, new)
    gw.turn(61)
    assert not await opens(gw, alice.key)
    assert await opens(gw, new)


@pytest.mark.parametrize(("body", "alive"), [(None, True), ({"grace_seconds": 0}, False)])
async def test_the_old_key_gets_a_day_unless_it_is_ended_at_once(
    gw: Gateway, body: object, alive: bool
) -> None:
    alice = await gw.register("alice")
    await call(gw, "POST", f"{AGENTS}/alice/rotate-key", body)

    assert await opens(gw, alice.key) is alive


@pytest.mark.parametrize("seconds", [-1, 2_592_001, "60", 1.5, True])
async def test_a_grace_out_of_range_is_refused(gw: Gateway, seconds: object) -> None:
    alice = await gw.register("alice")
    reply = await call(gw, "POST", f"{AGENTS}/alice/rotate-key", {"grace_seconds": seconds})

    assert (reply.status, reply.json["error"]["details"]["field"]) == (400, "grace_seconds")
    assert await opens(gw, alice.key)


async def test_a_deleted_agent_is_retired_and_comes_back_with_a_new_key(gw: Gateway) -> None:
    alice = await gw.register("alice")
    retired = await call(gw, "DELETE", f"{AGENTS}/alice")
    again = await call(gw, "DELETE", f"{AGENTS}/alice")

    assert retired.json["agent"]["state"] == again.json["agent"]["state"] == "retired"
    assert retired.json["agent"]["retired_at"]
    assert not await opens(gw, alice.key)
    back = await gw.register("alice")
    assert await opens(gw, back.key)
    assert not await opens(gw, alice.key)


async def test_mail_still_reaches_a_retired_agent_and_its_successor_by_registration(gw: Gateway) -> None:
    bob = await gw.register("bob")
    await gw.register("alice")
    await call(gw, "DELETE", f"{AGENTS}/alice")
    sent = await bob.send("alice@acme.test")

    assert (sent.status, sent.json["recipients"][0]["status"]) == (202, "delivered")


async def test_only_a_removed_agent_is_unknown(gw: Gateway) -> None:
    bob = await gw.register("bob")
    await gw.register("alice")
    removed = await call(gw, "DELETE", f"{AGENTS}/alice?mail=drop")
    sent = await bob.send("alice@acme.test")

    assert removed.json["agent"]["state"] == "removed"
    assert (sent.status, sent.code) == (404, "AGENT_UNKNOWN")
    assert (await call(gw, "GET", f"{AGENTS}/alice")).code == "AGENT_UNKNOWN"


async def test_mail_is_returned_or_dropped_and_nothing_else(gw: Gateway) -> None:
    await gw.register("alice")
    reply = await call(gw, "DELETE", f"{AGENTS}/alice?mail=burn")

    assert (reply.status, reply.code) == (400, "INVALID_MESSAGE_FORMAT")
    assert (await call(gw, "GET", f"{AGENTS}/alice")).json["agent"]["state"] == "active"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "nobody"),
        ("PATCH", "nobody"),
        ("DELETE", "nobody"),
        ("DELETE", "nobody?mail=drop"),
        ("POST", "nobody/rotate-key"),
        ("GET", "not%20a%20name"),
        ("GET", "alice@elsewhere.test"),
    ],
)
async def test_who_is_not_registered_is_unknown(gw: Gateway, method: str, path: str) -> None:
    reply = await call(gw, method, f"{AGENTS}/{path}", {} if method == "PATCH" else None)

    assert (reply.status, reply.code) == (404, "AGENT_UNKNOWN")


@pytest.mark.parametrize(
    ("method", "path"),
    [("PATCH", "postmaster"), ("DELETE", "postmaster?mail=drop"), ("POST", "postmaster/rotate-key")],
)
async def test_the_gateways_own_inboxes_stay_as_they_are(gw: Gateway, method: str, path: str) -> None:
    await Agents(gw.app.database, gw.app.audit).ensure_postmasters(["acme.test"])
    reply = await call(gw, method, f"{AGENTS}/{path}", {} if method == "PATCH" else None)

    assert (reply.status, reply.code) == (403, "POLICY_DENIED")
    assert (await call(gw, "GET", f"{AGENTS}/postmaster")).json["agent"]["state"] == "active"


async def test_with_several_domains_an_agent_is_named_with_its_own(two_domains: Gateway) -> None:
    short = await call(two_domains, "POST", AGENTS, {"address": "alice"})
    for domain in ("acme.test", "zeta.test"):
        assert (await call(two_domains, "POST", AGENTS, {"address": f"alice@{domain}"})).status == 201
    ambiguous = await call(two_domains, "GET", f"{AGENTS}/alice")
    exact = await call(two_domains, "GET", f"{AGENTS}/alice@zeta.test")

    assert (short.status, ambiguous.status) == (400, 400)
    assert "zeta.test" in short.json["error"]["message"]
    assert exact.json["agent"]["address"] == "alice@zeta.test"


async def test_a_listing_pages_with_a_cursor_and_filters(gw: Gateway) -> None:
    for local in ("alice", "bob", "carol"):
        await gw.register(local)
    await call(gw, "DELETE", f"{AGENTS}/bob")

    first = (await call(gw, "GET", f"{AGENTS}?limit=2&domain=acme.test")).json
    second = (await call(gw, "GET", f"{AGENTS}?limit=2&cursor={first['cursor']}")).json
    retired = (await call(gw, "GET", f"{AGENTS}?state=retired")).json

    assert [agent["address"][0] for agent in first["agents"]] == ["a", "b"]
    assert (first["count"], first["has_more"]) == (2, True)
    assert second["agents"][0]["address"] == "carol@acme.test"
    assert "cursor" not in second
    assert [agent["address"] for agent in retired["agents"]] == ["bob@acme.test"]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "state=dead", "delivery_mode=x", "q="])
async def test_a_wrong_parameter_is_named(gw: Gateway, query: str) -> None:
    reply = await call(gw, "GET", f"{AGENTS}?{query}")

    assert reply.status == 400
    assert query.partition("=")[0] in reply.json["error"]["message"]


async def test_discovery_shows_no_url_and_no_hidden_or_retired_agent(gw: Gateway) -> None:
    alice = await gw.register("alice", description="sells shoes", supported_schemas=["agntcy:shop.*"])
    await gw.register("bob", delivery_mode="push", push_target="https://inside.test/hook?token=1")
    await gw.register("carol", hidden=True)
    await gw.register("dave")
    await call(gw, "DELETE", f"{AGENTS}/dave")
    reply = await gw.call("GET", "/v1/discovery/agents", key=alice.key)

    assert [agent["address"] for agent in reply.json["agents"]] == ["alice@acme.test", "bob@acme.test"]
    assert reply.json["agent_count"] == 2
    assert reply.json["agents"][0]["supported_schemas"] == ["agntcy:shop.*"]
    for secret in ("inside.test", "push_target", "carol", "dave", "api_key"):
        assert secret not in reply.text


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("?delivery_mode=push", ["bob"]),
        ("?q=shoes", ["alice"]),
        ("?schema=agntcy:shop.*", ["alice"]),
        ("?active_only=true", ["alice", "bob"]),
        ("?q=carol", []),
        ("/acme.test?limit=1", ["alice"]),
    ],
)
async def test_discovery_filters(gw: Gateway, path: str, found: list[str]) -> None:
    alice = await gw.register("alice", description="sells shoes", supported_schemas=["agntcy:shop.*"])
    await gw.register("bob", delivery_mode="push", push_target="https://inside.test/hook")
    await gw.register("carol", hidden=True)
    reply = await gw.call("GET", f"/v1/discovery/agents{path}", key=alice.key)

    assert [agent["address"].partition("@")[0] for agent in reply.json["agents"]] == found


async def test_discovery_knows_the_domains_of_this_house_alone(gw: Gateway) -> None:
    reply = await call(gw, "GET", "/v1/discovery/agents/elsewhere.test")

    assert (reply.status, reply.code) == (404, "NOT_FOUND")


async def test_every_change_is_audited_under_the_operators_name(gw: Gateway) -> None:
    await gw.register("alice")
    await call(gw, "PATCH", f"{AGENTS}/alice", {"description": "sells"})
    rows = await gw.app.database.fetch(
        "select actor, act, details from audit where subject = 'alice@acme.test' order by number"
    )

    assert [row["act"] for row in rows] == ["agent.registered", "agent.changed"]
    assert all(row["actor"].startswith("tests-") for row in rows)
    assert json.loads(rows[1]["details"]) == {"description": "sells"}
