"""Agents that send, ask, read and answer, at a gateway that is really there."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from gateway.client.agent import Agent
from gateway.client.compose import Answer, Letter
from gateway.client.errors import NoReply, Refused
from gateway.client.message import Message
from gateway.client.work import ATTEMPTS_MAX
from gateway.config.sections import InboxSettings
from gateway.protocol.errors import Code
from tests.client.joined import PATIENCE_SECONDS, agents, empty, first_of, lies_in, working
from tests.world import World


async def test_what_is_sent_is_read_and_acknowledged_by_going_on(world: World) -> None:
    async with world.gateway() as gateway, agents(gateway, "alice", "bob") as (alice, bob):
        receipt = await alice.send(bob.address, {"n": 1}, subject="An order", priority="high")
        assert (receipt.status, receipt.refused) == ("delivered", ())
        await alice.send(bob.address, {"n": 2})
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for message in bob.inbox():
                if message.payload == {"n": 2}:
                    break
                assert (message.id, message.subject) == (receipt.message_id, "An order")
                assert message.headers == {"priority": "high"}
                assert message.proven
        (left,) = await lies_in(bob, 1)
        assert left.payload == {"n": 2}


async def test_a_request_has_its_reply_and_no_callback_sees_it(world: World) -> None:
    seen: list[Message] = []
    async with world.gateway() as gateway, agents(gateway, "alice", "bob") as (alice, bob):
        alice.on()(seen.append)

        @bob.on(kind="request")
        async def double(message: Message) -> object:
            return {"n": message.payload["n"] * 2}

        async with working(bob, alice):
            replies = await asyncio.gather(
                *(alice.request(bob.address, {"n": n}, thread_id="t-1") for n in range(20))
            )
            assert [reply.payload["n"] for reply in replies] == [n * 2 for n in range(20)]
            assert {reply.headers["thread-id"] for reply in replies} == {"t-1"}
            await empty(alice)
            await empty(bob)
        assert seen == []


async def test_a_reply_that_comes_too_late_is_in_the_inbox(world: World) -> None:
    async with world.gateway() as gateway, agents(gateway, "alice", "bob") as (alice, bob):
        with pytest.raises(NoReply) as late:
            await alice.request(bob.address, {"n": 1}, timeout=0.3)
        (asked,) = await lies_in(bob)
        assert asked.id == late.value.message_id
        await bob.reply(asked, "here it is")
        (reply,) = await lies_in(alice)
        assert (reply.in_reply_to, reply.payload) == (asked.id, "here it is")


async def test_only_the_one_who_was_asked_can_answer(world: World) -> None:
    async with world.gateway() as gateway, agents(gateway, "alice", "bob", "eve") as (alice, bob, eve):
        asking = asyncio.create_task(alice.request(bob.address, {"n": 1}, timeout=PATIENCE_SECONDS))
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for asked in bob.inbox():
                await eve.send(alice.address, "from eve", in_reply_to=asked.id)
                await bob.reply(asked, "from bob")
                await bob.reply(asked, "from bob, again")
                break
        assert (await asking).payload == "from bob"
        assert (await first_of(alice)).payload == "from eve"
        await empty(alice)


async def test_a_refusal_has_the_code_and_words_of_the_gateway(world: World) -> None:
    async with world.gateway() as gateway, agents(gateway, "alice", "bob") as (alice, bob):
        with pytest.raises(Refused, match="nobody") as refused:
            await alice.send("nobody@acme.test", {"n": 1})
        assert (refused.value.code, refused.value.status) == (Code.AGENT_UNKNOWN, 404)
        with pytest.raises(Refused) as refused:
            await alice.send(bob.address, {"n": 1}, ttl=-1)
        assert refused.value.details["field"] == "headers.ttl"
        receipt = await alice.send([bob.address, "nobody@acme.test"], {"n": 1})
        assert [recipient.address for recipient in receipt.refused] == ["nobody@acme.test"]
        stranger = Agent(alice.address, key=bob._wire._headers["Authorization"][7:], gateway=gateway.url)
        async with stranger:
            with pytest.raises(Refused) as refused:
                await stranger.send(bob.address)
            assert refused.value.status == 403


async def test_sent_again_with_its_key_it_counts_once(world: World) -> None:
    async with world.gateway() as gateway, agents(gateway, "alice", "bob") as (alice, bob):
        receipts = [await alice.send(bob.address, {"n": 1}, idempotency_key="order-1") for _ in range(3)]
        assert len({receipt.message_id for receipt in receipts}) == 1
        assert len(await lies_in(bob)) == 1


async def test_a_callback_that_fails_is_called_again_and_answers_once(world: World) -> None:
    calls: list[str] = []
    async with world.gateway() as gateway, agents(gateway, "alice", "bob") as (alice, bob):

        @bob.on()
        def work(message: Message) -> object:
            calls.append(message.id)
            if len(calls) < 3:
                raise RuntimeError("not yet")
            return "done"

        async with working(bob):
            reply = await alice.request(bob.address, {"n": 1}, timeout=PATIENCE_SECONDS)
            assert reply.payload == "done"
            assert len(calls) == 3


async def test_what_no_callback_digests_is_left_to_its_lease_and_comes_again(world: World) -> None:
    calls: list[str] = []
    async with world.gateway() as gateway, agents(gateway, "alice", "bob") as (alice, bob):
        given_up = asyncio.Event()

        @bob.on(schema="agntcy:acme.bad.v1")
        async def fail(message: Message) -> None:
            calls.append(message.id)
            if len(calls) == ATTEMPTS_MAX:
                given_up.set()
            raise RuntimeError("never")

        await alice.send(bob.address, {"n": 1}, schema="agntcy:acme.bad.v1")
        async with working(bob):
            await asyncio.wait_for(given_up.wait(), PATIENCE_SECONDS)
        assert len(calls) == ATTEMPTS_MAX
        gateway.turn(61)
        (left,) = await lies_in(bob, 1)
        assert left.body["gateway"]["lapses"] == 1


async def test_what_can_not_be_sent_is_a_failure_of_the_callback(world: World) -> None:
    async with world.gateway() as gateway, agents(gateway, "alice", "bob") as (alice, bob):
        tried: list[object] = [object(), Answer(1, colour="red"), "at last"]  # type: ignore[call-arg]

        @bob.on()
        async def work(message: Message) -> object:
            return tried.pop(0)

        async with working(bob):
            assert (await alice.request(bob.address, 1, timeout=PATIENCE_SECONDS)).payload == "at last"


async def test_each_message_goes_to_the_callback_that_asks_most_of_it(world: World) -> None:
    seen: list[tuple[str, object]] = []
    done = asyncio.Event()
    async with world.gateway() as gateway, agents(gateway, "alice", "bob") as (alice, bob):

        @bob.on()
        async def others(message: Message) -> None:
            seen.append(("others", message.payload))
            done.set()

        @bob.on(kind="negotiation")
        async def bargain(message: Message) -> None:
            seen.append(("bargain", message.payload))

        @bob.on(schema="agntcy:acme.order.v1")
        async def order(message: Message) -> None:
            seen.append(("order", message.payload))

        await alice.send(bob.address, 1, schema="agntcy:acme.order.v1", kind="negotiation")
        await alice.send(bob.address, 2, kind="negotiation")
        await alice.send(bob.address, 3, kind="broadcast")
        async with working(bob):
            await asyncio.wait_for(done.wait(), PATIENCE_SECONDS)
            await empty(bob)
    assert sorted(seen) == [("bargain", 2), ("order", 1), ("others", 3)]


async def test_two_agents_that_answer_everything_do_not_answer_each_other_for_ever(world: World) -> None:
    async with world.gateway() as gateway, agents(gateway, "alice", "bob") as (alice, bob):
        seen: list[object] = []
        for agent in (alice, bob):

            @agent.on()
            async def echo(message: Message) -> object:
                seen.append(message.payload)
                return message.payload

        async with working(alice, bob):
            await alice.send(bob.address, "hello")
            async with asyncio.timeout(PATIENCE_SECONDS):
                while len(seen) < 2:
                    await asyncio.sleep(0.02)
            await empty(alice)
            await empty(bob)
        assert seen == ["hello", "hello"]


async def test_an_answer_may_send_letters_too(world: World) -> None:
    async with world.gateway() as gateway, agents(gateway, "alice", "bob", "carol") as (alice, bob, carol):

        @bob.on()
        async def work(message: Message) -> Answer:
            return Answer("yes", subject="Re: order", letters=[Letter(carol.address, "your turn")])

        async with working(bob):
            reply = await alice.request(bob.address, {"n": 1}, timeout=PATIENCE_SECONDS)
            assert (reply.payload, reply.subject) == ("yes", "Re: order")
            (letter,) = await lies_in(carol)
            assert (letter.sender, letter.payload) == (bob.address, "your turn")


async def test_told_to_stop_it_finishes_what_runs_and_gives_the_rest_back(world: World) -> None:
    async with world.gateway() as gateway, agents(gateway, "alice", "bob") as (alice, bob):
        began, go_on = asyncio.Event(), asyncio.Event()
        finished: list[object] = []

        @bob.on()
        async def work(message: Message) -> None:
            began.set()
            await go_on.wait()
            finished.append(message.payload)

        for n in range(3):
            await alice.send(bob.address, n)
        running = asyncio.create_task(bob.run(concurrency=1))
        await asyncio.wait_for(began.wait(), PATIENCE_SECONDS)
        bob.stop()
        go_on.set()
        await asyncio.wait_for(running, PATIENCE_SECONDS)
        assert finished == [0]
        assert [message.payload for message in await lies_in(bob, 2)] == [1, 2]


async def test_cancelled_it_gives_back_what_it_held(world: World) -> None:
    async with world.gateway() as gateway, agents(gateway, "alice", "bob") as (alice, bob):
        began = asyncio.Event()

        @bob.on()
        async def work(message: Message) -> None:
            began.set()
            await asyncio.Event().wait()

        await alice.send(bob.address, 1)
        running = asyncio.create_task(bob.run())
        await asyncio.wait_for(began.wait(), PATIENCE_SECONDS)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        (left,) = await lies_in(bob, 1)
        assert "lapses" not in left.body["gateway"]


async def test_a_gateway_that_waits_less_is_asked_for_less(world: World) -> None:
    impatient = InboxSettings(wait_seconds_max=1)
    async with world.gateway(inbox=impatient) as gateway, agents(gateway, "alice", "bob") as (alice, bob):
        await alice.send(bob.address, {"n": 1})
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await first_of(bob)).payload == {"n": 1}


async def test_a_lease_is_renewed_as_long_as_a_callback_runs(world: World) -> None:
    async with (
        world.gateway() as gateway,
        agents(gateway, "alice") as (alice,),
        agents(gateway, "bob", lease_seconds=1) as (bob,),
    ):
        began, go_on = asyncio.Event(), asyncio.Event()

        @bob.on()
        async def work(message: Message) -> str:
            began.set()
            await go_on.wait()
            return "at last"

        async with working(bob):
            asking = asyncio.create_task(alice.request(bob.address, 1, timeout=PATIENCE_SECONDS))
            await asyncio.wait_for(began.wait(), PATIENCE_SECONDS)
            again = asyncio.create_task(lies_in(bob, 1))
            await asyncio.wait({again}, timeout=1.5)  # longer than the lease
            assert not again.done()
            again.cancel()
            go_on.set()
            assert (await asking).payload == "at last"


async def test_what_is_scheduled_comes_at_its_time_and_can_be_cancelled(world: World) -> None:
    async with world.gateway() as gateway, agents(gateway, "alice", "bob") as (alice, bob):
        later = await alice.schedule(bob.address, 1, after=timedelta(hours=1))
        other = await alice.schedule(bob.address, 2, at=datetime.now(UTC) + timedelta(hours=2))
        assert (later.status, other.status) == ("queued", "queued")
        await alice.cancel(other)
        assert (await alice.status(other.message_id))["recipients"][0]["status"] == "cancelled"
        with pytest.raises(TypeError, match="one of"):
            await alice.schedule(bob.address, 3)


async def test_what_repeats_is_cancelled_by_its_receipt(world: World) -> None:
    async with world.gateway() as gateway, agents(gateway, "alice", "bob") as (alice, bob):
        daily = await alice.schedule(bob.address, "Good morning", every="0 9 * * *")
        assert daily.schedule is not None
        assert daily.schedule.repeat == "0 9 * * *"
        await alice.cancel(daily)
        listed = await gateway.call("GET", "/v1/schedules", key=gateway.admin_key)
        assert listed.json["schedules"] == []


async def test_an_answer_goes_out_once_though_the_work_is_done_twice(world: World) -> None:
    async with world.gateway() as gateway, agents(gateway, "alice", "bob", "carol") as (alice, bob, carol):
        stuck = asyncio.Event()

        @bob.on()
        async def work(message: Message) -> Answer:
            if not stuck.is_set():
                stuck.set()
                await asyncio.Event().wait()
            return Answer("done", letters=[Letter(carol.address, "note")])

        await alice.send(bob.address, 1, delivery="exactly_once")
        crashing = asyncio.create_task(bob.run())
        await asyncio.wait_for(stuck.wait(), PATIENCE_SECONDS)
        crashing.cancel()
        await asyncio.wait({crashing})
        async with working(bob):
            (reply,), (note,) = await lies_in(alice, 1), await lies_in(carol, 1)
        assert (reply.payload, note.payload) == ("done", "note")


@pytest.mark.parametrize("letters", [[Letter("nobody@acme.test")], [Letter("carol@acme.test", ttl=-1)]])
async def test_an_answer_that_is_refused_for_good_is_dropped_and_the_others_are_not(
    world: World, letters: list[Letter]
) -> None:
    async with world.gateway() as gateway, agents(gateway, "alice", "bob", "carol") as (alice, bob, _):

        @bob.on()
        async def work(message: Message) -> Answer:
            return Answer(message.payload, letters=letters if message.payload == 3 else ())

        for n in range(6):
            await alice.send(bob.address, n)
        async with working(bob):
            replies = await lies_in(alice, 5)
            await empty(bob)
        assert sorted(reply.payload for reply in replies) == [0, 1, 2, 4, 5]
