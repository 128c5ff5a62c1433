"""Ids and keys that agents choose, between two gateways of ours of which neither knows that the other takes them all."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from gateway.config.sections import PeerSettings
from gateway.protocol.identifiers import ORIGINALS, derived_id, replace_identifiers, unfit, uuid7
from gateway.protocol.members import members_of, render
from gateway.store.row_ids import Mint
from tests.federation import Federation, host_of
from tests.telling import ended, mail
from tests.world import Gateway

IDS = {"message_id": "order-17", "idempotency_key": "Order № 17"}


@asynccontextmanager
async def strangers(net: Federation) -> AsyncIterator[tuple[Gateway, Gateway]]:
    """Each knows of the other by a configuration that tells of no features."""

    def known(there: str) -> dict[str, PeerSettings]:
        host = host_of(there)
        return {there: PeerSettings(f"https://{host}:{net.ground.site(host).port}")}

    async with (
        net.gateway("acme.test", peers=known("umbrella.test")) as acme,
        net.gateway("umbrella.test", peers=known("acme.test")) as umbrella,
    ):
        yield acme, umbrella


async def test_agents_on_both_sides_know_a_message_by_the_id_its_sender_chose(net: Federation) -> None:
    async with strangers(net) as (acme, umbrella):
        alice, bob = await acme.register("alice"), await umbrella.register("bob")
        question = {"sender": alice.address, "recipients": [bob.address], "payload": "?", **IDS}
        asking = asyncio.create_task(
            acme.call("POST", "/v1/messages", key=alice.key, json=question, headers={"Prefer": "wait=30"})
        )
        (asked,) = await mail(bob)
        assert (asked["message_id"], asked["idempotency_key"]) == (IDS["message_id"], IDS["idempotency_key"])
        assert "headers" not in asked
        await bob.send(alice.address, message_id="re-17", in_reply_to="order-17", headers={"thread-id": "t"})
        answer = await asking
        assert answer.status == 200, answer.text
        assert (answer.json["reply"]["message_id"], answer.json["reply"]["in_reply_to"]) == (
            "re-17",
            "order-17",
        )
        assert answer.json["reply"]["headers"] == {"thread-id": "t"}
        assert (await ended(alice, "order-17"))["status"] == "delivered"
        await alice.send(bob.address, in_reply_to="re-17")
        last = (await mail(bob, 2))[-1]
        assert last["in_reply_to"] == "re-17"


async def test_a_message_that_comes_under_both_ids_is_one(net: Federation, mint: Mint) -> None:
    async with net.gateway("umbrella.test") as umbrella:
        bob = await umbrella.register("bob")
        message = {
            "version": "1.0",
            "sender": "alice@acme.test",
            "recipients": [bob.address],
            "payload": {"n": 1},
            "timestamp": "2026-01-01T00:00:00Z",
            **IDS,
        }
        members = members_of(json.dumps(message).encode())
        copy = json.loads(
            render(
                replace_identifiers(
                    members, unfit(members), row=mint(), sender="alice@acme.test", in_reply_to=None
                )
            )
        )
        for sent in (message, copy, message, copy):
            reply = await umbrella.call("POST", "/v1/messages", json=sent)
            assert (reply.status, reply.json["message_id"]) == (202, sent["message_id"]), reply.text
        (item,) = await bob.inbox()
        assert item["message_id"] == "order-17"


async def test_a_stranger_restores_nothing_into_somebody_elses_names(net: Federation, mint: Mint) -> None:
    async with net.gateway("umbrella.test") as umbrella:
        bob = await umbrella.register("bob")

        async def post(sender: str, payload: Any, **members: Any) -> Any:
            said = {"version": "1.0", "sender": sender, "recipients": [bob.address], "payload": payload}
            return await umbrella.call("POST", "/v1/messages", json={**said, **members})

        assert (await post("alice@acme.test", "hers", **IDS)).status == 202
        row = str(mint())
        forged = await post(
            "mallory@evil.test",
            "forged",
            message_id=row,
            idempotency_key=str(uuid4()),
            headers={ORIGINALS: {"of": row, **IDS}},
        )
        assert forged.status == 202, forged.text
        assert (await post("alice@acme.test", "hers", **IDS)).status == 202
        assert [item["payload"] for item in await bob.inbox()] == ["hers", "forged"]


async def test_an_id_of_the_end_of_time_answers_nothing_and_disturbs_nothing(net: Federation) -> None:
    async with net.gateway("umbrella.test") as umbrella:
        bob = await umbrella.register("bob")
        end = derived_id(uuid7(2**48 - 1, 5))
        message = {"version": "1.0", "sender": "eve@evil.test", "recipients": [bob.address], "payload": 1}
        reply = await umbrella.call("POST", "/v1/messages", json={**message, "in_reply_to": end})
        assert reply.status == 202, reply.text
        assert [item["in_reply_to"] for item in await bob.inbox()] == [end]
