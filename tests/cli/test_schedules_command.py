"""`amtp schedules`, as agents and operators call it."""

import json

from tests.cli.command import amtp, by_admin_key, by_key
from tests.world import World


async def test_what_repeats_is_listed_and_cancelled_by_its_agent(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        empty = await amtp(by_key(alice), "schedules", "list")
        words = ("send", "--from", alice.address, "--to", bob.address, "--payload", "1")
        sent = await amtp(by_key(alice), *words, "--header", "repeat=0 9 * * 1-5", "--json")
        schedule = json.loads(sent.stdout)["schedule"]
        listed = await amtp(by_key(alice), "schedules", "list")
        foreign = await amtp(by_key(bob), "schedules", "cancel", schedule["id"])
        ended = await amtp(by_key(alice), "schedules", "cancel", schedule["id"])
        after = await amtp(by_key(alice), "schedules", "list", "--json")

    assert "Nothing repeats." in empty.stdout
    for text in (schedule["id"], bob.address, "0 9 * * 1-5", schedule["next_at"]):
        assert text in listed.stdout
    assert foreign.exit_code == 1
    assert "sent 0 times. Cancelled by its agent." in ended.stdout
    assert json.loads(after.stdout)["schedules"] == []


async def test_operators_see_what_everybody_repeats_and_end_it(world: World) -> None:
    async with world.gateway() as gateway:
        variables = by_admin_key(gateway)
        bob = await gateway.register("bob")
        ids = []
        for name in ("alice", "carol"):
            agent = await gateway.register(name)
            reply = await agent.send(bob.address, headers={"repeat": "0 9 * * *"})
            ids.append(reply.json["schedule"]["id"])
        some = json.loads((await amtp(variables, "schedules", "list", "--limit", "1", "--json")).stdout)
        rest = await amtp(variables, "schedules", "list", "--cursor", some["cursor"])
        of_carol = await amtp(variables, "schedules", "list", "--sender", "carol@acme.test", "--json")
        ended = await amtp(variables, "schedules", "cancel", *ids, "--json")
        audited = await gateway.app.database.fetchval(
            "select count(*) from audit where act = 'schedule.cancelled' and subject = any($1)", ids
        )

    assert [each["id"] for each in some["schedules"]] == ids[:1]
    assert some["has_more"]
    assert ids[1] in rest.stdout
    assert [each["sender"] for each in json.loads(of_carol.stdout)["schedules"]] == ["carol@acme.test"]
    assert ended.exit_code == 0
    assert audited == 2
