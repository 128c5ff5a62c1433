"""What a sender is told of why a message was not delivered: what its peer said, and not what lies inside."""

import json
from typing import Any

from conformance.dns_server import Behaviour
from conformance.fake_peer import answers
from gateway.config.sections import OutboundSettings
from tests.federation import Federation
from tests.telling import ended, mail, tried, until

DETAILS = {"validation_error": "agents do not support schema 'x'", "recipients": ["bob@peer.test"]}


async def test_what_a_peer_says_in_detail_reaches_the_sender(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.peer() as peer:
        error = {"code": "MESSAGE_VALIDATION_FAILED", "message": "Message validation failed"}
        peer.will(answers(400, {"error": {**error, "details": DETAILS}}))
        alice = await acme.register("alice")
        message_id = (await alice.send("bob@peer.test")).json["message_id"]
        (told,) = (await ended(alice, message_id))["recipients"]
        assert told["error"]["details"] == DETAILS
        (report,) = await mail(alice)
        assert report["error_details"] == report["payload"]["error_details"] == DETAILS
        listed = await acme.call("GET", "/v1/dead-letters", key=alice.key)
        assert listed.json["dead_letters"][0]["failure_details"] == DETAILS
        tried_once = {"sender": alice.address, "recipients": ["bob@peer.test"], "payload": 1}
        tried_once["headers"] = {"delivery": "best_effort"}
        at_once = await acme.call("POST", "/v1/messages", key=alice.key, json=tried_once)
        assert at_once.status == 400
        assert at_once.json["recipients"][0]["error"]["details"] == DETAILS


async def test_where_a_name_leads_to_is_for_operators_to_know(net: Federation) -> None:
    nowhere_inside = OutboundSettings(ca_file=net.ca_file)
    async with net.gateway("acme.test", outbound=nowhere_inside) as acme:
        net.dns.txt("_amtp.peer.test", "v=amtp1;gateway=https://amtp.peer.test")
        net.dns.add("amtp.peer.test", "A", "10.1.2.3")
        alice = await acme.register("alice")
        message_id = (await alice.send("bob@peer.test", headers={"ttl": 7200})).json["message_id"]
        told: list[Any] = [await tried(alice, message_id)]
        late = (await alice.send("carol@peer.test")).json["message_id"]
        told.append(await alice.status(late))
        shown = await acme.call("GET", f"/v1/admin/queue/{message_id}", key=acme.admin_key)
        assert "10.1.2.3" in shown.json["deliveries"][0]["history"][0]["error"], shown.text
        net.turn(7300)
        told.append(await until(lambda: ended_badly(alice, message_id)))
        told.append(await mail(alice))
        assert "10.1.2.3" not in json.dumps(told)
        assert "is not at a public address" in told[0]["last_error"]


async def test_at_what_address_nobody_listens_is_for_operators_to_know(net: Federation) -> None:
    async with net.gateway("acme.test") as acme:
        peer = net.fake()
        net.introduce(peer)
        alice = await acme.register("alice")
        message_id = (await alice.send("bob@peer.test")).json["message_id"]
        assert (await tried(alice, message_id))["last_error"] == "amtp.peer.test does not take connections."
        shown = await acme.call("GET", f"/v1/admin/queue/{message_id}", key=acme.admin_key)
        assert peer.address in shown.json["deliveries"][0]["history"][0]["error"], shown.text


async def test_which_name_server_fails_is_for_operators_to_know(net: Federation) -> None:
    async with net.gateway("acme.test") as acme:
        net.dns.behave("_amtp.peer.test", Behaviour.SERVFAIL)
        alice = await acme.register("alice")
        message_id = (await alice.send("bob@peer.test")).json["message_id"]
        told = await tried(alice, message_id)
        assert told["last_error"] == "The DNS look-up of peer.test failed: a name server answered SERVFAIL."
        shown = await acme.call("GET", f"/v1/admin/queue/{message_id}", key=acme.admin_key)
        (server,) = net.ground.resolution.nameservers
        assert server in shown.json["deliveries"][0]["history"][0]["error"], shown.text
        asked = await acme.call("GET", "/v1/capabilities/peer.test", key=alice.key)
        assert (asked.code, server in asked.text) == ("TEMPORARY_FAILURE", False)


async def ended_badly(sender: Any, message_id: str) -> dict[str, Any] | None:
    await sender.gateway.app.housekeeping.once()
    status: dict[str, Any] = await sender.status(message_id)
    return None if status["status"] == "queued" else status
