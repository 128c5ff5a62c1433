"""Section 8.1: a message that is sent again is not delivered again."""

import asyncio
from collections import Counter

from conformance.check import core, extended, holds, same
from conformance.target import Target

AT_ONCE = 20


@core
async def the_same_key_and_content_is_one_message(target: Target) -> None:
    """A message sent again under its key gets the same answer, and is delivered once."""
    alice, bob = await target.agents(2)
    ids = {await alice.sent(bob.address, idempotency_key="order-1") for _ in range(3)}
    same(len(ids), 1, "the number of ids")
    await bob.only()


@core
async def the_same_key_and_other_content_is_a_conflict(target: Target) -> None:
    """Other content under a key that was used is refused with IDEMPOTENCY_CONFLICT, whatever part differs."""
    alice, bob = await target.agents(2)
    await alice.sent(bob.address, idempotency_key="k", subject="one")
    for changes in ({"payload": {"check": 2}}, {"subject": "two"}, {"headers": {"a": 1}}, {"x_new": 1}):
        reply = await alice.send(bob.address, **{"idempotency_key": "k", "subject": "one", **changes})
        reply.refused("IDEMPOTENCY_CONFLICT")
    await bob.only()


@core
async def ids_and_timestamps_are_no_content(target: Target) -> None:
    """A repetition may bear another timestamp and another id; the first id is the message's."""
    alice, bob = await target.agents(2)
    first = await alice.sent(bob.address, idempotency_key="k", timestamp="2026-01-01T00:00:00Z")
    same(await alice.sent(bob.address, idempotency_key="k"), first, "the id without a timestamp")
    again = await alice.sent(bob.address, idempotency_key="k", message_id=f"other-{target.name()}")
    same(again, first, "the id of a repetition with another id")
    await bob.only()


@core
async def keys_belong_to_their_sender(target: Target) -> None:
    """Two senders may use the same key for different messages."""
    alice, bob, carol = await target.agents(3)
    ids = {
        await sender.sent(carol.address, idempotency_key="k", payload=sender.address)
        for sender in (alice, bob)
    }
    same(len(ids), 2, "the number of ids")
    same(len(await carol.inbox()), 2, "the number of messages in the inbox")


@core
async def the_same_key_at_once_is_one_message(target: Target) -> None:
    """A message sent many times at once under one key is one message, and every sender hears the same id."""
    alice, bob = await target.agents(2)
    ids = await asyncio.gather(*(alice.sent(bob.address, idempotency_key="k") for _ in range(AT_ONCE)))
    same(len(set(ids)), 1, "the number of ids")
    await bob.only()


@core
async def other_contents_at_once_have_one_winner(target: Target) -> None:
    """Of different messages sent at once under one key, one is accepted and the others are conflicts."""
    alice, bob = await target.agents(2)
    replies = await asyncio.gather(
        *(alice.send(bob.address, idempotency_key="k", payload=number) for number in range(AT_ONCE))
    )
    same(Counter(reply.status for reply in replies), {202: 1, 409: AT_ONCE - 1}, "the statuses")
    await bob.only()


@core
async def a_repeated_id_counts_as_a_key(target: Target) -> None:
    """A message sent again under its id, without a key, is one message."""
    alice, bob = await target.agents(2)
    message_id = target.name()
    for _ in range(3):
        same(await alice.sent(bob.address, message_id=message_id), message_id, "the id")
    await bob.only()


@core
async def an_id_with_other_content_is_a_conflict(target: Target) -> None:
    """An id that was used is refused with MESSAGE_ID_CONFLICT for other content, and under another key."""
    alice, bob = await target.agents(2)
    message_id = target.name()
    await alice.sent(bob.address, message_id=message_id)
    (await alice.send(bob.address, message_id=message_id, payload=2)).refused("MESSAGE_ID_CONFLICT")
    keyed = target.name()
    await alice.sent(bob.address, message_id=keyed, idempotency_key="one")
    (await alice.send(bob.address, message_id=keyed, idempotency_key="two")).refused("MESSAGE_ID_CONFLICT")
    same(len(await bob.inbox()), 2, "the number of messages in the inbox")


