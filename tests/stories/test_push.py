"""Agents that are pushed to: a real receiver over TLS, signatures, retries, replies, and the way back to the inbox."""

import asyncio
import json
import re
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from conformance.fake_peer import Exchange, FakePeer, answers, redirects, refuses
from tests.federation import Federation
from tests.served import ROOT
from tests.telling import HOOK_HOST as HOST
from tests.telling import mail, pushed, receiver, sent, until
from tests.world import Agent


@pytest.fixture
def poll_seconds() -> float:
    return 0.1


async def ended(sender: Agent, message_id: str) -> dict[str, Any]:
    """The only recipient of a message, once its status is final."""

    async def look() -> dict[str, Any] | None:
        (recipient,) = (await sender.status(message_id))["recipients"]
        return None if recipient["status"] == "queued" else recipient

    found: dict[str, Any] = await until(look)
    return found


async def tried(sender: Agent, message_id: str, attempts: int = 1) -> dict[str, Any]:
    """The only recipient of a message, once it was tried so often and waits for the next time."""
    over = "select token is null from deliveries where attempts = $1 and message = $2"

    async def look() -> dict[str, Any] | None:
        if not await sender.gateway.app.database.fetchval(over, attempts, UUID(message_id)):
            return None
        (recipient,) = (await sender.status(message_id))["recipients"]
        return dict(recipient)

    found: dict[str, Any] = await until(look)
    return found


