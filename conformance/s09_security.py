"""Section 9: who may hand in what, who may read what."""

import json

from conformance.check import core, extended, holds, same
from conformance.target import ELSEWHERE, Target

WRONG_KEYS = ("wrong", "amtp_" + "0" * 40, "x" * 500, "Ünïcödé")


@core
async def sending_takes_a_key(target: Target) -> None:
    """A message in the name of a local agent is refused without a key, with a wrong one and with half of one."""
    alice = await target.agent()
    body = json.dumps(alice.message(alice.address)).encode()
    (await target.call("POST", "/v1/messages", body=body)).refused("AUTHENTICATION_FAILED")
    for key in (*WRONG_KEYS, alice.key[:-1], alice.key + "x", alice.key.swapcase()):
        reply = await target.call("POST", "/v1/messages", key=key, body=body)
        reply.refused("AUTHENTICATION_FAILED")
    same(await alice.inbox(), [], "the inbox")


@core
async def authentication_is_asked_for(target: Target) -> None:
    """A refusal for want of a key says in WWW-Authenticate how to present one."""
    reply = await target.call("GET", "/v1/messages")
    reply.refused("AUTHENTICATION_FAILED")
    holds("bearer" in reply.headers.get("www-authenticate", "").lower(), "WWW-Authenticate names Bearer")


@core
async def nobody_sends_as_somebody_else(target: Target) -> None:
    """An agent's key sends in no other agent's name."""
    alice, bob = await target.agents(2)
    (await alice.send(bob.address, sender=bob.address)).refused("SENDER_NOT_ALLOWED")
    (await alice.send(bob.address, sender=target.address())).refused("SENDER_NOT_ALLOWED")
    same(await bob.inbox(), [], "the inbox")


@core
async def an_admin_key_is_no_sender(target: Target) -> None:
    """An admin key arranges, and sends in nobody's name."""
    alice = await target.agent()
    reply = await target.admin("POST", "/v1/messages", alice.message(alice.address))
    reply.refused("SENDER_NOT_ALLOWED")


@core
async def nobody_sends_for_another_domain(target: Target) -> None:
    """A local agent's key does not speak for agents of other domains."""
    alice = await target.agent()
    (await alice.send(alice.address, sender=f"someone@{ELSEWHERE}")).refused("SENDER_NOT_ALLOWED")


@core
async def nobody_sends_as_the_house(target: Target) -> None:
    """Nobody sends as postmaster or mailer-daemon, so no report can be forged."""
    alice = await target.agent()
    for local in ("postmaster", "mailer-daemon"):
        sender = f"{local}@{target.domain}"
        (await alice.send(alice.address, sender=sender)).refused("SENDER_NOT_ALLOWED")
        reply = await target.admin("POST", "/v1/messages", alice.message(alice.address, sender=sender))
        reply.refused("SENDER_NOT_ALLOWED")


@core
async def a_gateway_is_no_open_relay(target: Target) -> None:
    """Mail from elsewhere to elsewhere is refused."""
    bob = await target.agent()
    reply = await target.post(bob.message(f"other@{ELSEWHERE}", sender=f"someone@{ELSEWHERE}"))
    holds(reply.status in (401, 403), "the relay is refused")
    reply.envelope()


@extended
async def relaying_is_denied_per_recipient(target: Target) -> None:
    """D: Mail from elsewhere reaches local recipients only, and RELAY_DENIED stands beside the others."""
    bob = await target.agent()
    abroad = f"other@{ELSEWHERE}"
    reply = await target.post(bob.message(abroad, sender=f"someone@{ELSEWHERE}"))
    reply.refused("RELAY_DENIED")
    receipt = (await target.post(bob.message(abroad, bob.address, sender=f"someone@{ELSEWHERE}"))).expect(202)
    told = {one["address"]: one for one in receipt["recipients"]}
    same(told[abroad]["error"]["code"], "RELAY_DENIED", "the error of the one abroad")
    await bob.only()


