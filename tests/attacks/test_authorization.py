"""The authorization matrix: every endpoint, asked by every kind of caller, for its own and another's things.

The rows stand against the routes: a route without a row fails, and so does a row without a route.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.admit.api_key import mint_key
from gateway.config.sections import LimitSettings
from gateway.http.roles import Role
from gateway.http.routing import Router
from gateway.protocol.errors import AMTPError
from gateway.store.agents.keys import NamedKeys, NewKey
from tests.receive.every_route import every_route
from tests.telling import in_an_hour
from tests.world import Gateway, Reply, World

# Alice's things are asked for: a message she sent to Bob, her inbox. Mallory is another agent.
CALLERS = ("nobody", "alice", "bob", "mallory", "submitter", "peer", "operator", "retired", "forger")
NO_LEASE = "01900000-0000-7000-8000-000000000000"


def row(**answers: int) -> dict[str, int]:
    """The answer to each caller; whoever is not named is refused, for want of rights or of a key."""
    usual = dict.fromkeys(CALLERS, answers.pop("others", 403))
    return usual | {"nobody": 401, "retired": 401, "forger": 401} | answers


EVERYONE = dict.fromkeys(CALLERS, 200)
OWN_MESSAGE = row(alice=200, bob=200, operator=200, others=404)
OWN_INBOX = row(alice=200)
OPERATORS = row(operator=200)
KEY_HOLDERS = row(others=200)
OWN_WEBHOOK = row(alice=200, operator=200, bob=404, mallory=404)

BOX = "/v1/inbox/{address}"
AGENT = "/v1/admin/agents/{local}"
DESTINATION = "/v1/admin/destinations/{destination}"
HOOK = "/v1/webhooks/{webhook}"
NOBODYS = {"sender": "nobody@acme.test"}

MATRIX: Mapping[tuple[str, str], dict[str, int]] = {
    ("POST", "/v1/messages"): row(alice=202, submitter=202),
    ("GET", "/v1/messages"): row(alice=200, bob=200, mallory=200, operator=200),
    ("GET", "/v1/messages/{id}"): OWN_MESSAGE,
    ("GET", "/v1/messages/{id}/status"): OWN_MESSAGE,
    ("DELETE", "/v1/messages/{id}"): row(alice=200, bob=403, operator=200, others=404),
    ("GET", "/v1/messages/{id}/attachments/{n}"): OWN_MESSAGE | {"operator": 403},  # that takes a reason
    ("POST", "/v1/attachments"): row(alice=201, bob=201, mallory=201, submitter=201),
    ("GET", "/v1/attachments/{token}"): EVERYONE,  # the URL is the key
    ("GET", BOX): OWN_INBOX,
    ("DELETE", f"{BOX}/{{id}}"): row(alice=404),
    ("POST", f"{BOX}/ack"): OWN_INBOX,
    ("POST", f"{BOX}/lease"): row(alice=409),
    ("POST", f"{BOX}/purge"): row(alice=200, operator=200),
    ("GET", f"{BOX}/dead-letters"): OWN_INBOX,
    ("POST", f"{BOX}/dead-letters/{{number}}/replay"): row(alice=404),
    ("DELETE", f"{BOX}/dead-letters/{{number}}"): row(alice=404),
    ("POST", "/v1/admin/agents"): row(operator=201),
    ("GET", "/v1/admin/agents"): OPERATORS,
    ("GET", AGENT): OPERATORS,
    ("PATCH", AGENT): OPERATORS,
    ("POST", f"{AGENT}/rotate-key"): OPERATORS,
    ("POST", f"{AGENT}/rotate-push-secret"): row(operator=409),
    ("DELETE", AGENT): OPERATORS,
    ("GET", "/v1/admin/queue"): OPERATORS,
    ("GET", "/v1/admin/queue/{id}"): row(operator=404),
    ("GET", "/v1/admin/queue/shape"): OPERATORS,
    **{("POST", f"/v1/admin/queue/{act}"): OPERATORS for act in ("hold", "release", "retry", "cancel")},
    ("GET", "/v1/admin/peers"): OPERATORS,
    ("GET", "/v1/admin/peers/{domain}"): row(operator=404),
    ("GET", "/v1/admin/destinations"): OPERATORS,
    ("GET", f"{DESTINATION}/explain"): OPERATORS,
    **{("POST", f"{DESTINATION}/{act}"): OPERATORS for act in ("pause", "resume", "flush", "reset")},
    ("GET", "/v1/dead-letters"): row(alice=200, bob=200, mallory=200, operator=200),
    ("GET", "/v1/dead-letters/{number}"): row(alice=404, bob=404, mallory=404, operator=404),
    ("DELETE", "/v1/dead-letters/{number}"): row(operator=404),
    ("POST", "/v1/dead-letters/{number}/replay"): row(operator=404),
    ("POST", "/v1/dead-letters/replay"): OPERATORS,
    ("POST", "/v1/dead-letters/purge"): OPERATORS,
    ("POST", "/v1/webhooks"): row(alice=201, bob=201, mallory=201, operator=201),
    ("GET", "/v1/webhooks"): row(alice=200, bob=200, mallory=200, operator=200),
    ("GET", HOOK): OWN_WEBHOOK,
    ("PATCH", HOOK): OWN_WEBHOOK,
    ("DELETE", HOOK): OWN_WEBHOOK,
    ("POST", f"{HOOK}/challenge"): OWN_WEBHOOK | {"alice": 202, "operator": 202},
    ("POST", f"{HOOK}/test"): OWN_WEBHOOK | {"alice": 409, "operator": 409},
    ("POST", f"{HOOK}/rotate"): OWN_WEBHOOK,
    ("POST", f"{HOOK}/replay"): OWN_WEBHOOK | {"alice": 202, "operator": 202},
    ("GET", f"{HOOK}/attempts"): OWN_WEBHOOK,
    ("GET", "/v1/discovery/agents"): KEY_HOLDERS,
    ("GET", "/v1/discovery/agents/{domain}"): KEY_HOLDERS,
    ("GET", "/v1/capabilities/{domain}"): KEY_HOLDERS,
    ("GET", "/v1/schedules"): row(alice=200, bob=200, mallory=200, operator=200),
    ("DELETE", "/v1/schedules/{id}"): row(alice=404, bob=404, mallory=404, operator=404),
    ("GET", "/health"): EVERYONE,
    ("GET", "/ready"): EVERYONE,
    ("GET", "/metrics"): EVERYONE,  # on listeners for operators, which are not for others to reach
    ("GET", "/openapi.json"): EVERYONE,
}

MESSAGE = {
    "version": "1.0",
    "sender": "alice@acme.test",
    "recipients": ["bob@acme.test"],
    "payload": None,
}
WEBHOOK = {"url": "https://nobody.test/hook", "events": ["message.failed"]}
BODIES: Mapping[tuple[str, str], Any] = {
    ("POST", "/v1/webhooks"): WEBHOOK,
    ("PATCH", HOOK): {"description": "changed"},
    ("POST", f"{HOOK}/replay"): {"since": "2026-01-01T00:00:00Z"},
    ("POST", "/v1/messages"): MESSAGE,
    ("POST", f"{BOX}/ack"): {"message_ids": ["none"]},
    ("POST", f"{BOX}/purge"): NOBODYS,
    ("POST", f"{BOX}/lease"): {"lease": NO_LEASE, "seconds": 1},
    ("POST", "/v1/admin/agents"): {"address": "newcomer"},
    ("PATCH", AGENT): {"description": "changed"},
    **{("POST", f"/v1/admin/queue/{act}"): NOBODYS for act in ("hold", "release", "retry", "cancel")},
    ("POST", f"{DESTINATION}/pause"): {"reason": "a test"},
    ("POST", "/v1/dead-letters/replay"): NOBODYS,
    ("POST", "/v1/dead-letters/purge"): NOBODYS,
}


@dataclass
class Town:
    """A gateway with somebody of every kind."""

    gateway: Gateway
    keys: dict[str, str | None] = field(default_factory=dict)

    async def settle(self) -> None:
        for name in ("alice", "bob", "mallory", "retired"):
            self.keys[name] = (await self.gateway.register(name)).key
        await self.gateway.register("spare")
        await self.operate("DELETE", "/v1/admin/agents/retired")
        self.keys["submitter"] = await self.named_key("submit")
        self.keys["peer"] = await self.named_key("peer:peer.test")
        self.keys["operator"] = self.gateway.admin_key
        self.keys["nobody"] = None
        self.keys["forger"] = mint_key().text
        assert set(self.keys) == set(CALLERS)

    async def named_key(self, scope: str) -> str:
        key = mint_key()
        app = self.gateway.app
        await NamedKeys(app.database, app.audit).add(
            NewKey(key.id, key.digest), scope.replace(":", "-"), [scope], "tests"
        )
        return key.text

    async def operate(self, method: str, path: str) -> None:
        reply = await self.gateway.call(method, path, key=self.gateway.admin_key)
        assert reply.status == 200, reply.text

    async def file(self) -> dict[str, Any]:
        """What Alice uploaded."""
        reply = await self.gateway.call("POST", "/v1/attachments", key=self.keys["alice"], body=b"{}")
        assert reply.status == 201, reply.text
        attachment: dict[str, Any] = reply.json
        return attachment

    async def message(self) -> str:
        """A message of Alice to Bob that waits, with a file."""
        held = {"headers": {"deliver-after": in_an_hour(self.gateway)}, "attachments": [await self.file()]}
        reply = await self.gateway.call("POST", "/v1/messages", key=self.keys["alice"], json=MESSAGE | held)
        assert reply.status == 202, reply.text
        return str(reply.json["message_id"])

    async def webhook(self) -> str:
        """A new one of Alice's, the only one; its target has not answered."""
        for each in (await self.gateway.call("GET", "/v1/webhooks", key=self.keys["alice"])).json["webhooks"]:
            await self.operate("DELETE", f"/v1/webhooks/{each['webhook_id']}")
        reply = await self.gateway.call("POST", "/v1/webhooks", key=self.keys["alice"], json=WEBHOOK)
        assert reply.status == 201, reply.text
        made: str = reply.json["webhook"]["webhook_id"]
        return made

    async def ask(self, caller: str, method: str, path: str) -> Reply:
        filled = path.format(
            id=await self.message() if path.startswith("/v1/messages/{id}") else "none",
            address="alice@acme.test",
            local="spare",
            domain="acme.test",
            number=1,
            n=0,
            token=(await self.file())["url"].rpartition("/")[2] if "{token}" in path else "none",
            destination="peer.test",
            webhook=await self.webhook() if "{webhook}" in path else "none",
        )
        return await self.gateway.call(method, filled, key=self.keys[caller], json=BODIES.get((method, path)))