@core
async def the_same_id_at_once_is_one_message(target: Target) -> None:
    """A message sent many times at once under one id is one message."""
    alice, bob = await target.agents(2)
    message_id = target.name()
    await asyncio.gather(*(alice.sent(bob.address, message_id=message_id) for _ in range(AT_ONCE)))
    await bob.only()


@core
async def ids_belong_to_their_sender(target: Target) -> None:
    """Two senders may use the same id; each recipient finds both messages."""
    alice, bob, carol = await target.agents(3)
    message_id = target.name()
    for sender in (alice, bob):
        await sender.sent(carol.address, message_id=message_id, payload=sender.address)
    same({found["payload"] for found in await carol.inbox()}, {alice.address, bob.address}, "the payloads")


@core
async def without_key_and_id_there_are_two_messages(target: Target) -> None:
    """The same message sent twice without a key and without an id is two messages."""
    alice, bob = await target.agents(2)
    ids = {await alice.sent(bob.address) for _ in range(2)}
    same({message["message_id"] for message in await bob.inbox()}, ids, "the messages in the inbox")
    same(len(ids), 2, "the number of ids")


@core
async def refusals_are_not_remembered(target: Target) -> None:
    """A key under which a message was refused is still free."""
    alice, bob = await target.agents(2)
    (await alice.send(target.address(), idempotency_key="k")).refused("AGENT_UNKNOWN")
    (await alice.send(bob.address, idempotency_key="k", version="9")).refused("UNSUPPORTED_VERSION")
    await alice.sent(bob.address, idempotency_key="k", payload="another")
    await bob.only()


@core
async def keys_outlive_their_acknowledged_message(target: Target) -> None:
    """A message sent again after its acknowledgement does not come back to the inbox."""
    alice, bob = await target.agents(2)
    first = await alice.sent(bob.address, idempotency_key="k")
    (await bob.delete(f"{bob.box}/{first}")).expect(200)
    same(await alice.sent(bob.address, idempotency_key="k"), first, "the id of the repetition")
    same(await bob.inbox(), [], "the inbox")


@extended
async def a_repetition_may_add_recipients(target: Target) -> None:
    """D: Under the same key and content new recipients are added, and the answer lists those of its request."""
    alice, bob, carol = await target.agents(3)
    first = await alice.sent(bob.address, idempotency_key="k")
    receipt = (await alice.send(carol.address, idempotency_key="k")).expect(202)
    same(receipt["message_id"], first, "the id")
    same([one["address"] for one in receipt["recipients"]], [carol.address], "the recipients of the answer")
    await bob.only()
    await carol.only()
    addresses = {one["address"] for one in (await alice.status(first))["recipients"]}
    same(addresses, {bob.address, carol.address}, "the recipients of the status")


@extended
async def a_repetition_tells_how_things_stand_now(target: Target) -> None:
    """D: The answer to a repetition has this request's recipients, spelled as in it, with their status of now."""
    alice, bob = await target.agents(2)
    await alice.sent(bob.address, idempotency_key="k")
    spelled = bob.address.upper()
    (told,) = (await alice.send(spelled, idempotency_key="k")).expect(202)["recipients"]
    same(told["address"], spelled, "the address")
    same(told["status"], "delivered", "the status")


@extended
async def keys_may_be_255_characters_of_any_script(target: Target) -> None:
    """D: A key has 1 to 255 printable characters, of any script, and its case counts."""
    alice, bob = await target.agents(2)
    for key in ("ü" * 255, "k", "K", "a key with blanks / and: signs"):
        first = await alice.sent(bob.address, idempotency_key=key)
        same(await alice.sent(bob.address, idempotency_key=key), first, "the id of the repetition")
    holds(len(await bob.inbox()) == 4, "four keys are four messages")