@extended
async def unproven_mail_from_elsewhere_is_shown_as_such(target: Target) -> None:
    """D: Mail from elsewhere without proof is accepted, and marked: sender_verification none, untrusted."""
    bob = await target.agent()
    (await target.post(bob.message(bob.address, sender=f"someone@{ELSEWHERE}"))).expect(202)
    message = await bob.only()
    same(message["sender_verification"], "none", "sender_verification")
    same(message["gateway"]["untrusted"], True, "gateway.untrusted")


@extended
async def mail_of_a_proven_agent_is_shown_as_such(target: Target) -> None:
    """D: Mail from an agent of the house, proven by its key, passes and is not marked as untrusted."""
    alice, bob = await target.agents(2)
    await alice.sent(bob.address)
    message = await bob.only()
    same(message["sender_verification"], "pass", "sender_verification")
    holds("untrusted" not in message["gateway"], "nothing says untrusted")


@extended
async def unproven_senders_have_no_status(target: Target) -> None:
    """D: A stranger without a key can't ask what became of a message."""
    bob = await target.agent()
    receipt = (await target.post(bob.message(bob.address, sender=f"someone@{ELSEWHERE}"))).expect(202)
    reply = await target.call("GET", f"/v1/messages/{receipt['message_id']}/status")
    reply.refused("AUTHENTICATION_FAILED")


@core
async def an_inbox_opens_to_its_agent_alone(target: Target) -> None:
    """Another agent's inbox is refused with 403, without a key it is 401, and to admins it stays closed."""
    alice, bob = await target.agents(2)
    message_id = await alice.sent(bob.address)
    box = bob.box
    (await alice.get(box)).refused("SENDER_NOT_ALLOWED")
    (await alice.delete(f"{box}/{message_id}")).refused("SENDER_NOT_ALLOWED")
    (await target.call("GET", box)).refused("AUTHENTICATION_FAILED")
    (await target.admin("GET", box)).refused("SENDER_NOT_ALLOWED")
    await bob.only()


@core
async def a_closed_inbox_does_not_tell_whether_it_exists(target: Target) -> None:
    """Whoever may not open an inbox hears the same, whether or not there is one."""
    alice, bob = await target.agents(2)
    codes = {
        (await alice.get(f"/v1/inbox/{address}")).envelope()["code"]
        for address in (bob.address, target.address())
    }
    same(codes, {"SENDER_NOT_ALLOWED"}, "the codes")


@core
async def administration_takes_an_admin_key(target: Target) -> None:
    """Agents can't be registered, seen or removed with an agent's key, nor without one."""
    alice = await target.agent()
    for method, path in (
        ("POST", "/v1/admin/agents"),
        ("GET", "/v1/admin/agents"),
        ("GET", f"/v1/admin/agents/{alice.address}"),
        ("DELETE", f"/v1/admin/agents/{alice.address}"),
    ):
        body = b'{"address":"intruder"}' if method == "POST" else None
        (await target.call(method, path, body=body)).refused("AUTHENTICATION_FAILED")
        (await target.call(method, path, key="wrong", body=body)).refused("AUTHENTICATION_FAILED")
        (await target.call(method, path, key=alice.key, body=body)).refused("POLICY_DENIED")
    await alice.inbox()


@extended
async def keys_are_presented_in_one_of_three_headers(target: Target) -> None:
    """D: A key stands in Authorization or X-API-Key, an admin's also in X-Admin-Key; two that differ are refused."""
    alice, bob = await target.agents(2)
    box = alice.box
    reply = await target.call("GET", box, headers={"X-API-Key": alice.key})
    reply.expect(200)
    (await target.call("GET", "/v1/admin/agents", headers={"X-Admin-Key": target.admin_key})).expect(200)
    (await target.call("GET", box, headers={"X-Admin-Key": alice.key})).refused("AUTHENTICATION_FAILED")
    reply = await target.call("GET", box, key=alice.key, headers={"X-API-Key": bob.key})
    reply.refused("AUTHENTICATION_FAILED")
    reply = await target.call("GET", box, headers={"Authorization": f"Basic {alice.key}"})
    reply.refused("AUTHENTICATION_FAILED")
