"""The status of messages, asked for on a real socket by everyone who might."""

import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest

from gateway.admit.api_key import mint_key
from gateway.admit.authenticate import Authenticator
from gateway.admit.caller import Caller
from gateway.admit.remembered import DirectoryWatch
from gateway.journal.journal import Journal
from gateway.receive import status
from gateway.receive.status import StatusDoor, Viewer, viewer_of
from gateway.report.interests import Interests
from gateway.store.agents.keys import directory_changes
from gateway.store.audit import Audit
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.queue.cancellation import Cancellations
from gateway.store.row_ids import Mint
from tests.receive.doorway import Doorway, Reply, doorway, head
from tests.store.house import House

ALICE, BOB = "alice@acme.test", "bob@acme.test"
KEYS = {
    "alice": ["agent"],
    "bob": ["agent"],
    "carol": ["agent"],
    "operator": ["admin"],
    "submitter": ["submit"],
    "peer": ["peer:peer.test"],
}


@dataclass
class Desk:
    """A status door, and the store behind it."""

    house: House
    doorway: Doorway
    keys: dict[str, str]
    agents: dict[str, int]
    log: io.StringIO

    async def ask(self, who: str | None, path: str, method: str = "GET") -> Reply:
        lines = [f"Authorization: Bearer {self.keys[who]}"] if who else []
        return await self.doorway.ask(head(method, path, *lines))

    async def see(self, who: str | None, path: str) -> Any:
        reply = await self.ask(who, path)
        assert reply.status == 200, reply.body
        return reply.json

    async def ids(self, who: str, query: str = "") -> list[str]:
        return [
            message["message_id"] for message in (await self.see(who, f"/v1/messages{query}"))["messages"]
        ]

    async def to_bob(self, *queued: str, **members: Any) -> UUID:
        return await self.house.send(*queued, to=[self.agents["bob"]], **members)


@pytest.fixture
async def desk(database: Database, mint: Mint, clock: Clock) -> AsyncIterator[Desk]:
    house = House(database, mint, clock)
    keys, agents = {}, {}
    for who, scopes in KEYS.items():
        if scopes == ["agent"]:
            agents[who] = await house.agent(who)
        key = mint_key()
        keys[who] = key.text
        await database.execute(
            "insert into keys (id, digest, agent, scopes, name, created_at)"
            " values ($1, $2, $3, $4, $5, amtp_now())",
            key.id,
            key.digest,
            agents.get(who),
            scopes,
            who,
        )
    log = io.StringIO()
    journal = Journal(log)
    watch = DirectoryWatch(partial(directory_changes, database))
    door = StatusDoor(
        database=database,
        authenticator=Authenticator(database, watch, clock, Journal(io.StringIO()), development=False),
        cancellations=Cancellations(database, mint, Audit(mint())),
        interests=Interests(()),
        journal=journal,
    )
    async with doorway(door.routes()) as entrance:
        yield Desk(house, entrance, keys, agents, log)
        assert not entrance.diary.failed
    journal.flush()


async def test_an_operator_sees_every_message_of_an_id_that_a_stranger_used_again(desk: Desk) -> None:
    honest = await desk.to_bob("x@peer.test", message_id="order-17")
    forged = await desk.to_bob("y@peer.test", message_id="order-17", sender="eve@evil.test")
    await desk.house.database.execute("update messages set proven = false where id = $1", forged)
    path = "/v1/messages/order-17/status"
    seen = await desk.see("operator", path)
    assert (seen["row"], seen["sender"]) == (str(honest), ALICE)
    (other,) = seen["others"]
    assert (other["row"], other["sender"], other["proven"]) == (str(forged), "eve@evil.test", False)
    chosen = await desk.see("operator", f"{path}?row={forged}")
    assert (chosen["row"], chosen["sender"], "others" in chosen) == (str(forged), "eve@evil.test", False)
    assert "others" not in await desk.see("alice", path)
    assert "row" not in await desk.see("alice", path)

    refused = await desk.ask("operator", "/v1/messages/order-17", "DELETE")
    assert (refused.code, len(refused.json["error"]["details"]["messages"])) == ("CONFLICT", 2)
    done = await desk.ask("operator", f"/v1/messages/order-17?row={forged}", "DELETE")
    assert done.json["sender"] == "eve@evil.test"
    assert (await desk.see("alice", path))["status"] == "queued"


async def test_a_sender_sees_the_status_of_every_recipient(desk: Desk) -> None:
    row = await desk.to_bob("X+tag@peer.test", due=600)
    seen = await desk.see("alice", f"/v1/messages/{row}/status")
    assert (seen["message_id"], seen["status"], seen["sender"]) == (str(row), "queued", ALICE)
    assert (seen["attempts"], seen["delivered_at"]) == (1, None)
    bob, other = seen["recipients"]
    assert set(bob) == {
        "address",
        "status",
        "timestamp",
        "attempts",
        "delivered_at",
        "next_retry",
        "last_error",
        "via",
    }
    assert (bob["address"], bob["status"], bob["via"]) == (BOB, "delivered", "inbox")
    assert bob["delivered_at"] == bob["timestamp"] == seen["created_at"]
    assert (other["address"], other["status"], other["attempts"]) == ("X+tag@peer.test", "queued", 0)
    assert seen["next_retry"] == other["next_retry"] > seen["created_at"]


