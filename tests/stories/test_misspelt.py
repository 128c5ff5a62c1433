"""An agent that misspells a member of its message hears of it, and its message goes on."""

import json

from tests.world import World

KEY = [{"field": "idempotency_kye", "nearest": "idempotency_key"}]


async def test_the_receipt_names_the_member_that_was_meant(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        receipt = await alice.send(bob.address, idempotency_kye="order-17", **{"x-trace": "t"})
        assert (receipt.status, receipt.json["warnings"]) == (202, KEY)
        (item,) = await bob.inbox()
        assert (item["idempotency_kye"], item["x-trace"]) == ("order-17", "t")
        assert "warnings" not in (await alice.send(bob.address, idempotency_key="order-17")).json


async def test_so_do_each_line_of_a_batch_and_the_answer_that_was_waited_for(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        message = {"sender": alice.address, "recipients": [bob.address], "payload": 1}
        lines = b"\n".join(
            json.dumps(message | more).encode() for more in ({}, {"idempotency_kye": "k"}, {"payload": 2})
        )
        reply = await gateway.call(
            *("POST", "/v1/messages"),
            key=alice.key,
            body=lines,
            headers={"Content-Type": "application/x-ndjson"},
        )
        told = [json.loads(line).get("warnings") for line in reply.text.splitlines()]
        assert told == [None, KEY, None]
        once = await alice.send(bob.address, idempotency_kye="k", headers={"delivery": "best_effort"})
        assert (once.status, once.json["warnings"]) == (200, KEY)
