"""What messages say is their agents': an operator who looks says why, and the audit keeps it."""

import json
from typing import Any

import pytest

from tests.features.operations.test_dead_letter_door import LETTERS, Office, office
from tests.telling import in_an_hour
from tests.world import Gateway, World

__all__ = ["office"]  # the fixture

SECRET = "the offer is 17"


async def looks(gateway: Gateway) -> list[tuple[str, str, Any]]:
    rows = await gateway.app.database.fetch(
        "select actor, subject, details from audit where act = 'content.read' order by number"
    )
    return [(row["actor"], row["subject"], json.loads(row["details"])) for row in rows]


async def test_an_operator_sees_the_envelope_of_a_dead_letter_and_not_what_it_says(office: Office) -> None:
    await office.bury("x@p.test", payload=SECRET, subject="Offer", private={"also": SECRET})
    (number,) = await office.numbers()
    reply = await office.ask("GET", f"/{number}")
    assert reply.status == 200
    assert (reply.json["original_message"]["subject"], reply.json["withheld"][:7]) == ("Offer", "Payload")
    assert SECRET not in reply.text
    assert await looks(office.gateway) == []
    assert SECRET in (await office.ask("GET", f"/{number}", key=office.alice.key)).text


async def test_with_a_reason_the_operator_sees_it_and_the_audit_says_so(office: Office) -> None:
    row = await office.bury("x@p.test", payload=SECRET)
    (number,) = await office.numbers()
    reply = await office.ask("GET", f"/{number}?reason=Alice%20asked%20why")
    assert reply.json["original_message"]["payload"] == SECRET
    ((actor, subject, details),) = await looks(office.gateway)
    assert (actor[:6], subject) == ("tests-", str(row))
    assert details == {"what": f"dead letter {number}", "reason": "Alice asked why"}


@pytest.mark.parametrize("reason", ["", "%0aforged", "x" * 501])
async def test_a_reason_is_a_line_of_text(office: Office, reason: str) -> None:
    await office.bury("x@p.test", payload=SECRET)
    (number,) = await office.numbers()
    reply = await office.ask("GET", f"/{number}?reason={reason}")
    assert reply.status == 400
    assert SECRET not in reply.text
    assert await looks(office.gateway) == []


async def test_an_operator_reads_no_file_of_a_message_without_a_reason(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        file = await gateway.call("POST", "/v1/attachments", key=alice.key, body=json.dumps(SECRET).encode())
        sent = await alice.send(bob.address, attachments=[file.json])
        path = f"/v1/messages/{sent.json['message_id']}/attachments/0"
        refused = await gateway.call("GET", path, key=gateway.admin_key)
        assert (refused.status, refused.code) == (403, "POLICY_DENIED")
        assert "?reason=" in refused.json["error"]["message"]
        assert await looks(gateway) == []
        shown = await gateway.call("GET", f"{path}?reason=court%20order", key=gateway.admin_key)
        assert (shown.status, SECRET in shown.text) == (200, True)
        ((_, subject, details),) = await looks(gateway)
        assert (subject, details["reason"]) == (sent.json["message_id"], "court order")
        assert (await gateway.call("GET", path, key=bob.key)).status == 200
        assert len(await looks(gateway)) == 1


async def test_no_page_for_operators_shows_what_a_message_says(office: Office) -> None:
    """Every page an operator may look at, over a message that waits, one that repeats and one that was delivered."""
    gateway, alice, bob = office.gateway, office.alice, office.bob
    await bob.send(alice.address, payload=SECRET)
    later = {"deliver-after": in_an_hour(gateway)}
    waiting = await alice.send("x@p.test", payload=SECRET, headers=later)
    await alice.send(bob.address, payload=SECRET, headers={"repeat": "0 0 1 1 *"})
    id_ = waiting.json["message_id"]
    for path in (
        "/v1/messages",
        f"/v1/messages/{id_}",
        f"/v1/messages/{id_}/status",
        "/v1/schedules",
        "/v1/admin/queue",
        f"/v1/admin/queue/{id_}",
        "/v1/admin/destinations/p.test/explain",
        LETTERS,
        "/v1/admin/agents/alice",
        "/v1/webhooks",
    ):
        reply = await gateway.call("GET", path, key=gateway.admin_key)
        assert reply.status == 200, path
        assert SECRET not in reply.text, path
    assert (await gateway.call("GET", f"/v1/inbox/{bob.address}", key=gateway.admin_key)).status == 403
