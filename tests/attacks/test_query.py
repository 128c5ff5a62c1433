"""No endpoint ignores a parameter: what its sender asked for would silently not happen."""

import re

import pytest

from tests.receive.every_route import every_route
from tests.world import World

PLACES = {"id": "m-1", "address": "alice@acme.test", "local": "alice", "domain": "acme.test", "number": "1"}
UUID = "01890000-0000-7000-8000-000000000000"


def filled(path: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda part: PLACES.get(part[1], UUID), path)


async def test_every_endpoint_refuses_a_parameter_that_it_does_not_know(world: World) -> None:
    async with world.gateway() as gateway:
        for method, path in [(route.method, route.path) for route in every_route()]:
            reply = await gateway.call(method, f"{filled(path)}?no_such_parameter=1", key=gateway.admin_key)
            assert (reply.status, reply.code) == (400, "INVALID_MESSAGE_FORMAT"), (method, path)
            assert reply.json["error"]["details"]["field"] == "no_such_parameter", (method, path)


@pytest.mark.parametrize(
    ("query", "nearest"),
    [
        ("waitt=30", "wait"),
        ("Lease=30", "lease"),
        ("statsu=read", "status"),
        ("address=bob@acme.test", None),
        ("limit=1&%77aitt=30", "wait"),
    ],
)
async def test_the_refusal_names_what_was_meant(world: World, query: str, nearest: str | None) -> None:
    async with world.gateway() as gateway:
        alice = await gateway.register("alice")
        reply = await gateway.call("GET", f"/v1/inbox/{alice.address}?{query}", key=alice.key)
        assert (reply.status, reply.json["error"]["details"]["nearest"]) == (400, nearest)
        assert "Known here are cursor, lease, limit" in reply.json["error"]["message"]
        assert nearest is None or f"did you mean {nearest}?" in reply.json["error"]["message"]


@pytest.mark.parametrize("name", ["address", "role", "capability"])
async def test_a_filter_of_the_draft_that_is_not_built_is_refused(world: World, name: str) -> None:
    async with world.gateway() as gateway:
        alice = await gateway.register("alice")
        assert (await gateway.call("GET", f"/v1/discovery/agents?{name}=x", key=alice.key)).status == 400


async def test_what_is_found_says_of_which_domain_it_is(world: World) -> None:
    async with world.gateway(domains=("acme.test",)) as gateway:
        alice = await gateway.register("alice")
        assert (await gateway.call("GET", "/v1/discovery/agents", key=alice.key)).json[
            "domain"
        ] == "acme.test"


async def test_where_several_domains_live_it_is_the_one_that_was_asked_for(world: World) -> None:
    async with world.gateway(domains=("one.test", "two.test")) as gateway:
        alice = await gateway.register("alice@one.test")
        told = {}
        for query in ("", "?domain=two.test", "/one.test"):
            reply = await gateway.call("GET", f"/v1/discovery/agents{query}", key=alice.key)
            told[query] = reply.json["domain"]
        assert told == {"": None, "?domain=two.test": "two.test", "/one.test": "one.test"}