async def test_what_is_pushed_has_every_member_and_verifies_as_a_standard_webhook(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, receiver(net) as hook:
        alice = await acme.register("alice")
        bob, secret = await pushed(acme, hook)
        message_id = await sent(
            alice,
            "bob+desk@acme.test",
            subject="Order 17",
            payload={"n": 1},
            headers={"correlation-id": "c-1"},
            timestamp="2026-03-01T12:00:00Z",
        )
        assert (await ended(alice, message_id))["via"] == "webhook"
        (post,) = hook.posts
        assert post.path == "/in?token=secret-in-url"
        assert post.headers["content-type"] == "application/json"
        said = Webhook(secret).verify(post.body, post.headers)
        about = said.pop("gateway")
        assert (about["address"], "untrusted" in about) == ("bob+desk@acme.test", False)
        assert said == {
            "message_id": message_id,
            "sender": "alice@acme.test",
            "recipient": "bob+desk@acme.test",
            "subject": "Order 17",
            "schema": None,
            "timestamp": "2026-03-01T12:00:00Z",
            "in_reply_to": None,
            "headers": {"correlation-id": "c-1"},
            "payload": {"n": 1},
            "attachments": [],
            "coordination": None,
            "sender_verification": "pass",
        }
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(post.body.replace(b"Order 17", b"Order 18"), post.headers)
        assert await bob.inbox() == []


async def test_a_callback_that_fails_twice_is_delivered_at_the_third_and_its_response_is_a_reply(
    net: Federation,
) -> None:
    async with net.gateway("acme.test") as acme, receiver(net) as hook:
        hook.will(
            answers(500), answers(500), answers(200, {"status": "accepted", "response": {"taken": True}})
        )
        alice = await acme.register("alice")
        await pushed(acme, hook)
        message_id = await sent(
            alice,
            "bob@acme.test",
            subject="Order 17",
            response_type="acme:receipt.v1",
            headers={"correlation-id": "c-1", "thread-id": "t-1"},
        )
        for attempts in (1, 2):
            waiting = await tried(alice, message_id, attempts)
            assert "500" in waiting["last_error"]
            net.turn(10)
        recipient = await ended(alice, message_id)
        assert (recipient["status"], recipient["attempts"]) == ("delivered", 3)
        (reply,) = await mail(alice)
        assert reply["sender"] == "bob@acme.test"
        assert (reply["in_reply_to"], reply["payload"]) == (message_id, {"taken": True})
        assert (reply["subject"], reply["schema"]) == ("Re: Order 17", "acme:receipt.v1")
        assert reply["headers"]["correlation-id"] == "c-1"
        assert reply["headers"]["thread-id"] == "t-1"
        assert (reply["headers"]["auto-submitted"], reply["sender_verification"]) == ("auto-replied", "pass")
        assert len({post.headers["webhook-id"] for post in hook.posts}) == 1
        assert len({post.body for post in hook.posts}) == 1


async def test_a_response_reaches_a_sender_on_another_domain(net: Federation) -> None:
    async with (
        net.gateway("acme.test") as acme,
        net.gateway("umbrella.test") as umbrella,
        receiver(net) as hook,
    ):
        hook.will(answers(500), answers(200, {"status": "accepted", "response": [1, 2]}))
        eve = await umbrella.register("eve")
        await pushed(acme, hook)
        message_id = await sent(eve, "bob@acme.test")

        async def failed_once() -> bool:
            waits = "select count(*) from deliveries where attempts = 1 and token is null"
            return bool(await acme.app.database.fetchval(waits))

        await until(failed_once)
        net.turn(10)
        (reply,) = await mail(eve)
        assert (reply["sender"], reply["in_reply_to"]) == ("bob@acme.test", message_id)
        assert reply["payload"] == [1, 2]
        assert len(await eve.inbox()) == 1


async def test_a_response_is_the_200_of_a_request_that_waits_here_and_from_elsewhere(net: Federation) -> None:
    async with (
        net.gateway("acme.test") as acme,
        net.gateway("umbrella.test") as umbrella,
        receiver(net) as hook,
    ):
        hook.will(answers(200, {"status": "accepted", "response": {"taken": True}}))
        await pushed(acme, hook)
        for gateway in (acme, umbrella):
            sender = await gateway.register("alice")
            message = {"sender": sender.address, "recipients": ["bob@acme.test"], "payload": 1}
            reply = await gateway.call(
                "POST", "/v1/messages", key=sender.key, json=message, headers={"Prefer": "wait=10"}
            )
            assert reply.status == 200, reply.text
            assert reply.json["reply"]["payload"] == {"taken": True}
            assert reply.json["reply"]["in_reply_to"] == reply.json["message_id"]
            assert len(await sender.inbox()) == 1


async def test_a_slow_webhook_answers_202_at_the_deadline_and_the_reply_comes_later(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, receiver(net) as hook:
        opened = asyncio.Event()

        async def slowly(exchange: Exchange) -> None:
            await opened.wait()
            await answers(200, {"response": "at last"})(exchange)

        hook.will(slowly)
        alice = await acme.register("alice")
        await pushed(acme, hook)
        message = {"sender": alice.address, "recipients": ["bob@acme.test"], "payload": 1}
        reply = await acme.call(
            "POST", "/v1/messages", key=alice.key, json=message, headers={"Prefer": "wait=1"}
        )
        assert (reply.status, reply.json["status"]) == (202, "queued")
        opened.set()
        (answer,) = await mail(alice)
        assert answer["payload"] == "at last"


async def test_a_message_that_may_not_wait_is_pushed_before_its_answer(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, receiver(net) as hook:
        alice = await acme.register("alice")
        await pushed(acme, hook)
        at_once = {"headers": {"delivery": "best_effort"}}
        taken = await alice.send("bob@acme.test", **at_once)
        assert (taken.status, taken.json["status"]) == (200, "delivered")
        hook.will(answers(500))
        failed = await alice.send("bob@acme.test", **at_once)
        assert (failed.status, failed.code) == (503, "RECIPIENT_UNAVAILABLE")
        assert len(hook.posts) == 2


async def test_a_response_goes_where_the_message_says_replies_go(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, receiver(net) as hook:
        hook.will(answers(200, {"response": "yes"}))
        alice, desk = await acme.register("alice"), await acme.register("desk")
        await pushed(acme, hook)
        await sent(alice, "bob@acme.test", headers={"reply-to": "desk@acme.test"})
        (reply,) = await mail(desk)
        assert reply["payload"] == "yes"
        assert await alice.inbox() == []


async def test_a_response_that_makes_no_message_is_no_delivery_yet(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, receiver(net) as hook:
        hook.will(answers(200, b'{"response": {"a": 1, "a": 2}}'), answers(200, {"response": {"a": 2}}))
        alice = await acme.register("alice")
        await pushed(acme, hook)
        message_id = await sent(alice, "bob@acme.test")
        assert "makes no message" in (await tried(alice, message_id))["last_error"]
        net.turn(10)
        (reply,) = await mail(alice)
        assert reply["payload"] == {"a": 2}


async def test_an_agent_that_is_asked_twice_makes_one_reply(net: Federation) -> None:
    """Its answer was not yet settled when the lease was lost, and somebody else asked again."""
    async with receiver(net) as hook:
        opened, both = asyncio.Event(), asyncio.Barrier(3)

        async def slowly(exchange: Exchange) -> None:
            await both.wait()
            await opened.wait()
            await answers(200, {"response": exchange.place})(exchange)

        hook.will(slowly)
        async with net.gateway("acme.test") as acme:
            alice = await acme.register("alice")
            await pushed(acme, hook)
            message_id = await sent(alice, "bob@acme.test")

            async def asked() -> bool:
                return len(hook.requests) == 1

            await until(asked)
            await acme.app.database.execute("update deliveries set due = amtp_now(), token = null")
            await both.wait()
            opened.set()
            assert (await ended(alice, message_id))["attempts"] == 2
        first, second = hook.posts
        assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)
        async with net.gateway("acme.test") as again:  # both couriers are home
            (reply,) = await alice.at(again).inbox()
            assert (reply["payload"], reply["in_reply_to"]) == (1, message_id)


async def test_a_response_to_nobody_is_noted_and_the_message_delivered(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, receiver(net) as hook:
        hook.will(answers(200, {"response": 1}))
        alice = await acme.register("alice")
        await pushed(acme, hook)
        message_id = await sent(alice, "bob@acme.test", headers={"reply-to": "nobody@acme.test"})
        assert (await ended(alice, message_id))["status"] == "delivered"
        acme.app.journal.flush()
        assert f"The reply of bob@acme.test to {message_id} has nowhere to go" in acme.log.getvalue()


async def test_a_retired_agent_is_pushed_nothing_and_its_inbox_goes_on_accepting(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, receiver(net) as hook:
        alice = await acme.register("alice")
        _, first = await pushed(acme, hook)
        gone = await acme.call("DELETE", "/v1/admin/agents/bob", key=acme.admin_key)
        assert gone.status == 200
        message_id = await sent(alice, "bob@acme.test")
        assert (await ended(alice, message_id))["via"] == "inbox"
        assert hook.requests == []
        bob, second = await pushed(acme, hook)
        assert second != first
        assert [each["message_id"] for each in await bob.inbox()] == [message_id]


async def test_two_agents_that_answer_everything_do_not_answer_each_other_for_ever(net: Federation) -> None:
    async with (
        net.gateway("acme.test") as acme,
        receiver(net) as one,
        receiver(net, "hooks2.acme.test") as other,
    ):
        for hook in (one, other):
            hook.will(answers(200, {"response": "pleased to hear that"}))
        alice, _ = await pushed(acme, one, "alice")
        await pushed(acme, other, "bob")
        first = await sent(alice, "bob@acme.test")
        await ended(alice, first)

        async def answered() -> bool:
            return len(one.posts) == 1

        await until(answered)
        assert one.posts[0].messages[0]["in_reply_to"] == first
        assert one.posts[0].messages[0]["gateway"]["automatic"] is True
        settled = "select count(*) from deliveries"

        async def quiet() -> bool:
            return bool(await acme.app.database.fetchval(settled) == 0)

        await until(quiet)
        assert (len(one.posts), len(other.posts)) == (1, 1)


async def test_an_agent_whose_webhook_is_gone_reads_its_inbox_and_the_operator_is_told_once(
    net: Federation,
) -> None:
    async with net.gateway("acme.test") as acme, receiver(net) as hook:
        hook.will(answers(410))
        alice = await acme.register("alice")
        bob, _ = await pushed(acme, hook)
        ids = [await sent(alice, "bob+x@acme.test", payload=n) for n in range(3)]
        found = await mail(bob, 3)
        assert sorted(each["message_id"] for each in found) == sorted(ids)
        assert found[0]["gateway"]["address"] == "bob+x@acme.test"
        assert [(await ended(alice, each))["via"] for each in ids] == ["inbox"] * 3
        shown = await acme.call("GET", "/v1/admin/agents/bob", key=acme.admin_key)
        assert (shown.json["agent"]["delivery_mode"], shown.json["agent"]["push_target"]) == (
            "pull",
            hook.url,
        )
        asked = len(hook.posts)
        inbox = await acme.call("GET", "/v1/inbox/postmaster@acme.test", key=acme.admin_key)
        (told,) = inbox.json["messages"]
        assert (told["message_type"], told["payload"]["agent"]) == ("push_ended", "bob@acme.test")
        acme.app.journal.flush()
        assert "agent_changed" in acme.log.getvalue()

        async def straight() -> bool:
            """Every process knows within two seconds; from then on the inbox has it with the commit."""
            reply = await alice.send("bob@acme.test")
            return bool(reply.json["recipients"][0]["status"] == "delivered")

        await until(straight)
        assert len(hook.posts) >= asked
        posts = len(hook.posts)
        await sent(alice, "bob@acme.test")
        assert len(hook.posts) == posts


async def test_a_webhook_that_asks_for_patience_gets_it_and_is_not_blamed(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, receiver(net) as hook:
        hook.will(answers(429, retry_after="600"), answers(503, retry_after="600"), answers(200))
        alice = await acme.register("alice")
        await pushed(acme, hook)
        message_id = await sent(alice, "bob@acme.test")
        for attempts in (1, 2):
            waiting = await tried(alice, message_id, attempts)
            wait = datetime.fromisoformat(waiting["next_retry"]) - net.clock.now()
            assert timedelta(seconds=580) < wait <= timedelta(seconds=600)
            net.turn(610)
        assert (await ended(alice, message_id))["status"] == "delivered"


async def test_a_refusal_in_our_words_is_final_and_reported(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, receiver(net) as hook:
        hook.will(refuses(400, "SCHEMA_UNSUPPORTED", "Not an order."))
        alice = await acme.register("alice")
        await pushed(acme, hook)
        message_id = await sent(alice, "bob@acme.test")
        assert (await ended(alice, message_id))["status"] == "failed"
        (report,) = await mail(alice)
        assert report["payload"]["error_code"] == "SCHEMA_UNSUPPORTED"


async def test_a_redirect_is_not_followed(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, receiver(net) as hook, receiver(net, "other.test") as other:
        hook.will(redirects(other.url))
        alice = await acme.register("alice")
        await pushed(acme, hook)
        message_id = await sent(alice, "bob@acme.test")
        assert "307" in (await tried(alice, message_id))["last_error"]
        assert other.requests == []


async def test_a_slow_webhook_delays_no_other(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, receiver(net) as slow, receiver(net, "fast.test") as fast:
        opened = asyncio.Event()

        async def slowly(exchange: Exchange) -> None:
            await opened.wait()
            await answers(200)(exchange)

        slow.will(slowly)
        alice = await acme.register("alice")
        await pushed(acme, slow, "slow")
        await pushed(acme, fast, "fast")
        waiting = [await sent(alice, "slow@acme.test") for _ in range(12)]
        ids = [await sent(alice, "fast@acme.test") for _ in range(12)]
        for message_id in ids:
            assert (await ended(alice, message_id))["status"] == "delivered"
        assert len(fast.posts) == 12
        opened.set()
        for message_id in waiting:
            assert (await ended(alice, message_id))["status"] == "delivered"


async def test_while_a_secret_is_rotated_both_sign(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, receiver(net) as hook:
        alice = await acme.register("alice")
        _, first = await pushed(acme, hook)

        async def rotated(**said: Any) -> str:
            path = "/v1/admin/agents/bob/rotate-push-secret"
            reply = await acme.call("POST", path, key=acme.admin_key, json=said)
            assert reply.status == 200, reply.text
            return str(reply.json["agent"]["push_secret"])

        async def signers(*secrets: str) -> list[str]:
            """Which of the secrets the next request is signed with."""
            await ended(alice, await sent(alice, "bob@acme.test"))
            post = hook.posts[-1]
            return [secret for secret in secrets if _fits(secret, post.body, post.headers)]

        second = await rotated(grace_seconds=3600)
        assert await signers(first, second) == [first, second]
        assert len(hook.posts[-1].headers["webhook-signature"].split()) == 2
        third = await rotated(grace_seconds=0)
        assert await signers(first, second, third) == [third]
        sealed = await acme.app.database.fetchval("select push_secrets from agents where local = 'bob'")
        assert third.encode() not in sealed


def _fits(secret: str, body: bytes, headers: dict[str, str]) -> bool:
    try:
        Webhook(secret).verify(body, headers)
    except WebhookVerificationError:
        return False
    return True


async def test_the_receiver_that_authors_are_shown_takes_and_answers(net: Federation, tmp_path: Path) -> None:
    (block,) = re.findall(
        r"^```python receiver\n(.*?)^```$", (ROOT / "docs/agents.md").read_text(), re.M | re.S
    )
    site = net.ground.site(HOST)
    net.dns.add(HOST, "A", site.host)
    (tmp_path / "receiver.py").write_text(block.replace('("", 8443)', repr((site.host, site.port))))
    for name, file in zip(("cert.pem", "key.pem"), net.authority.write_pair(tmp_path, HOST), strict=True):
        file.rename(tmp_path / name)
    async with net.gateway("acme.test") as acme:
        alice = await acme.register("alice")
        hook = net.fake(domain=HOST, host=HOST)  # for its URL alone
        _, secret = await pushed(acme, hook)
        process = await asyncio.create_subprocess_exec(
            *(*net.ground.words_there, sys.executable, "receiver.py"),
            cwd=tmp_path,
            env={"PUSH_SECRET": secret},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            await until(lambda: _listens(site.host, site.port))
            await sent(alice, "bob@acme.test", payload={"order": 17})
            (reply,) = await mail(alice)
            assert reply["payload"] == {"taken": True}
            assert process.stdout is not None
            assert await process.stdout.readline() == b"alice@acme.test {'order': 17}\n"
        finally:
            process.terminate()
            await process.wait()


async def _listens(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


async def test_nobody_but_operators_is_shown_where_an_agent_is_pushed_to(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, receiver(net) as hook:
        hook.will(answers(500))
        alice = await acme.register("alice")
        await pushed(acme, hook, push_secret="a-secret-of-their-own")
        message_id = await sent(alice, "bob@acme.test")
        await tried(alice, message_id)
        await hook_down(hook)
        net.turn(10)
        await tried(alice, message_id, 2)
        told = [
            json.dumps(await alice.status(message_id)),
            (await acme.call("GET", "/v1/messages", key=alice.key)).text,
            (await acme.call("GET", "/v1/discovery/agents", key=alice.key)).text,
            (await acme.call("GET", "/v1/admin/queue", key=acme.admin_key)).text,
        ]
        acme.app.journal.flush()
        told.append(acme.log.getvalue())
        for text in told:
            assert HOST not in text
            assert "secret" not in text
            assert f"{hook.address}:{hook.port}" not in text


async def hook_down(hook: FakePeer) -> None:
    """From now on it hangs up as soon as it is spoken to."""

    async def reset(exchange: Exchange) -> None:
        exchange.reset()

    hook.will(reset)
