"""`amtp webhooks`, as agents and operators call it, with a target that answers."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

from conformance.fake_peer import Authority, Exchange, FakePeer
from gateway.config.sections import OutboundSettings
from tests.cli.command import amtp, by_admin_key, by_key
from tests.world import Gateway, World

SECONDS = 20


async def takes(exchange: Exchange) -> None:
    """Repeats a challenge, says yes to an event."""
    request = await exchange.read_body()
    await exchange.answer(200, json.dumps({"challenge": json.loads(request.body).get("challenge")}).encode())


@asynccontextmanager
async def target(world: World, folder: Path) -> AsyncIterator[tuple[Gateway, FakePeer]]:
    """A gateway, and a server that it may post to."""
    authority = Authority()
    peer = FakePeer(authority, host="127.0.0.1")
    peer.will(takes)
    outbound = OutboundSettings(
        allow_networks=(ip_network("127.0.0.0/8"),), ca_file=authority.write_ca(folder)
    )
    async with peer.listening(), world.gateway(outbound=outbound) as gateway:
        yield gateway, peer


async def until_active(variables: dict[str, str], webhook: str) -> None:
    async with asyncio.timeout(SECONDS):
        while True:
            shown = await amtp(variables, "webhooks", "show", webhook, "--json")
            if json.loads(shown.stdout)["webhook"]["status"] == "active":
                return


async def test_a_webhook_is_added_tried_changed_and_removed(world: World, tmp_path: Path) -> None:
    async with target(world, tmp_path) as (gateway, peer):
        alice = by_key(await gateway.register("alice"))
        added = await amtp(alice, "webhooks", "add", peer.url, "--event", "message.failed", "--json")
        webhook = json.loads(added.stdout)["webhook"]
        number = webhook["webhook_id"]
        await until_active(alice, number)
        tried = await amtp(alice, "webhooks", "test", number)
        listed = await amtp(alice, "webhooks", "list")
        shown = await amtp(alice, "webhooks", "show", number)
        changed = await amtp(alice, "webhooks", "update", number, "--off", "--description", "a rest")
        off = await amtp(alice, "webhooks", "test", number)
        rotated = await amtp(alice, "webhooks", "rotate", number, "--grace", "1h", "--json")
        replayed = await amtp(alice, "webhooks", "replay", number, "--since", "2h")
        removed = await amtp(alice, "webhooks", "remove", number)
        gone = await amtp(alice, "webhooks", "show", number)

    assert webhook["secret"].startswith("whsec_")
    assert "the target answered 200" in tried.stdout
    assert number in listed.stdout
    assert "webhook.test" in shown.stdout
    assert webhook["secret"] not in listed.stdout + shown.stdout
    assert "disabled" in changed.stdout
    assert off.exit_code == 1
    assert json.loads(rotated.stdout)["webhook"]["secret"] != webhook["secret"]
    assert "0 events will be sent again." in replayed.stdout
    assert removed.exit_code == 0
    assert gone.exit_code == 1


async def test_operators_make_webhooks_for_agents_and_see_all(world: World) -> None:
    async with world.gateway() as gateway:
        variables = by_admin_key(gateway)
        await gateway.register("alice")
        url = "https://hooks.example/in"
        own = await amtp(variables, "webhooks", "add", url, "--about", "peer.test", "--json")
        hers = await amtp(variables, "webhooks", "add", url, "--owner", "alice@acme.test", "--json")
        listed = await amtp(variables, "webhooks", "list", "--json")
        of_alice = await amtp(variables, "webhooks", "list", "--owner", "alice@acme.test", "--json")
        wrong = await amtp(variables, "webhooks", "add", url, "--event", "message.enjoyed")

    ids = [json.loads(made.stdout)["webhook"]["webhook_id"] for made in (own, hers)]
    assert [each["webhook_id"] for each in json.loads(listed.stdout)["webhooks"]] == ids
    assert [each["webhook_id"] for each in json.loads(of_alice.stdout)["webhooks"]] == ids[1:]
    assert wrong.exit_code == 1
    assert "message.failed" in wrong.stderr
