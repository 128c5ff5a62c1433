"""Section 3.2: how a gateway finds the gateways of other domains."""

import asyncio

from conformance.abroad import Abroad, arrived
from conformance.check import core, extended, holds, same
from conformance.dns_server import Behaviour
from conformance.target import Target

TTL_SECONDS = 1  # where a check changes a record and waits until that must be seen


@core
async def a_domain_is_found_by_its_record(target: Target, abroad: Abroad) -> None:
    """A message for another domain is posted to /v1/messages of the gateway that its TXT record names."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        message_id = await alice.sent(f"bob@{peer.domain}")
        (post,) = await arrived(peer)
        same(post.path, "/v1/messages", "the path")
        same(post.messages[0]["recipients"], [f"bob@{peer.domain}"], "the recipients")
        same((await alice.ended(message_id))["status"], "delivered", "the status")


@core
async def the_strings_of_a_record_are_joined(target: Target, abroad: Abroad) -> None:
    """A record that is cut into several strings is read as one text."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        abroad.publish(peer, string_bytes=7)
        await alice.sent(f"bob@{peer.domain}")
        await arrived(peer)


@core
async def fields_come_in_any_order_among_unknown_ones(target: Target, abroad: Abroad) -> None:
    """Fields of a record may come in any order, with blanks and unknown keys between; case does not count in keys."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        abroad.publish(peer, f" x-new=a=b ; GATEWAY = {peer.url} ;flag; v=amtp1 ; ")
        await alice.sent(f"bob@{peer.domain}")
        await arrived(peer)


@core
async def the_path_of_a_gateway_is_kept(target: Target, abroad: Abroad) -> None:
    """Where gateway= has a path, /v1/messages is appended to it."""
    alice = await target.agent()
    async with abroad.peer(path="/amtp/in") as peer:
        await alice.sent(f"bob@{peer.domain}")
        (post,) = await arrived(peer)
        same(post.path, "/amtp/in/v1/messages", "the path")


@core
async def a_record_is_asked_for_once_while_it_is_good(target: Target, abroad: Abroad) -> None:
    """Several messages within a record's time to live take one question to the DNS."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        for number in range(5):
            await alice.sent(f"bob@{peer.domain}", payload=number)
        await arrived(peer, 5)
        same(abroad.dns.count(f"_amtp.{peer.domain}"), 1, "the number of questions")


@core
async def a_changed_record_is_followed(target: Target, abroad: Abroad) -> None:
    """When a record's time to live is over, a message goes where the new one points to."""
    alice = await target.agent()
    async with abroad.peer() as old, abroad.peer(old.domain, host=f"new.{old.domain}") as new:
        abroad.publish(old, ttl=TTL_SECONDS)
        await alice.ended(await alice.sent(f"bob@{old.domain}"))
        same((len(old.posts), len(new.posts)), (1, 0), "the posts at the old gateway and at the new one")
        abroad.publish(new)
        await asyncio.sleep(TTL_SECONDS + 0.5)
        await alice.ended(await alice.sent(f"bob@{old.domain}"))
        same((len(old.posts), len(new.posts)), (1, 1), "the posts at the old gateway and at the new one")