def heard(path: str, status: int) -> int:
    """Who may challenge a target may be told that it was challenged just now: that is no refusal of the caller."""
    return 202 if path.endswith("/challenge") and status == 429 else status


def test_every_route_has_its_row_and_every_row_its_route() -> None:
    assert set(MATRIX) == {(route.method, route.path) for route in every_route()}


async def test_every_caller_gets_from_every_endpoint_what_is_his_and_nothing_else(world: World) -> None:
    async with world.gateway(limits=LimitSettings(webhook_challenges_per_minute=1000)) as gateway:
        town = Town(gateway)
        await town.settle()
        seen = {
            (method, path): {
                caller: heard(path, (await town.ask(caller, method, path)).status) for caller in CALLERS
            }
            for method, path in MATRIX
        }
    assert seen == MATRIX


async def test_a_list_shows_nobody_what_is_anothers(world: World) -> None:
    async with world.gateway() as gateway:
        town = Town(gateway)
        await town.settle()
        message = await town.message()
        shown = {}
        for caller in ("alice", "bob", "mallory", "operator"):
            reply = await town.ask(caller, "GET", "/v1/messages")
            shown[caller] = [each["message_id"] for each in reply.json["messages"]]
    assert shown == {"alice": [message], "bob": [], "mallory": [], "operator": [message]}


@pytest.mark.parametrize("role", [Role.PUBLIC, Role.AGENTS])
def test_what_operators_do_is_not_there_on_other_listeners(role: Role) -> None:
    router = Router(every_route(), {role})
    for route in every_route():
        if route.path.startswith("/v1/admin/") or route.path == "/metrics":
            with pytest.raises(AMTPError) as refusal:
                router.match(route.method, route.path)
            assert refusal.value.status == 404


def test_on_a_public_listener_nothing_is_there_that_only_agents_do() -> None:
    router = Router(every_route(), {Role.PUBLIC})
    for route in every_route():
        if route.path.startswith("/v1/inbox/") or (
            route.path.startswith("/v1/messages") and route.method != "POST"
        ):
            with pytest.raises(AMTPError) as refusal:
                router.match(route.method, route.path)
            assert refusal.value.status in (404, 405)