async def test_the_message_itself_is_shown_with_its_envelope_and_without_its_payload(desk: Desk) -> None:
    row = await desk.to_bob(subject="hi", payload={"secret": 1}, headers={"x-mine": [1, 2]})
    seen = await desk.see("alice", f"/v1/messages/{row}")
    assert seen["message"]["subject"] == "hi"
    assert seen["message"]["headers"] == {"x-mine": [1, 2]}
    assert not set(seen["message"]) & {"payload", "recipients"}
    assert {name: value for name, value in seen.items() if name != "message"} == await desk.see(
        "alice", f"/v1/messages/{row}/status"
    )


async def test_a_recipient_sees_itself_alone(desk: Desk) -> None:
    row = await desk.to_bob("x@peer.test")
    seen = await desk.see("bob", f"/v1/messages/{row}/status")
    assert seen["status"] == "delivered"
    assert [recipient["address"] for recipient in seen["recipients"]] == [BOB]


async def test_an_operator_sees_every_message(desk: Desk) -> None:
    row = await desk.to_bob("x@peer.test")
    assert len((await desk.see("operator", f"/v1/messages/{row}"))["recipients"]) == 2
    assert await desk.ids("operator") == [str(row)]


@pytest.mark.parametrize("who", ["carol", "submitter", "peer"])
@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/status"), ("DELETE", "")])
async def test_for_anyone_else_there_is_no_such_message(desk: Desk, who: str, method: str, path: str) -> None:
    row = await desk.to_bob(due=600)
    there = await desk.ask(who, f"/v1/messages/{row}{path}", method)
    nowhere = await desk.ask(who, f"/v1/messages/{desk.house.mint()}{path}", method)
    assert (there.status, there.code) == (nowhere.status, nowhere.code) == (404, "NOT_FOUND")
    assert there.json["error"]["message"] == nowhere.json["error"]["message"]


async def test_without_a_key_nothing_is_told(desk: Desk) -> None:
    row = await desk.to_bob()
    for path in ("", f"/{row}", f"/{row}/status"):
        assert (await desk.ask(None, f"/v1/messages{path}")).code == "AUTHENTICATION_FAILED"
    assert (await desk.ask(None, f"/v1/messages/{row}", "DELETE")).code == "AUTHENTICATION_FAILED"


async def test_an_unproven_message_in_an_agents_name_is_not_its_own(desk: Desk) -> None:
    row = await desk.to_bob()
    await desk.house.database.execute("update messages set proven = false")
    assert (await desk.ask("alice", f"/v1/messages/{row}")).status == 404
    assert await desk.ids("alice") == []


async def test_of_two_messages_under_one_id_the_callers_own_is_told_and_sender_chooses(desk: Desk) -> None:
    await desk.to_bob(message_id="order-1")
    await desk.to_bob(message_id="order-1", sender="bob")
    path = "/v1/messages/order-1/status"
    assert (await desk.see("alice", path))["sender"] == ALICE
    assert (await desk.see("bob", path))["sender"] == BOB
    assert (await desk.see("bob", f"{path}?sender=Alice@ACME.test"))["sender"] == ALICE
    assert (await desk.ask("alice", f"{path}?sender={BOB}")).status == 404
    assert (await desk.ask("alice", f"{path}?sender=nobody")).code == "INVALID_MESSAGE_FORMAT"


async def test_an_agents_list_is_what_it_sent_or_on_request_what_it_received(desk: Desk) -> None:
    sent = await desk.to_bob()
    back = await desk.house.send(sender="bob", to=[desk.agents["alice"]])
    assert await desk.ids("alice") == [str(sent)]
    assert await desk.ids("alice", f"?recipient={BOB}") == [str(sent)]
    assert await desk.ids("alice", f"?recipient={ALICE}") == [str(back)]
    assert await desk.ids("alice", f"?sender={BOB}") == [str(back)]
    assert await desk.ids("alice", f"?sender={ALICE}&recipient={ALICE}") == []
    assert (await desk.ask("carol", f"/v1/messages?sender={ALICE}&recipient={BOB}")).code == "POLICY_DENIED"
    assert (await desk.ask("submitter", "/v1/messages")).code == "POLICY_DENIED"


async def test_a_list_is_paged_by_cursor_and_by_offset(desk: Desk) -> None:
    rows = [str(await desk.to_bob()) for _ in range(5)][::-1]
    page = await desk.see("alice", "/v1/messages?limit=2")
    assert (page["message_count"], page["count"], page["has_more"]) == (2, 2, True)
    assert await desk.ids("alice", f"?limit=3&cursor={page['cursor']}") == rows[2:]
    assert await desk.ids("alice", "?offset=4") == rows[4:]
    last = await desk.see("alice", f"/v1/messages?cursor={rows[4]}")
    assert (last["messages"], last["has_more"], last["cursor"]) == ([], False, None)