@core
async def a_silent_dns_is_a_temporary_failure(target: Target, abroad: Abroad) -> None:
    """While the DNS answers SERVFAIL a message waits, and it is delivered once the DNS is well again."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        abroad.dns.behave(f"_amtp.{peer.domain}", Behaviour.SERVFAIL)
        message_id = await alice.sent(f"bob@{peer.domain}")
        await alice.delayed(message_id)
        abroad.dns.behave(f"_amtp.{peer.domain}", None)
        same((await alice.ended(message_id))["status"], "delivered", "the status")


@core
async def a_domain_that_does_not_exist_fails(target: Target, abroad: Abroad) -> None:
    """A message for a domain that does not exist fails with RECIPIENT_NOT_FOUND, and its sender is told."""
    alice = await target.agent()
    reply = await alice.send(f"bob@{abroad.domain()}")
    if reply.status >= 400:
        reply.refused("RECIPIENT_NOT_FOUND")
        return
    status = await alice.ended(reply.json["message_id"])
    same(status["recipients"][0]["error"]["code"], "RECIPIENT_NOT_FOUND", "the error")
    same((await alice.mail())[0]["in_reply_to"], reply.json["message_id"], "in_reply_to of the report")


@extended
async def records_of_others_are_ignored(target: Target, abroad: Abroad) -> None:
    """D: Records beside it that do not say v=amtp1 are ignored."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        abroad.publish(
            peer, "v=spf1 -all", "v=amtp2;gateway=https://x.test", peer.record, "v=amtp10;gateway=x"
        )
        await alice.sent(f"bob@{peer.domain}")
        await arrived(peer)


@extended
async def of_several_records_the_first_counts(target: Target, abroad: Abroad) -> None:
    """D: Of several good records the first by its gateway's URL counts."""
    alice = await target.agent()
    async with abroad.peer() as one, abroad.peer(one.domain, host=f"aaa.{one.domain}") as first:
        abroad.publish(first, one.record, first.record)
        await alice.ended(await alice.sent(f"bob@{one.domain}"))
        same((len(one.posts), len(first.posts)), (0, 1), "the posts at the second and at the first")


@extended
async def a_broken_record_is_a_temporary_failure(target: Target, abroad: Abroad) -> None:
    """D: While a record that says v=amtp1 is broken a message waits, and it is delivered when that is mended."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        for broken in ("v=amtp1", f"v=amtp1;gateway=http://{peer.host}", f"v=amtp1;gateway={peer.url}?a=b"):
            abroad.publish(peer, broken, ttl=TTL_SECONDS)
            message_id = await alice.sent(f"bob@{peer.domain}", subject=broken)
            await alice.delayed(message_id)
        same(peer.requests, [], "what the peer got")
        abroad.publish(peer)
        same((await alice.ended(message_id))["status"], "delivered", "the status")


@extended
async def what_the_dns_said_before_serves_while_it_is_silent(target: Target, abroad: Abroad) -> None:
    """D: While the DNS is silent, the last good answer serves beyond its time to live."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        abroad.publish(peer, ttl=TTL_SECONDS)
        await alice.ended(await alice.sent(f"bob@{peer.domain}"))
        abroad.dns.behave(f"_amtp.{peer.domain}", Behaviour.SERVFAIL)
        await asyncio.sleep(TTL_SECONDS + 0.5)
        await alice.ended(await alice.sent(f"bob@{peer.domain}"))
        same(len(peer.posts), 2, "the number of posts")


@extended
async def a_domain_that_fell_silent_is_not_given_up_at_once(target: Target, abroad: Abroad) -> None:
    """D: A domain that spoke AMTP and has no record now is a temporary failure for a day."""
    alice = await target.agent()
    async with abroad.peer() as peer:
        abroad.publish(peer, ttl=TTL_SECONDS)
        await alice.ended(await alice.sent(f"bob@{peer.domain}"))
        abroad.dns.remove(f"_amtp.{peer.domain}")
        await asyncio.sleep(TTL_SECONDS + 0.5)
        await alice.delayed(await alice.sent(f"bob@{peer.domain}"))


@extended
async def what_other_domains_publish_is_told(target: Target, abroad: Abroad) -> None:
    """D: GET /v1/capabilities/{domain} tells another domain's gateway, largest message and features."""
    alice = await target.agent()
    async with abroad.peer(max_size=54321, features=frozenset({"batch"})) as peer:
        told = (await alice.get(f"/v1/capabilities/{peer.domain}")).expect(200)
        same(told["gateway"], peer.url, "gateway")
        same(told["max_size"], 54321, "max_size")
        holds("batch" in told["features"], "batch is among the features")
    (await alice.get(f"/v1/capabilities/{abroad.domain()}")).refused("NOT_FOUND")
