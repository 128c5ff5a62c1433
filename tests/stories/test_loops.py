"""Two gateways that each take the other for the right one: nothing goes round between them, neither mail nor reports."""

from datetime import timedelta

import pytest

from gateway.config.sections import PeerSettings
from gateway.config.values import Secret
from gateway.protocol.timestamp import render_timestamp
from gateway.store.tallies import balance
from tests.federation import Federation, host_of
from tests.telling import count, ended, mail, sent, until
from tests.world import Gateway


@pytest.fixture
def poll_seconds() -> float:
    return 0.1  # the clock is turned by hours here, and watched closely


async def settled(gateway: Gateway) -> bool:
    """Whether nothing waits in its queue, and its books balance."""
    counted = await balance(gateway.app.database)
    assert counted.unaccounted == 0
    return counted.queued + counted.held == 0


async def test_mail_for_a_domain_that_each_takes_for_the_others_ends_at_the_first_hop(
    net: Federation,
) -> None:
    known = {home: PeerSettings(_url(net, home)) for home in ("acme.test", "umbrella.test")}
    async with (
        net.gateway("acme.test", peers={"loop.test": known["umbrella.test"]}) as acme,
        net.gateway("umbrella.test", peers={"loop.test": known["acme.test"]}) as umbrella,
    ):
        alice, bob = await acme.register("alice"), await umbrella.register("bob")
        for sender in (alice, bob):
            message_id = await sent(sender, "carol@loop.test")
            (recipient,) = (await ended(sender, message_id))["recipients"]
            assert (recipient["status"], recipient["error"]["code"]) == ("failed", "RELAY_DENIED")
            assert recipient["attempts"] == 1
            (report,) = await mail(sender)
            assert report["in_reply_to"] == message_id
        for gateway in (acme, umbrella):
            assert await settled(gateway)
            assert await count(gateway, "messages") == 2  # its agent's own, and the report about it


async def test_a_report_that_nobody_takes_over_there_is_the_last_that_is_written(net: Federation) -> None:
    key = "a-key-that-proves-the-peer"
    known = PeerSettings(_url(net, "umbrella.test"), proving_key=Secret(key))
    async with (
        net.gateway("acme.test", peers={"umbrella.test": known}) as acme,
        net.gateway("umbrella.test") as umbrella,
    ):
        bob = await acme.register("bob")
        message = {
            "version": "1.0",
            "sender": "ghost@umbrella.test",
            "recipients": [bob.address],
            "payload": 1,
            "headers": {"deliver-after": render_timestamp(net.clock.now() + timedelta(hours=1))},
        }
        reply = await acme.call("POST", "/v1/messages", key=key, json=message)
        assert reply.status == 202, reply.text
        gone = await acme.call("DELETE", f"/v1/admin/agents/{bob.address}?mail=return", key=acme.admin_key)
        assert gone.status == 200, gone.text
        net.turn(3700)

        async def buried() -> bool:
            return await count(acme, "dead_letters") == 2  # the message, and the report about it

        assert await until(buried)
        assert await settled(acme)
        assert await settled(umbrella)
        assert await count(acme, "messages where automatic") == 1
        assert await count(umbrella, "messages") == 0


def _url(net: Federation, home: str) -> str:
    return f"https://{host_of(home)}:{net.ground.site(host_of(home)).port}"