async def test_a_list_is_narrowed_by_status_where_pending_means_queued_and_by_time(desk: Desk) -> None:
    done = str(await desk.to_bob())
    desk.house.turn(3600)
    waits = str(await desk.to_bob("x@peer.test"))
    assert await desk.ids("alice", "?status=pending") == await desk.ids("alice", "?status=queued") == [waits]
    assert await desk.ids("alice", "?status=delivered") == [done]
    created = (await desk.see("alice", f"/v1/messages/{waits}"))["created_at"]
    assert await desk.ids("alice", f"?since={quote(created[:-5] + 'Z')}") == [waits]
    assert await desk.ids("alice", "?since=0001-01-01T00:00:00Z") == [waits, done]
    assert await desk.ids("alice", "?since=9999-12-31T23:59:59Z") == []


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("offset=-1", "offset"),
        ("offset=10001", "cursor"),
        ("status=gone", "status"),
        ("since=yesterday", "since"),
        ("cursor=there", "cursor"),
        ("sender=alice", "sender"),
        ("recipient=@acme.test", "recipient"),
    ],
)
async def test_a_bad_parameter_is_refused_by_name(desk: Desk, query: str, name: str) -> None:
    reply = await desk.ask("alice", f"/v1/messages?{query}")
    assert (reply.status, reply.code) == (400, "INVALID_MESSAGE_FORMAT")
    assert name in reply.json["error"]["message"]


async def test_a_page_ends_early_where_its_messages_have_very_many_recipients(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [str(await desk.to_bob()) for _ in range(25)][::-1]
    monkeypatch.setattr(status, "RECIPIENTS_SHOWN_MAX", 15)
    page = await desk.see("alice", "/v1/messages")
    assert [message["message_id"] for message in page["messages"]] == rows[:20]
    assert page["has_more"]
    assert await desk.ids("alice", f"?cursor={page['cursor']}") == rows[20:]


async def test_its_sender_cancels_what_waits_and_again_is_as_good_as_once(desk: Desk) -> None:
    row = await desk.to_bob("x@peer.test", due=600)
    for _ in range(2):
        reply = await desk.ask("alice", f"/v1/messages/{row}", "DELETE")
        assert reply.status == 200
        assert reply.json["status"] == "partial"
        assert [each["status"] for each in reply.json["recipients"]] == ["delivered", "cancelled"]
    assert "x@peer.test" in desk.log.getvalue()
    assert await desk.house.database.fetchval("select count(*) from audit") == 0


async def test_an_operator_cancels_and_the_audit_says_so(desk: Desk) -> None:
    row = await desk.to_bob("x@peer.test", due=600)
    reply = await desk.ask("operator", f"/v1/messages/{row}", "DELETE")
    assert reply.json["recipients"][1]["last_error"] == "Cancelled by an operator."
    written = await desk.house.database.fetchrow("select actor, act, subject from audit")
    assert tuple(written) == ("operator", "message.cancelled", str(row))


async def test_a_recipient_may_not_cancel(desk: Desk) -> None:
    row = await desk.house.send(BOB, due=600)
    reply = await desk.ask("bob", f"/v1/messages/{row}", "DELETE")
    assert (reply.status, reply.code) == (403, "POLICY_DENIED")
    assert await desk.house.status(row) == "queued"


async def test_what_is_over_can_not_be_cancelled(desk: Desk) -> None:
    reply = await desk.ask("alice", f"/v1/messages/{await desk.to_bob()}", "DELETE")
    assert (reply.status, reply.code) == (409, "CONFLICT")
    assert "final" in reply.json["error"]["message"]


async def test_a_recipient_whose_delivery_is_under_way_is_told_apart(desk: Desk) -> None:
    row = await desk.house.send("x@peer.test")
    await desk.house.lease()
    reply = await desk.ask("alice", f"/v1/messages/{row}", "DELETE")
    assert (reply.status, reply.code) == (409, "CONFLICT")
    assert "under way" in reply.json["error"]["message"]
    both = await desk.house.send("x@peer.test", "y@peer.test")
    await desk.house.database.execute("update deliveries set due = amtp_now() + '1 h' where recipient ~ '^y'")
    await desk.house.lease()
    reply = await desk.ask("alice", f"/v1/messages/{both}", "DELETE")
    assert reply.status == 200
    under_way, cancelled = sorted(reply.json["recipients"], key=lambda each: str(each["address"]))
    assert (under_way["status"], under_way["error"]["code"]) == ("queued", "CONFLICT")
    assert (cancelled["status"], "error" in cancelled) == ("cancelled", False)


def test_in_development_mode_whoever_is_let_in_sees_as_an_operator_does() -> None:
    assert viewer_of(Caller("127.0.0.1", development=True)) == Viewer(agent=None, operator=True)
