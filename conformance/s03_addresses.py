"""Section 3.1: addresses of agents."""

import asyncio

from conformance.check import core, extended, holds, same
from conformance.moments import from_now
from conformance.target import ELSEWHERE, Target

NO_ADDRESSES = (
    "",
    "alice",
    "@{domain}",
    "alice@",
    "alice@{domain}.",
    "alice..bob@{domain}",
    ".alice@{domain}",
    "alice.@{domain}",
    "alice bob@{domain}",
    "alice\n@{domain}",
    '"alice"@{domain}',
    "Alice <alice@{domain}>",
    "alice@bob@{domain}",
    "alice@a_b.{domain}",
    "alice@-a.{domain}",
    "alice@a-.{domain}",
    "alice@a..{domain}",
    "alice@127.0.0.1",
    "alice@[127.0.0.1]",
    "älice@{domain}",
    "a" * 65 + "@{domain}",
    "alice@" + "a" * 64 + ".{domain}",
    "alice@" + "a." * 130 + "{domain}",
)


@core
async def case_of_the_local_part_does_not_matter(target: Target) -> None:
    """A local part is compared without regard to case."""
    alice, bob = await target.agents(2)
    await alice.sent(f"{bob.local.upper()}@{target.domain}")
    await bob.only()


@core
async def case_of_the_domain_does_not_matter(target: Target) -> None:
    """A domain is compared without regard to case."""
    alice, bob = await target.agents(2)
    await alice.sent(f"{bob.local}@{target.domain.upper()}")
    await bob.only()


@core
async def case_of_the_sender_does_not_matter(target: Target) -> None:
    """An agent may write its own address in any case."""
    alice, bob = await target.agents(2)
    await alice.sent(bob.address, sender=alice.address.upper())
    await bob.only()


@core
async def a_recipient_that_is_no_address_is_refused(target: Target) -> None:
    """What is not local-part@domain is refused as a recipient with INVALID_RECIPIENT."""
    alice = await target.agent()
    for text in NO_ADDRESSES:
        (await alice.send(text.replace("{domain}", target.domain))).refused("INVALID_RECIPIENT")


@core
async def a_sender_that_is_no_address_is_refused(target: Target) -> None:
    """What is not local-part@domain is refused as a sender with INVALID_MESSAGE_FORMAT."""
    alice = await target.agent()
    for text in NO_ADDRESSES:
        reply = await alice.send(alice.address, sender=text.replace("{domain}", target.domain))
        reply.refused("INVALID_MESSAGE_FORMAT")


@core
async def local_parts_have_up_to_64_characters(target: Target) -> None:
    """A local part of 64 characters is an agent's like any other; one of 65 is refused."""
    alice = await target.agent()
    long = target.name().ljust(64, "x")
    agent = await target.agent(long)
    await alice.sent(agent.address)
    await agent.only()
    (await target.register(address=f"{long}x@{target.domain}")).refused("INVALID_MESSAGE_FORMAT")


@core
async def local_parts_are_dot_atoms(target: Target) -> None:
    """Every character of a dot-atom stands in a local part, the plus sign of tags apart."""
    alice = await target.agent()
    agent = await target.agent(f"{target.name()}.!#$&'*=^_`{{|}}~-")
    await alice.sent(agent.address)
    await agent.only()


@extended
async def a_tag_leads_to_its_agent(target: Target) -> None:
    """D: agent+tag@domain is delivered to agent, which sees the tag as it was written."""
    alice, bob = await target.agents(2)
    tagged = f"{bob.local}+Session.1@{target.domain}"
    receipt = (await alice.send(tagged)).expect(202)
    same([recipient["address"] for recipient in receipt["recipients"]], [tagged], "the receipt's address")
    message = await bob.only()
    same(message["gateway"]["address"], tagged, "the address in gateway")
    same(message["recipients"], [tagged], "the recipients of the message")


@extended
async def two_tags_of_one_agent_are_one_delivery(target: Target) -> None:
    """D: A message to two tags of one agent is delivered to it once."""
    alice, bob = await target.agents(2)
    await alice.sent(*(f"{bob.local}{tag}@{target.domain}" for tag in ("+one", "+two", "")))
    await bob.only()


@extended
async def a_tag_does_not_make_another_agent(target: Target) -> None:
    """D: An agent is registered without a tag, and may send with one."""
    alice, bob = await target.agents(2)
    (await target.register(address=f"{target.name()}+tag@{target.domain}")).refused("INVALID_MESSAGE_FORMAT")
    await alice.sent(bob.address, sender=f"{alice.local}+tag@{target.domain}")
    await bob.only()


@extended
async def reserved_names_are_nobodys(target: Target) -> None:
    """D: The reserved local parts can be registered by nobody."""
    for local in ("postmaster", "abuse", "mailer-daemon", "amtp-bridge", "reply", "any", "PostMaster"):
        reply = await target.register(address=f"{local}@{target.domain}")
        reply.refused("INVALID_MESSAGE_FORMAT", "POLICY_DENIED")


@extended
async def the_postmaster_has_an_inbox(target: Target) -> None:
    """D: Mail to postmaster is accepted, and admins read it."""
    alice = await target.agent()
    message_id = await alice.sent(f"postmaster@{target.domain}")
    box = f"/v1/inbox/postmaster@{target.domain}"
    query = "?status=unread&limit=1000"
    page = (await target.admin("GET", box + query)).expect(200)
    found = {message["message_id"] for message in page["messages"]}
    holds(message_id in found or page["has_more"], "the message lies in the postmaster's inbox")
    (await target.admin("DELETE", f"{box}/{message_id}")).expect(200)
    (await alice.get(box)).refused("SENDER_NOT_ALLOWED")


@extended
async def international_domains_are_one_with_their_ascii_form(target: Target) -> None:
    """D: A domain is brought to A-labels by UTS 46, so both spellings of it are one recipient."""
    alice = await target.agent()
    written = (f"agent@Bücher.{ELSEWHERE}", f"agent@xn--bcher-kva.{ELSEWHERE}")
    receipt = (await alice.send(*written, headers={"deliver-after": from_now(hours=1)})).expect(202)
    same([one["address"] for one in receipt["recipients"]], [written[0]], "the recipients of the receipt")
    (await alice.delete(f"/v1/messages/{receipt['message_id']}")).expect(200)


@core
async def a_recipient_named_twice_gets_it_once(target: Target) -> None:
    """Duplicates among the recipients are delivered once, however they are spelled."""
    alice, bob = await target.agents(2)
    spellings = [bob.address, bob.address.upper(), bob.address] * 300
    receipts = await asyncio.gather(*(alice.send(*spellings[:count]) for count in (2, 3, 900)))
    for receipt in receipts:
        same(len(receipt.expect(202)["recipients"]), 1, "the number of recipients in the receipt")
    same(len(await bob.inbox()), 3, "the number of messages in the inbox")


@extended
async def international_domains_are_fifty_at_most(target: Target) -> None:
    """D: A message with recipients in more than 50 international domains is refused."""
    alice = await target.agent()
    recipients = [f"someone@größe{number}.invalid" for number in range(51)]
    (await alice.send(*recipients)).refused("INVALID_MESSAGE_FORMAT", "INVALID_RECIPIENT")
