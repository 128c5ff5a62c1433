"""Section 5: how a gateway hands messages over to others."""

import json

from conformance.abroad import Abroad, arrived
from conformance.check import core, extended, holds, same
from conformance.fake_peer import accepts, answers_endlessly, redirects
from conformance.target import JSON, Target

RECIPIENTS = 20


@core
async def a_gateway_says_what_it_speaks(target: Target, abroad: Abroad) -> None:
    """A message is handed over as JSON, with X-AMTP-Version 1.0 and a User-Agent that begins with AMTP/1.0."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        await alice.sent(f"bob@{peer.domain}")
        (post,) = await arrived(peer)
        same(post.headers.get("x-amtp-version"), "1.0", "X-AMTP-Version")
        holds(
            post.headers.get("user-agent", "").startswith("AMTP/1.0 ("), "User-Agent begins with AMTP/1.0 ("
        )
        same(post.headers["content-type"].partition(";")[0], JSON, "Content-Type")
        holds("content-encoding" not in post.headers, "the body is not compressed")


@core
async def a_copy_is_complete(target: Target, abroad: Abroad) -> None:
    """The copy has version, id, key, timestamp and all that its sender wrote, with unknown members too."""
    alice = await target.agent()
    written = {"subject": "Ünïcödé", "headers": {"x-a": [1]}, "schema": "agntcy:a.b.v1", "x_new": {"a": None}}
    async with abroad.peer() as peer:
        message_id = await alice.sent(f"bob@{peer.domain}", **written)
        copy = (await arrived(peer))[0].messages[0]
        same({name: copy.get(name) for name in written}, written, "what the sender wrote")
        same(
            (copy["version"], copy["message_id"], copy["sender"]),
            ("1.0", message_id, alice.address),
            "the head",
        )
        holds(copy.get("idempotency_key"), "it has an idempotency_key, though its sender gave none")
        holds(copy.get("timestamp"), "it has a timestamp")
        holds("gateway" not in copy and "sender_verification" not in copy, "no remark of the gateway's own")


@core
async def a_payload_arrives_byte_for_byte(target: Target, abroad: Abroad) -> None:
    """The payload stands in the copy as it was written: blanks, escapes, order and numbers."""
    alice = await target.agent()
    payload = b'{ "z" : 1.0, "a":\t[1e2,-0.0, "\\u00e9\\/" ],"big":12345678901234567890123 }'
    async with abroad.peer() as peer:
        head = json.dumps(alice.message(f"bob@{peer.domain}", payload=...))
        (await alice.post(head[:-1].encode() + b', "payload": ' + payload + b"}")).expect(202)
        holds(payload in (await arrived(peer))[0].body, "its bytes are in the copy")


@extended
async def recipients_of_one_domain_travel_together(target: Target, abroad: Abroad) -> None:
    """One POST for each message and gateway carries all its recipients there."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        names = [f"a{number}@{peer.domain}" for number in range(RECIPIENTS)]
        message_id = await alice.sent(*names)
        same((await alice.ended(message_id))["status"], "delivered", "the status")
        (post,) = await arrived(peer)
        same(post.messages[0]["recipients"], names, "the recipients")


@core
async def each_domain_gets_its_own_copy(target: Target, abroad: Abroad) -> None:
    """A message for several domains is handed over to each of them once."""
    alice, local = await target.agents(2)
    async with abroad.peer() as one, abroad.peer() as other:
        message_id = await alice.sent(f"bob@{one.domain}", local.address, f"carol@{other.domain}")
        same((await alice.ended(message_id))["status"], "delivered", "the status")
        same((len(one.posts), len(other.posts)), (1, 1), "the posts")
        await local.only()


@extended
async def a_copy_names_its_own_recipients_alone(target: Target, abroad: Abroad) -> None:
    """D: The copy for a destination has `recipients` as sent to it, and nobody else's."""
    alice, local = await target.agents(2)
    async with abroad.peer() as one, abroad.peer() as other:
        await alice.sent(f"bob@{one.domain}", local.address, f"carol@{other.domain}")
        for peer, name in ((one, "bob"), (other, "carol")):
            (post,) = await arrived(peer)
            same(post.messages[0]["recipients"], [f"{name}@{peer.domain}"], "the recipients")


@extended
async def a_gateway_adds_itself_to_the_path(target: Target, abroad: Abroad) -> None:
    """D: The Via header of what is handed over names the gateway, with the version of HTTP."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        await alice.sent(f"bob@{peer.domain}")
        (post,) = await arrived(peer)
        version, _, host = post.headers.get("via", "").rpartition(" ")
        same(version, "1.1", "the version in Via")
        holds(host, "Via names the gateway")


@extended
async def who_has_it_is_told(target: Target, abroad: Abroad) -> None:
    """The status of a recipient who got it tells via which gateway, when, and at which attempt."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        (told,) = (await alice.ended(await alice.sent(f"bob@{peer.domain}")))["recipients"]
        same(told["via"], f"amtp:{peer.host}", "via")
        same(told["attempts"], 1, "attempts")
        holds(told["delivered_at"], "delivered_at is told")


@core
async def redirects_are_not_followed(target: Target, abroad: Abroad) -> None:
    """A redirect is not followed: nothing is sent to where it points, and the message waits."""
    alice = await target.agent()
    async with abroad.peer() as peer, abroad.peer() as elsewhere:
        for status in (301, 302, 307, 308):
            peer.will(redirects(f"{elsewhere.url}/v1/messages", status), accepts)
            message_id = await alice.sent(f"bob@{peer.domain}")
            await alice.delayed(message_id)
            same((await alice.ended(message_id))["status"], "delivered", "the status in the end")
        same(elsewhere.requests, [], "what arrived where the redirect points")


@core
async def what_is_too_large_is_not_sent(target: Target, abroad: Abroad) -> None:
    """A message larger than the max-size of a record fails with MESSAGE_TOO_LARGE, and is not sent there."""
    alice = await target.agent()
    async with abroad.peer(max_size=3000) as peer:
        reply = await alice.send(f"bob@{peer.domain}", payload="x" * 3000)
        if reply.status >= 400:
            reply.refused("MESSAGE_TOO_LARGE")
        else:
            (told,) = (await alice.ended(reply.json["message_id"]))["recipients"]
            same(told["error"]["code"], "MESSAGE_TOO_LARGE", "the error")
        await alice.ended(await alice.sent(f"bob@{peer.domain}", payload="x"))
        same(len(peer.posts), 1, "the number of posts")


@extended
async def an_endless_answer_is_not_read(target: Target, abroad: Abroad) -> None:
    """An answer without an end is cut off, and counts as none."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        peer.will(answers_endlessly(202), accepts)
        message_id = await alice.sent(f"bob@{peer.domain}")
        await alice.delayed(message_id)
        same((await alice.ended(message_id))["status"], "delivered", "the status in the end")
