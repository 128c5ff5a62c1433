"""Gateways of different domains: real DNS packets, real TLS, a database for each."""

import json
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from conformance.dns_server import Behaviour
from conformance.fake_peer import (
    Authority,
    Exchange,
    accepts,
    answers,
    receipt,
    refuses,
)
from gateway.config.sections import PeerSettings, QueueSettings
from gateway.config.values import Secret
from gateway.net.tls import TlsError
from gateway.protocol.timestamp import render_timestamp
from tests.federation import Federation
from tests.telling import count, ended, gate, mail, sent, tried, until
from tests.world import Gateway


@pytest.fixture
def poll_seconds() -> float:
    return 0.1  # the clock is turned by hours here, and watched closely


async def logged(gateway: Gateway, event: str) -> list[str]:
    gateway.app.journal.flush()
    return [line for line in gateway.log.getvalue().splitlines() if f" {event} " in f" {line} "]


async def accepts_and_hangs_up(exchange: Exchange) -> None:
    await accepts(exchange)
    exchange.keep_alive = False


async def test_a_message_crosses_from_one_domain_to_another(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.gateway("umbrella.test") as umbrella:
        alice, bob = await acme.register("alice"), await umbrella.register("bob")
        reply = await alice.send(bob.address, subject="Hello")
        assert reply.status == 202, reply.text
        (item,) = await mail(bob)
        assert (item["sender"], item["subject"], item["payload"]) == (alice.address, "Hello", {"n": 1})
        assert item["message_id"] == reply.json["message_id"]
        status = await ended(alice, reply.json["message_id"])
        assert status["status"] == "delivered"
        assert status["recipients"][0]["via"] == "amtp:amtp.umbrella.test"


async def test_a_message_to_three_domains_arrives_once_in_each(net: Federation) -> None:
    async with AsyncExitStack() as stack:
        acme, *others = [
            await stack.enter_async_context(net.gateway(domain))
            for domain in ("acme.test", "umbrella.test", "initech.test")
        ]
        alice, dave = await acme.register("alice"), await acme.register("dave")
        remote = [await gateway.register("bob") for gateway in others]
        message_id = await sent(alice, dave.address, *(bob.address for bob in remote))
        status = await ended(alice, message_id)
        assert [each["status"] for each in status["recipients"]] == ["delivered"] * 3
        for agent in (dave, *remote):
            assert [item["message_id"] for item in await agent.inbox()] == [message_id]


async def test_one_gateway_serves_several_domains_and_answers_come_back(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.gateway("umbrella.test", "hive.test") as umbrella:
        alice, queen = await acme.register("alice"), await umbrella.register("queen@hive.test")
        message_id = await sent(alice, queen.address)
        await mail(queen)
        await sent(queen, alice.address, in_reply_to=message_id)
        (answer,) = await mail(alice)
        assert (answer["sender"], answer["in_reply_to"]) == (queen.address, message_id)


async def test_the_recipients_at_one_gateway_travel_in_one_request(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.peer() as peer:
        alice = await acme.register("alice")
        names = [f"a{n}@peer.test" for n in range(25)]
        message_id = await sent(alice, *names)
        assert (await ended(alice, message_id))["status"] == "delivered"
        (request,) = peer.posts
        assert request.messages[0]["recipients"] == names
        assert request.headers["via"] == "1.1 amtp.acme.test"


async def test_an_unknown_agent_over_there_fails_alone_with_a_dead_letter_and_one_report(
    net: Federation,
) -> None:
    async with net.gateway("acme.test") as acme, net.gateway("umbrella.test") as umbrella:
        alice, bob = await acme.register("alice"), await umbrella.register("bob")
        message_id = await sent(alice, bob.address, "ghost@umbrella.test")
        status = await ended(alice, message_id)
        assert status["status"] == "partial"
        delivered, failed = status["recipients"]
        assert (delivered["status"], failed["status"]) == ("delivered", "failed")
        assert failed["error"]["code"] == "AGENT_UNKNOWN"
        letters = await acme.app.database.fetch("select recipient, failure_code from dead_letters")
        assert [tuple(letter) for letter in letters] == [("ghost@umbrella.test", "AGENT_UNKNOWN")]
        (report,) = await mail(alice)
        assert (report["message_type"], report["in_reply_to"]) == ("delivery_failure", message_id)
        assert report["sender"] == "postmaster@acme.test"
        assert report["failed_recipients"] == ["ghost@umbrella.test"]
        assert report["payload"]["error_code"] == "AGENT_UNKNOWN"
        assert len(await bob.inbox()) == 1


async def test_a_domain_that_does_not_exist_is_reported_at_once(net: Federation) -> None:
    async with net.gateway("acme.test") as acme:
        alice = await acme.register("alice")
        message_id = await sent(alice, "bob@nowhere.test")
        status = await ended(alice, message_id)
        assert status["recipients"][0]["error"]["code"] == "RECIPIENT_NOT_FOUND"
        (report,) = await mail(alice)
        assert report["error_code"] == "RECIPIENT_NOT_FOUND"
        assert "_amtp.nowhere.test" in report["error_message"]
        assert await count(acme, "dead_letters") == 1


async def test_mail_for_a_gateway_that_is_down_waits_and_arrives_when_it_is_back(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, AsyncExitStack() as stack:
        alice = await acme.register("alice")
        peer = net.fake()
        net.introduce(peer)
        ids = [await sent(alice, "bob@peer.test", payload=n) for n in range(8)]
        await until(lambda: logged(acme, "destination_failing"))
        status = await alice.status(ids[-1])
        assert status["status"] == "queued"
        assert "does not take connections" in status["recipients"][0]["last_error"]
        # However far away the next attempts are, a probe finds that it is back.
        await acme.app.database.execute(
            "update deliveries set due = amtp_now() + interval '1 hour', attempts = 13"
            " where token is null and attempts > 0"
        )
        await stack.enter_async_context(peer.listening())
        await until(lambda: logged(acme, "destination_back"))
        net.turn(10)
        for message_id in ids:
            assert (await ended(alice, message_id))["status"] == "delivered"
        assert sorted(request.messages[0]["message_id"] for request in peer.posts) == sorted(ids)
        assert await count(acme, "destinations where open_until is not null") == 0


async def test_a_peer_that_answers_badly_is_not_tried_more_often_because_it_answers(net: Federation) -> None:
    """Its health page is fine, its door is not: a probe must not use up the attempts of what waits."""
    async with net.gateway("acme.test") as acme, net.peer() as peer:
        opened, behave = gate(answers(500))
        peer.will(behave)
        alice = await acme.register("alice")
        ids = [await sent(alice, "bob@peer.test", payload=n) for n in range(5)]
        opened.set()
        await until(lambda: logged(acme, "destination_failing"))
        await acme.app.database.execute(
            "update deliveries set due = due + interval '1 hour', attempts = 13, token = null"
        )
        attempts = [(await alice.status(each))["recipients"][0]["attempts"] for each in ids]
        net.turn(120)  # the breaker is half open
        dave = await acme.register("dave")
        await sent(dave, alice.address)  # the house is at work
        await mail(alice)
        assert {request.method for request in peer.requests} == {"POST"}
        assert [(await alice.status(each))["recipients"][0]["attempts"] for each in ids] == attempts
        peer.will(accepts)
        message_id = await sent(alice, "carol@peer.test")
        assert (await ended(alice, message_id))["status"] == "delivered"
        await until(lambda: logged(acme, "destination_back"))
        net.turn(600)
        for each in ids:  # what the outage made wait need not wait for its own hour
            assert (await ended(alice, each))["status"] == "delivered"


async def test_a_peer_named_while_the_gateway_runs_is_known_at_once(net: Federation) -> None:
    key = "a-key-that-proves-the-peer"
    peer = net.fake()
    async with net.gateway("acme.test") as acme, peer.listening():
        net.dns.add(peer.host, "A", peer.address)  # nothing is published but the host
        alice = await acme.register("alice")
        missing = replace(
            acme.app.config, peers={"peer.test": PeerSettings(peer.url, ca_file=Path("/no/such.pem"))}
        )
        with pytest.raises(TlsError, match=r"such\.pem"):
            acme.app.adopt(missing)
        message = {"version": "1.0", "sender": "bob@peer.test", "recipients": [alice.address], "payload": 1}
        assert (await acme.call("POST", "/v1/messages", key=key, json=message)).status == 401
        known = PeerSettings(peer.url, proving_key=Secret(key))
        acme.app.adopt(replace(acme.app.config, peers={"peer.test": known}))
        assert (await acme.call("POST", "/v1/messages", key=key, json=message)).status == 202
        await ended(alice, await sent(alice, "bob@peer.test"))
        assert len(peer.posts) == 1


async def test_a_domain_that_contacts_us_is_looked_at_again_at_once(net: Federation) -> None:
    key = "a-key-that-proves-the-peer"
    peer = net.fake()
    known = PeerSettings(peer.url, proving_key=Secret(key))
    net.dns.add(peer.host, "A", peer.address)
    async with net.gateway("acme.test", peers={"peer.test": known}) as acme, AsyncExitStack() as stack:
        alice = await acme.register("alice")
        for n in range(6):
            await sent(alice, "bob@peer.test", payload=n)
        await until(lambda: logged(acme, "destination_failing"))
        await acme.app.database.execute("update destinations set open_until = amtp_now() + interval '1 hour'")
        await stack.enter_async_context(peer.listening())
        message = {"version": "1.0", "sender": "bob@peer.test", "recipients": [alice.address], "payload": 1}
        reply = await acme.call("POST", "/v1/messages", key=key, json=message)
        assert reply.status == 202, reply.text
        await until(lambda: logged(acme, "destination_back"))
        net.turn(10)

        async def arrived() -> bool:
            return len(peer.posts) == 6

        await until(arrived)


async def test_a_slow_peer_delays_nobody_else(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.peer("slow.test") as slow, net.peer() as peer:
        opened, behave = gate()
        slow.will(behave)
        alice = await acme.register("alice")
        slow_ids = [await sent(alice, "bob@slow.test", payload=n) for n in range(12)]
        ids = [await sent(alice, "bob@peer.test", payload=n) for n in range(12)]
        for message_id in ids:
            assert (await ended(alice, message_id))["status"] == "delivered"
        assert len(peer.posts) == 12
        opened.set()
        for message_id in slow_ids:
            assert (await ended(alice, message_id))["status"] == "delivered"
        assert len(slow.posts) == 12


async def test_a_peer_that_asks_for_patience_gets_it(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.peer() as peer:
        peer.will(refuses(429, "RATE_LIMIT_EXCEEDED", retry_after="600"), accepts)
        alice = await acme.register("alice")
        message_id = await sent(alice, "bob@peer.test")
        recipient = await tried(alice, message_id)
        wait = datetime.fromisoformat(recipient["next_retry"]) - net.clock.now()
        assert timedelta(seconds=580) < wait <= timedelta(seconds=600)
        net.turn(610)
        assert (await ended(alice, message_id))["status"] == "delivered"
        first, second = (request.messages[0] for request in peer.posts)
        assert first == second
        assert not await logged(acme, "destination_failing")


SPOILED: dict[str, tuple[dict[str, Any], str]] = {
    "expired": ({"expired": True}, "expired"),
    "for another name": ({"certificate_host": "amtp.other.test"}, "not valid for"),
    "by an authority nobody knows": ({"authority": Authority()}, "certificate"),
}


@pytest.mark.parametrize("fault", SPOILED)
async def test_nothing_is_sent_to_a_gateway_whose_certificate_is_bad_until_it_has_a_good_one(
    net: Federation, fault: str
) -> None:
    how, words = SPOILED[fault]
    peer = net.fake(**how)
    async with net.gateway("acme.test") as acme:
        alice = await acme.register("alice")
        async with peer.listening():
            net.introduce(peer)
            message_id = await sent(alice, "bob@peer.test")
            recipient = await tried(alice, message_id)
            assert recipient["status"] == "queued"
            assert words in recipient["last_error"]
            assert peer.requests == []
        peer.authority, peer.certificate_host, peer.expired = net.authority, None, False
        async with peer.listening():
            net.turn(60)
            assert (await ended(alice, message_id))["status"] == "delivered"
            assert [request.messages[0]["message_id"] for request in peer.posts] == [message_id]


async def test_a_message_larger_than_the_peer_takes_is_not_sent(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.peer(max_size=2000) as peer:
        alice = await acme.register("alice")
        message_id = await sent(alice, "bob@peer.test", payload="x" * 2000)
        status = await ended(alice, message_id)
        assert status["recipients"][0]["error"]["code"] == "MESSAGE_TOO_LARGE"
        assert peer.requests == []
        (report,) = await mail(alice)
        assert report["error_code"] == "MESSAGE_TOO_LARGE"


async def test_a_changed_record_is_followed_when_its_time_is_over(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.peer() as old:
        new = net.fake(host="new.peer.test")
        alice = await acme.register("alice")
        async with new.listening():
            for expected in ((1, 0), (2, 0), (2, 1)):
                if expected == (2, 0):
                    net.introduce(new)  # while the old record is still good
                if expected == (2, 1):
                    net.turn(61)
                assert (await ended(alice, await sent(alice, "bob@peer.test")))["status"] == "delivered"
                assert (len(old.posts), len(new.posts)) == expected


async def test_an_outage_of_the_dns_is_survived_with_what_it_said_before(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.peer() as peer, net.peer("late.test") as late:
        peer.will(accepts_and_hangs_up)
        alice = await acme.register("alice")
        await ended(alice, await sent(alice, "bob@peer.test"))
        net.dns.behave("_amtp.peer.test", Behaviour.SERVFAIL)
        net.dns.behave(peer.host, Behaviour.SERVFAIL)
        net.dns.behave("_amtp.late.test", Behaviour.SERVFAIL)
        net.turn(61)
        await ended(alice, await sent(alice, "bob@peer.test"))
        assert len(peer.posts) == 2
        message_id = await sent(alice, "bob@late.test")
        recipient = await tried(alice, message_id)
        assert "SERVFAIL" in recipient["last_error"]
        net.dns.behave("_amtp.late.test", None)
        net.turn(3600)
        assert (await ended(alice, message_id))["status"] == "delivered"
        assert len(late.posts) == 1


async def test_a_message_whose_time_is_over_is_reported_and_leaves_no_dead_letter(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.peer() as peer:
        peer.will(refuses(503, "TEMPORARY_FAILURE", "Not today."))
        alice = await acme.register("alice")
        message_id = await sent(alice, "bob@peer.test", headers={"ttl": 3600})
        await tried(alice, message_id)
        net.turn(3601)
        await acme.app.housekeeping.once()
        status = await ended(alice, message_id)
        assert status["recipients"][0]["status"] == "expired"
        (report,) = await mail(alice)
        assert (report["message_type"], report["in_reply_to"]) == ("delivery_failure", message_id)
        assert "Not today." in report["error_message"]
        assert await count(acme, "dead_letters") == 0


async def test_what_is_urgent_overtakes_what_waits(net: Federation) -> None:
    one_at_a_time = QueueSettings(per_destination_window_max=1)
    async with net.gateway("acme.test", queue=one_at_a_time) as acme, net.peer() as peer:
        opened, behave = gate()
        peer.will(behave)
        alice = await acme.register("alice")
        await sent(alice, "bob@peer.test", subject="first")

        async def under_way() -> bool:
            return bool(peer.posts)

        await until(under_way)
        ids = [
            await sent(alice, "bob@peer.test", subject=priority, headers={"priority": priority})
            for priority in ("low", "normal", "high", "urgent")
            for _ in range(2)
        ]
        opened.set()
        for message_id in ids:
            await ended(alice, message_id)
        subjects = [request.messages[0]["subject"] for request in peer.posts]
        assert subjects == ["first", *("urgent",) * 2, *("high",) * 2, *("normal",) * 2, *("low",) * 2]


async def test_a_message_for_later_is_delivered_then_here_and_elsewhere(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.peer() as peer:
        alice, dave = await acme.register("alice"), await acme.register("dave")
        then = net.clock.now() + timedelta(hours=2)
        reply = await alice.send(
            dave.address, "bob@peer.test", headers={"deliver-after": render_timestamp(then)}
        )
        assert reply.status == 202
        message_id = reply.json["message_id"]
        assert {each["status"] for each in reply.json["recipients"]} == {"queued"}
        net.turn(7100)
        await ended(alice, await sent(alice, "carol@peer.test"))  # by now it would have gone
        assert (len(peer.posts), await dave.inbox()) == (1, [])
        assert (await alice.status(message_id))["status"] == "queued"
        net.turn(101)
        assert (await ended(alice, message_id))["status"] == "delivered"
        assert [item["message_id"] for item in await mail(dave)] == [message_id]
        assert len(peer.posts) == 2


async def test_what_waits_together_goes_together_and_a_line_break_travels_alone(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.peer(features=frozenset({"batch"})) as peer:
        opened, behave = gate()
        peer.will(behave)
        alice = await acme.register("alice")
        ids = [await sent(alice, "bob@peer.test", payload=n) for n in range(30)]
        broken = (
            '{"sender": "alice@acme.test", "recipients": ["bob@peer.test"], "payload": [\n"a line break"]}'
        )
        reply = await acme.call("POST", "/v1/messages", key=alice.key, body=broken.encode())
        ids.append(reply.json["message_id"])
        opened.set()
        for message_id in ids:
            assert (await ended(alice, message_id))["status"] == "delivered"
        assert sorted(m["message_id"] for request in peer.posts for m in request.messages) == sorted(ids)
        assert any(request.batch and len(request.messages) > 5 for request in peer.posts)
        assert any(not request.batch for request in peer.posts)
        (alone,) = [request for request in peer.posts if b"a line break" in request.body]
        assert not alone.batch


async def test_in_a_batch_each_message_has_its_own_outcome(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.gateway("umbrella.test") as umbrella:
        alice, bob = await acme.register("alice"), await umbrella.register("bob")
        good, bad = [], []
        for n in range(20):
            good.append(await sent(alice, bob.address, payload=n))
            bad.append(await sent(alice, "ghost@umbrella.test", payload=n))
        assert {(await ended(alice, each))["status"] for each in good} == {"delivered"}
        assert {(await ended(alice, each))["status"] for each in bad} == {"failed"}
        assert sorted(item["message_id"] for item in await mail(bob, 20)) == sorted(good)
        reports = await mail(alice, 20)
        assert sorted(report["in_reply_to"] for report in reports) == sorted(bad)


async def test_a_message_that_goes_in_circles_is_refused(net: Federation) -> None:
    async with net.gateway("acme.test") as acme:
        alice = await acme.register("alice")
        message = {"version": "1.0", "sender": "bob@peer.test", "recipients": [alice.address], "payload": 1}
        circle = ", ".join(["1.1 amtp.acme.test", "1.1 amtp.peer.test"] * 3)
        long_way = ", ".join(f"1.1 amtp.p{n}.test" for n in range(26))
        for via in (circle, long_way):
            reply = await acme.call("POST", "/v1/messages", json=message, headers={"Via": via})
            assert (reply.status, reply.code) == (400, "LOOP_DETECTED")
        assert await alice.inbox() == []


async def test_mail_from_elsewhere_to_elsewhere_is_not_relayed(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.peer() as peer:
        alice = await acme.register("alice")
        message = {
            "version": "1.0",
            "sender": "eve@evil.test",
            "recipients": ["bob@peer.test", alice.address],
            "payload": 1,
        }
        reply = await acme.call("POST", "/v1/messages", json=message)
        assert reply.status == 202
        refused, taken = reply.json["recipients"]
        assert refused["error"]["code"] == "RELAY_DENIED"
        assert taken["status"] == "delivered"
        only = await acme.call("POST", "/v1/messages", json={**message, "recipients": ["bob@peer.test"]})
        assert (only.status, only.code) == (403, "RELAY_DENIED")
        assert peer.requests == []


@pytest.mark.parametrize("proven", [False, True])
async def test_only_a_proven_sender_from_elsewhere_is_told_of_a_failure(
    net: Federation, proven: bool
) -> None:
    key = "a-key-that-proves-the-peer"
    async with AsyncExitStack() as stack:
        peer = net.fake()
        net.introduce(peer)
        known = {"peer.test": PeerSettings(peer.url, proving_key=Secret(key), accept_unproven=True)}
        acme = await stack.enter_async_context(net.gateway("acme.test", peers=known))
        await stack.enter_async_context(peer.listening())
        bob = await acme.register("bob")
        then = render_timestamp(net.clock.now() + timedelta(hours=1))
        message = {
            "version": "1.0",
            "sender": "eve@peer.test",
            "recipients": [bob.address],
            "payload": 1,
            "headers": {"deliver-after": then},
        }
        reply = await acme.call("POST", "/v1/messages", key=key if proven else None, json=message)
        assert reply.status == 202, reply.text
        gone = await acme.call("DELETE", f"/v1/admin/agents/{bob.address}?mail=return", key=acme.admin_key)
        assert gone.status == 200, gone.text
        net.turn(3700)
        await until(lambda: count(acme, "dead_letters"))
        # The report is committed with the dead letter.
        assert await count(acme, "messages where automatic") == int(proven)
        if proven:

            async def told() -> list[Any]:
                return [m["in_reply_to"] for request in peer.posts for m in request.messages]

            assert await until(told) == [reply.json["message_id"]]


async def test_a_late_message_is_told_of_once_after_four_hours(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.peer() as peer:
        peer.will(refuses(503, "TEMPORARY_FAILURE", "Not today."))
        alice = await acme.register("alice")
        message_id = await sent(alice, "bob@peer.test")
        await tried(alice, message_id)
        net.turn(3 * 3600)
        await acme.app.housekeeping.once()
        assert await alice.inbox() == []
        net.turn(3700)
        for _ in range(2):
            await acme.app.housekeeping.once()
            (report,) = await alice.inbox()
        assert (report["message_type"], report["in_reply_to"]) == ("delivery_delayed", message_id)
        assert report["payload"]["failed_recipients"] == ["bob@peer.test"]
        assert (await alice.status(message_id))["status"] == "queued"


async def test_a_gateway_that_is_restarted_goes_on_where_it_stopped(net: Federation) -> None:
    async with net.peer() as peer:
        peer.will(refuses(503, "TEMPORARY_FAILURE"))
        async with net.gateway("acme.test") as acme:
            alice = await acme.register("alice")
            ids = [await sent(alice, "bob@peer.test", payload=n) for n in range(10)]
        peer.will(accepts)
        net.turn(60)
        async with net.gateway("acme.test") as again:
            alice = alice.at(again)
            for message_id in ids:
                assert (await ended(alice, message_id))["status"] == "delivered"
            assert (
                await again.app.database.fetchval("select sum(accepted) - sum(finished) from tallies")
            ) == 0


async def test_a_retry_tells_only_those_who_have_not_got_it(net: Federation) -> None:
    async with net.gateway("acme.test") as acme, net.peer() as peer:

        async def busy_for_one(exchange: Exchange) -> None:
            request = await exchange.read_body()
            told = receipt(request.messages[0], carol="RECIPIENT_UNAVAILABLE")
            await exchange.answer(202, json.dumps(told).encode())

        peer.will(busy_for_one, accepts)
        alice = await acme.register("alice")
        message_id = await sent(alice, "bob@peer.test", "carol@peer.test")
        net.turn(5)
        assert (await ended(alice, message_id))["status"] == "delivered"
        assert [request.messages[0]["recipients"] for request in peer.posts] == [
            ["bob@peer.test", "carol@peer.test"],
            ["carol@peer.test"],
        ]
        first, second = (request.messages[0] for request in peer.posts)
        assert first["idempotency_key"] == second["idempotency_key"]
