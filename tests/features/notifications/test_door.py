"""The door to notifications: what it takes, what it refuses and why, and what it shows."""

from typing import Any

import pytest

from tests.world import Agent, Gateway, Reply

HOOKS = "/v1/webhooks"
URL = "https://hooks.test/in"
NOBODY = "01900000-0000-7000-8000-000000000000"


@pytest.fixture
async def alice(gw: Gateway) -> Agent:
    return await gw.register("alice")


async def ask(agent: Agent, method: str, path: str = "", **body: Any) -> Reply:
    return await agent.gateway.call(method, HOOKS + path, key=agent.key, json=body or None)


async def added(agent: Agent, **said: Any) -> dict[str, Any]:
    reply = await ask(agent, "POST", **{"url": URL, **said})
    assert reply.status == 201, reply.text
    found: dict[str, Any] = reply.json["webhook"]
    return found


async def test_what_is_said_is_shown_and_the_secret_only_once(alice: Agent) -> None:
    made = await added(
        alice,
        events=["message.failed", "message.dead"],
        about=["Peer.test", "Bob+x@acme.test"],
        description="d",
    )
    assert made["secret"].startswith("whsec_")
    shown = (await ask(alice, "GET", f"/{made['webhook_id']}")).json["webhook"]
    assert "secret" not in shown
    assert (shown["status"], shown["owner"], shown["description"]) == ("pending", alice.address, "d")
    assert shown["events"] == ["message.dead", "message.failed"]
    assert shown["about"] == ["bob@acme.test", "peer.test"]
    own = await added(alice, secret="a secret of my own", events=["*"])
    assert "secret" not in own
    assert own["events"] == ["*"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"),
        ({"url": None}, "url"),
        ({"url": "http://hooks.test/"}, "url"),
        ({"url": URL, "events": ["message.enjoyed"]}, "events"),
        ({"url": URL, "events": ["webhook.test"]}, "events"),
        ({"url": URL, "about": ["no domain"]}, "about"),
        ({"url": URL, "about": [f"d{n}.test" for n in range(101)]}, "about"),
        ({"url": URL, "description": "x" * 257}, "description"),
        ({"url": URL, "description": "two\nlines"}, "description"),
        ({"url": URL, "secret": "short"}, "secret"),
        ({"url": URL, "speed": 1}, "speed"),
    ],
)
async def test_what_can_not_be_is_refused_by_its_name(alice: Agent, body: dict[str, Any], field: str) -> None:
    reply = await alice.gateway.call("POST", HOOKS, key=alice.key, json=body)
    assert (reply.status, reply.code) == (400, "INVALID_MESSAGE_FORMAT")
    assert reply.json["error"]["details"]["field"] == field


@pytest.mark.parametrize(
    ("act", "body", "field"),
    [
        ("/replay", {"event": "message.failed"}, "since"),
        ("/replay", {"since": "yesterday"}, "since"),
        ("/replay", {"since": "2026-01-01T00:00:00Z", "event": "none"}, "events"),
        ("/rotate", {"grace_seconds": -1}, "grace_seconds"),
        ("/rotate", {"secret": "short"}, "secret"),
    ],
)
async def test_an_act_says_what_it_lacks(alice: Agent, act: str, body: dict[str, Any], field: str) -> None:
    made = await added(alice)
    reply = await ask(alice, "POST", f"/{made['webhook_id']}{act}", **body)
    assert (reply.status, reply.json["error"]["details"]["field"]) == (400, field)


@pytest.mark.parametrize("number", [NOBODY, "none", "%2e%2e"])
async def test_what_is_not_there_is_not_found(alice: Agent, number: str) -> None:
    for method, act in (("GET", ""), ("DELETE", ""), ("POST", "/test"), ("GET", "/attempts")):
        assert (await ask(alice, method, f"/{number}{act}")).status == 404


async def test_an_agent_makes_webhooks_of_its_own_alone(gw: Gateway, alice: Agent) -> None:
    await gw.register("bob")
    assert (await ask(alice, "POST", url=URL, owner="bob@acme.test")).code == "POLICY_DENIED"
    assert (await added(alice, owner=alice.address))["owner"] == alice.address
    body = {"url": URL, "owner": "nobody@acme.test"}
    unknown = await gw.call("POST", HOOKS, key=gw.admin_key, json=body)
    assert (unknown.status, unknown.code) == (404, "AGENT_UNKNOWN")


async def test_operators_list_everybodys_page_by_page_or_one_agents(gw: Gateway, alice: Agent) -> None:
    ids = [(await added(agent))["webhook_id"] for agent in (alice, await gw.register("bob"), alice)]
    seen, query = [], "?limit=2"
    while query:
        page = (await gw.call("GET", HOOKS + query, key=gw.admin_key)).json
        seen += [each["webhook_id"] for each in page["webhooks"]]
        query = f"?limit=2&cursor={page['cursor']}" if page["has_more"] else ""
    assert seen == ids
    owned = (await gw.call("GET", f"{HOOKS}?owner={alice.address}", key=gw.admin_key)).json
    assert [each["webhook_id"] for each in owned["webhooks"]] == [ids[0], ids[2]]


async def test_what_waits_for_a_challenge_is_not_tested_and_not_asked_too_often(alice: Agent) -> None:
    made = await added(alice)
    assert (await ask(alice, "POST", f"/{made['webhook_id']}/test")).code == "CONFLICT"
    app = alice.gateway.app
    await app.database.execute(
        "insert into notice_attempts (notice, subscription, event, attempt, at, milliseconds)"
        " values (gen_random_uuid(), $1, 'challenge', 1, amtp_now(), 1)",
        made["webhook_id"],
    )
    hasty = await ask(alice, "POST", f"/{made['webhook_id']}/challenge")
    assert (hasty.status, hasty.code) == (429, "RATE_LIMIT_EXCEEDED")
    assert hasty.headers["retry-after"] == "10"


async def test_every_change_is_audited_without_what_an_url_may_hide(gw: Gateway, alice: Agent) -> None:
    made = await added(alice, url=f"{URL}?token=hidden")
    place = f"/{made['webhook_id']}"
    assert (await ask(alice, "PATCH", place, url=f"{URL}?token=hidden-too", events=["*"])).status == 200
    assert (await ask(alice, "POST", f"{place}/rotate")).status == 200
    assert (await ask(alice, "DELETE", place)).status == 200
    rows = await gw.app.database.fetch(
        "select actor, act, a::text as text from audit a where act like 'webhook.%' order by number"
    )
    assert [row["act"] for row in rows] == [
        "webhook.added",
        "webhook.changed",
        "webhook.rotated",
        "webhook.removed",
    ]
    assert {row["actor"] for row in rows} == {alice.address}
    assert not any("hidden" in row["text"] for row in rows)
