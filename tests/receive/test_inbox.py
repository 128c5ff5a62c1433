"""The door to an inbox, on a real socket and a real database."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from gateway.admit.api_key import mint_key
from gateway.admit.authenticate import Authenticator
from gateway.admit.remembered import DirectoryWatch
from gateway.admit.residents import Residents
from gateway.config.sections import InboxSettings
from gateway.config.settings import Config, complete
from gateway.http.roles import Role
from gateway.journal.journal import Journal
from gateway.protocol.message import parse_message
from gateway.receive.answering import Answering
from gateway.receive.held_open import HeldOpen
from gateway.receive.inbox import InboxDoor
from gateway.store.admitted import Admitted, Entry
from gateway.store.agents.keys import directory_changes
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.inbox import inbox
from gateway.store.inbox.activity import Activity
from gateway.store.inbox.poison import bury
from gateway.store.intake.intake import Intake
from gateway.store.row_ids import Mint
from gateway.store.wakeups import bell as bells
from gateway.store.wakeups.bell import Bell
from gateway.store.wakeups.direct import Hand, Straight
from gateway.wiring.core import Parts
from gateway.wiring.features import FEATURES
from tests.receive.doorway import DEADLINE_SECONDS, Doorway, Reply, Wire, doorway, head, post, until

ALICE = "/v1/inbox/alice@acme.test"
RULES = InboxSettings(poison_lapses=2)


@dataclass
class House:
    """One process of a gateway: an inbox door, and an intake that fills the inboxes behind it."""

    doorway: Doorway
    database: Database
    clock: Clock
    mint: Mint
    bell: Bell
    intake: Intake
    activity: Activity
    keys: dict[str, str]
    log: io.StringIO = field(default_factory=io.StringIO)

    async def put(self, agent: str = "alice", **members: Any) -> str:
        """Commits a message to that agent; returns its public id."""
        written = {"sender": "bob@acme.test", "recipients": [f"{agent}@acme.test"], "payload": {"n": 1}}
        raw = json.dumps(written | members).encode()
        message = parse_message(raw, row=self.mint(), now=self.clock.now(), local=True)
        number = await self.database.fetchval("select id from agents where local = $1", agent)
        tagged = message.recipients[0].written
        entry = Entry(number, tagged if message.recipients[0].tag else None)
        proven = message.sender.domain == "acme.test"
        assert await self.intake.commit(Admitted(message, proven=proven, entries=(entry,))) is None
        return message.message_id

    async def ask(self, method: str, path: str, body: Any = None, *, key: str | None = "alice") -> Reply:
        lines = [f"Authorization: Bearer {self.keys[key]}"] if key else []
        if body is not None:
            return await self.doorway.ask(post(path, json.dumps(body).encode(), *lines))
        wire = await self.doorway.wire()
        await wire.send(head(method, path, *lines))
        return await wire.reply(bodiless=method == "HEAD")

    async def read(self, query: str = "") -> dict[str, Any]:
        reply = await self.ask("GET", f"{ALICE}{query}")
        assert reply.status == 200, reply.body
        found: dict[str, Any] = reply.json
        return found

    async def ids(self, query: str = "") -> list[str]:
        return [message["message_id"] for message in (await self.read(query))["messages"]]

    async def stream(self, query: str = "", *lines: str) -> "Events":
        wire = await self.doorway.wire()
        key = f"Authorization: Bearer {self.keys['alice']}"
        await wire.send(head("GET", f"{ALICE}{query}", key, "Accept: text/event-stream", *lines))
        return Events(wire)

    def turn(self, seconds: float) -> None:
        self.clock.offset += timedelta(seconds=seconds)

    async def revoke_keys(self) -> None:
        """Returns when this process knows it."""
        await self.database.execute("update keys set revoked_at = amtp_now() where agent is not null")
        await self.database.execute("update directory_version set version = version + 1")
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (await self.ask("GET", ALICE)).status != 401:
                await asyncio.sleep(0.05)

    async def waiting(self, count: int = 1) -> None:
        """Returns when that many wait for mail."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while sum(map(len, self.bell._ears.values())) < count:
                await asyncio.sleep(0.01)

    async def listening(self) -> None:
        """Returns when a stream has seen all there is, and waits for more."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not any(
                isinstance(ear, Hand) and ear.caught_up and ear._waiting
                for ears in self.bell._ears.values()
                for ear in ears
            ):
                await asyncio.sleep(0.01)


class Events:
    """A stream of events as its client reads it."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    async def head(self) -> str:
        return (await self._part(b"\r\n\r\n")).decode()

    async def event(self) -> dict[str, str]:
        """The next event, by field; comments are skipped."""
        fields: dict[str, str] = {}
        for line in (await self._part(b"\n\n")).decode().splitlines():
            name, _, value = line.partition(": ")
            if name:
                fields[name] = f"{fields[name]}\n{value}" if name in fields else value
        return fields if fields else await self.event()

    async def message(self) -> dict[str, Any]:
        event = await self.event()
        while "data" not in event:
            event = await self.event()
        found: dict[str, Any] = json.loads(event["data"])
        assert found["gateway"]["entry"] == event["id"]
        return found

    async def _part(self, end: bytes) -> bytes:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self.wire.reader.readuntil(end)


Build = Callable[..., Awaitable[House]]


@pytest.fixture
async def build(dsn: str, tmp_path: Path, clock: Clock, mint: Mint) -> AsyncIterator[Build]:
    """Builds processes of one gateway, which share a database and nothing else."""
    keys: dict[str, str] = {}
    async with AsyncExitStack() as stack:

        async def built(**changes: Any) -> House:
            return await stack.enter_async_context(house_of(dsn, tmp_path, clock, mint, keys, **changes))

        yield built


@pytest.fixture
async def house(build: Build) -> House:
    return await build()


@asynccontextmanager
async def house_of(
    dsn: str,
    folder: Path,
    clock: Clock,
    mint: Mint,
    keys: dict[str, str],
    *,
    development: bool = False,
    rules: InboxSettings = RULES,
) -> AsyncIterator[House]:
    database = Database(dsn, clock=clock)
    await database.open()
    if not keys:
        await register(database, keys)
    watch = DirectoryWatch(partial(directory_changes, database))
    log = io.StringIO()
    journal = Journal(log, level="debug")
    bell = Bell(database, journal)
    straight = Straight(database, bell)
    intake = Intake(database, mint, journal, committed=bell.ring, promise=straight.promise)
    activity = Activity(database)
    config = complete(replace(Config(), domains=("acme.test",), data=folder))
    parts = Parts(config, database, clock, journal, FEATURES)
    door = InboxDoor(
        database=database,
        authenticator=Authenticator(database, watch, clock, Journal(io.StringIO()), development=development),
        residents=Residents(database, watch),
        answering=Answering(
            runtime=replace(parts.runtime, ring=bell.ring),
            accept=parts.accept,
            parsing=parts.parsing,
            slots=parts.load.requests,
            interests=parts.interests,
            room=parts.disk_has_room,
        ),
        interests=parts.interests,
        bell=bell,
        straight=straight,
        held_open=HeldOpen(watch),
        activity=activity,
        journal=journal,
        clock=clock,
        rules=rules,
        answer_bytes_max=parts.config.limits.body_bytes,
        waits=parts.load.waits,
    )
    tasks = [asyncio.create_task(work) for work in (watch.run(), bell.run(), straight.run(), intake.run())]
    async with doorway(door.routes(), roles=frozenset(Role)) as entrance:
        yield House(entrance, database, clock, mint, bell, intake, activity, keys, log)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await database.close()


async def register(database: Database, keys: dict[str, str]) -> None:
    for local in ("alice", "mallory", "postmaster"):
        agent = await database.fetchval(
            "insert into agents (local, domain, created_at) values ($1, $2, amtp_now()) returning id",
            local,
            "acme.test",
        )
        if local != "postmaster":
            keys[local] = await add_key(database, agent, "agent", None)
    keys["admin"] = await add_key(database, None, "admin", "ops")
    keys["submit"] = await add_key(database, None, "submit", "batch")


async def add_key(database: Database, agent: int | None, scope: str, name: str | None) -> str:
    key = mint_key()
    await database.execute(
        "insert into keys (id, digest, agent, scopes, name, created_at)"
        " values ($1, $2, $3, $4, $5, amtp_now())",
        key.id,
        key.digest,
        agent,
        [scope],
        name,
    )
    return key.text


async def test_an_inbox_shows_its_messages_oldest_first_with_the_counts_around_them(house: House) -> None:
    ids = [await house.put() for _ in range(3)]
    answer = await house.read("?limit=2")
    assert [message["message_id"] for message in answer["messages"]] == ids[:2]
    assert (answer["message_count"], answer["count"], answer["has_more"]) == (2, 2, True)
    assert (answer["recipient"], answer["unread"]) == ("alice@acme.test", 1)
    assert await house.ids(f"?cursor={answer['cursor']}") == ids[2:]
    assert await house.ids("?offset=2") == ids[2:]
    assert await house.ids("?status=read&limit=1000") == ids


async def test_more_unread_than_are_counted_are_told_as_at_least_so_many(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "UNREAD_COUNTED_MAX", 2)
    for _ in range(4):
        await house.put()
    told = [await house.read("?status=unread&limit=1") for _ in range(3)]
    assert [(page["unread"], page.get("unread_more")) for page in told] == [(2, True), (2, None), (1, None)]


async def test_an_empty_inbox_is_an_answer(house: House) -> None:
    assert await house.read() == {
        "messages": [],
        "message_count": 0,
        "count": 0,
        "recipient": "alice@acme.test",
        "has_more": False,
        "cursor": None,
        "unread": 0,
    }


async def test_a_payload_keeps_its_bytes_and_what_we_say_stands_in_two_members(house: House) -> None:
    payload = b'{"n": 1.50, "u":"\\u00e9"}'
    raw = (
        b'{"version":"1.0","sender":"eve@evil.test","recipients":["Alice+Inv.7@acme.test"],"payload":%b}'
        % payload
    )
    message = parse_message(raw, row=house.mint(), now=house.clock.now(), local=False)
    agent = await house.database.fetchval("select id from agents where local = 'alice'")
    entries = (Entry(agent, "Alice+Inv.7@acme.test"),)
    await house.intake.commit(
        Admitted(message, proven=False, entries=entries, hops=("1.1 b.test",), automatic=True)
    )
    reply = await house.ask("GET", ALICE)
    assert b'"payload":%b' % payload in reply.body
    (item,) = reply.json["messages"]
    about = item["gateway"]
    accepted_at = about.pop("accepted_at")
    assert accepted_at.endswith("Z")
    assert about == {
        "entry": str(message.row),
        "address": "Alice+Inv.7@acme.test",
        "status": "unread",
        "via": ["1.1 b.test"],
        "automatic": True,
        "untrusted": True,
    }
    assert item["sender_verification"] == "none"


async def test_a_proven_sender_is_shown_as_such(house: House) -> None:
    await house.put()
    (item,) = (await house.read())["messages"]
    assert item["sender_verification"] == "pass"
    assert item["gateway"]["address"] == "alice@acme.test"


async def test_reading_marks_read(house: House) -> None:
    await house.put()
    assert [len(await house.ids("?status=unread")) for _ in range(2)] == [1, 0]
    assert (await house.read())["messages"][0]["gateway"]["status"] == "read"


async def test_a_client_that_knows_the_draft_alone_sees_whether_an_item_was_read(house: House) -> None:
    await house.put()
    assert [(await house.read())["messages"][0]["status"] for _ in range(2)] == ["unread", "read"]


async def test_a_head_request_marks_nothing(house: House) -> None:
    await house.put()
    assert (await house.ask("HEAD", f"{ALICE}?lease=60")).status == 200
    assert len(await house.ids("?status=unread")) == 1


async def test_since_lists_what_was_accepted_from_then_on(house: House) -> None:
    await house.put()
    house.turn(60)
    late = await house.put()
    accepted_at = (await house.read())["messages"][1]["gateway"]["accepted_at"]
    assert await house.ids(f"?since={accepted_at}") == [late]
    assert await house.ids("?since=2020-01-01T00:00:00%2B02:00") != []


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("offset=-1", "offset"),
        ("offset=10001", "cursor"),
        ("since=yesterday", "since"),
        ("status=new", "status"),
        ("cursor=first", "cursor"),
        ("wait=61", "wait"),
        ("wait=-1", "wait"),
        ("wait=1e1", "wait"),
        ("lease=0", "lease"),
        ("lease=3601", "lease"),
        ("lease=60&offset=1", "offset"),
        ("limit=1&limit=2", "limit"),
    ],
)
async def test_a_parameter_that_makes_no_sense_is_named(house: House, query: str, named: str) -> None:
    reply = await house.ask("GET", f"{ALICE}?{query}")
    assert (reply.status, reply.code) == (400, "INVALID_MESSAGE_FORMAT")
    assert named in reply.json["error"]["message"]


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [
        (None, 401, "AUTHENTICATION_FAILED"),
        ("mallory", 403, "SENDER_NOT_ALLOWED"),
        ("admin", 403, "SENDER_NOT_ALLOWED"),
        ("submit", 403, "SENDER_NOT_ALLOWED"),
    ],
)
async def test_an_inbox_opens_to_its_own_agent_alone(
    house: House, key: str | None, status: int, code: str
) -> None:
    await house.put()
    token = str(UUID(int=1))
    for method, path, body in [
        ("GET", ALICE, None),
        ("HEAD", ALICE, None),
        ("GET", f"{ALICE}?wait=30", None),
        ("GET", "/v1/inbox/nobody@acme.test", None),
        ("DELETE", f"{ALICE}/some-id", None),
        ("POST", f"{ALICE}/ack", {"message_ids": ["some-id"]}),
        ("POST", f"{ALICE}/lease", {"lease": token, "seconds": 0}),
        ("GET", f"{ALICE}/dead-letters", None),
        ("POST", f"{ALICE}/dead-letters/1/replay", {}),
        ("DELETE", f"{ALICE}/dead-letters/1", None),
    ]:
        reply = await house.ask(method, path, body, key=key)
        assert reply.status == status, (method, path)
        assert method == "HEAD" or reply.code == code
    assert len(await house.ids("?status=unread")) == 1


async def test_operators_read_the_postmasters_inbox(house: House) -> None:
    await house.put("postmaster")
    path = "/v1/inbox/postmaster@acme.test"
    assert (await house.ask("GET", path, key="mallory")).status == 403
    reply = await house.ask("GET", path, key="admin")
    assert reply.json["count"] == 1


async def test_the_development_mode_opens_the_inboxes_of_this_machine(build: Build) -> None:
    house = await build(development=True)
    await house.put()
    lines = ["Host: localhost"]
    wire = await house.doorway.wire()
    request = head("GET", ALICE).replace(b"Host: gateway.test", lines[0].encode())
    assert (await wire.ask(request)).json["count"] == 1
    unknown = request.replace(b"alice", b"nobody")
    assert (await wire.ask(unknown)).code == "AGENT_UNKNOWN"
    foreign = head("GET", ALICE)
    assert (await wire.ask(foreign)).status == 401


async def test_an_acknowledged_message_is_gone_and_acknowledging_again_is_as_good(house: House) -> None:
    message_id = await house.put()
    first = await house.ask("DELETE", f"{ALICE}/{message_id}")
    assert first.status == 200
    assert first.json["message_id"] == message_id
    assert first.json["status"] == "acknowledged"
    assert (await house.ask("DELETE", f"{ALICE}/{message_id}")).json == first.json
    assert await house.ids() == []


async def test_acknowledging_what_is_not_there_is_not_found(house: House) -> None:
    other = await house.put("mallory")
    for message_id in (other, "order-1", str(UUID(int=5))):
        assert (await house.ask("DELETE", f"{ALICE}/{message_id}")).code == "NOT_FOUND"


async def test_the_sender_chooses_where_two_share_an_id(house: House) -> None:
    for sender in ("bob@acme.test", "carol@acme.test"):
        await house.put(message_id="order-1", sender=sender)
    await house.read()
    reply = await house.ask("DELETE", f"{ALICE}/order-1?sender=Carol%2Bx@acme.test")
    assert reply.json["sender"] == "carol@acme.test"
    (left,) = (await house.read())["messages"]
    assert left["sender"] == "bob@acme.test"


async def test_many_are_acknowledged_by_one_request_each_with_its_result(house: House) -> None:
    ids = [await house.put(), await house.put(message_id="order-1")]
    asked = [ids[0], "order-2", {"message_id": "order-1", "sender": "bob@acme.test"}]
    reply = await house.ask("POST", f"{ALICE}/ack", {"message_ids": asked})
    assert reply.status == 200
    assert reply.json["acknowledged"] == 2
    results = reply.json["results"]
    assert [result["message_id"] for result in results] == [ids[0], "order-2", "order-1"]
    assert [result["status"] for result in results] == ["acknowledged", "failed", "acknowledged"]
    assert results[1]["error"]["code"] == "NOT_FOUND"
    assert await house.ids() == []


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "message_ids"),
        ({"message_ids": []}, "message_ids"),
        ({"message_ids": ["a"] * 1001}, "message_ids"),
        ({"message_ids": "a"}, "message_ids"),
        ({"message_ids": [1]}, "message_ids"),
        ({"message_ids": ["a\0b"]}, "NUL"),
        ({"message_ids": ["a/b"]}, "message_ids[0]"),
        ({"message_ids": [{"message_id": "a", "sender": "bob"}]}, "message_ids[0].sender"),
        ({"message_ids": ["a"], "lease": "mine"}, "lease"),
        ({"message_ids": ["a"], "leese": None}, "leese"),
        ([], "object"),
    ],
)
async def test_an_acknowledgement_that_makes_no_sense_is_refused_whole(
    house: House, body: Any, named: str
) -> None:
    reply = await house.ask("POST", f"{ALICE}/ack", body)
    assert (reply.status, reply.code) == (400, "INVALID_MESSAGE_FORMAT")
    assert named in reply.json["error"]["message"]


async def test_a_leased_message_comes_with_its_token_and_is_nobody_elses(house: House) -> None:
    ids = [await house.put() for _ in range(2)]
    answer = await house.read("?lease=30&limit=1")
    (item,) = answer["messages"]
    assert item["gateway"]["lease"] == answer["lease"]
    assert "unread" not in answer
    assert await house.ids("?lease=") == ids[1:]
    assert await house.ids() == []
    house.turn(31)
    again = await house.read("?lease=30&status=unread")
    assert again["messages"][0]["message_id"] == ids[0]
    assert again["messages"][0]["gateway"]["lapses"] == 1


async def test_a_stale_lease_acknowledges_nothing_that_another_holds(house: House) -> None:
    message_id = await house.put()
    stale = (await house.read("?lease=30"))["lease"]["token"]
    house.turn(31)
    holder = (await house.read("?lease=30"))["lease"]["token"]
    path = f"{ALICE}/{message_id}?lease="
    assert (await house.ask("DELETE", path + stale)).code == "CONFLICT"
    body = {"message_ids": [message_id], "lease": stale}
    (result,) = (await house.ask("POST", f"{ALICE}/ack", body)).json["results"]
    assert result["error"]["code"] == "CONFLICT"
    assert (await house.ask("DELETE", path + holder)).status == 200


async def test_a_lease_is_renewed_or_given_back_by_its_token(house: House) -> None:
    ids = [await house.put() for _ in range(2)]
    token = (await house.read("?lease=30"))["lease"]["token"]
    house.turn(20)
    reply = await house.ask("POST", f"{ALICE}/lease", {"lease": token, "seconds": 60})
    assert reply.json == {"lease": token, "seconds": 60, "message_count": 2}
    house.turn(50)
    assert await house.ids("?lease=30") == []
    assert (await house.ask("POST", f"{ALICE}/lease", {"lease": token, "seconds": 0})).json[
        "message_count"
    ] == 2
    assert (await house.ask("POST", f"{ALICE}/lease", {"lease": token, "seconds": 0})).code == "CONFLICT"
    assert await house.ids("?lease=30&status=unread") == ids


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"lease": "x", "seconds": 1},
        {"lease": str(UUID(int=1)), "seconds": -1},
        {"lease": str(UUID(int=1)), "seconds": 3601},
    ],
)
async def test_a_renewal_that_makes_no_sense_is_refused(house: House, body: Any) -> None:
    assert (await house.ask("POST", f"{ALICE}/lease", body)).code == "INVALID_MESSAGE_FORMAT"


async def test_whoever_waits_is_woken_by_the_commit(house: House) -> None:
    waiting = asyncio.create_task(house.read("?wait=60&lease=30"))
    await house.waiting()
    message_id = await house.put()
    assert [message["message_id"] for message in (await waiting)["messages"]] == [message_id]


async def test_whoever_waits_is_woken_by_a_commit_of_another_process(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bells, "POLL_SECONDS", 60.0)  # so that it is the notice that wakes
    here, there = await build(), await build()
    waiting = asyncio.create_task(there.read("?wait=60"))
    await there.waiting()
    message_id = await here.put()
    assert [message["message_id"] for message in (await waiting)["messages"]] == [message_id]


async def test_a_wait_that_was_in_vain_answers_with_nothing(house: House) -> None:
    assert (await house.read("?wait=0.05"))["messages"] == []


async def test_what_is_there_is_not_waited_for(house: House) -> None:
    message_id = await house.put()
    assert await house.ids("?wait=60") == [message_id]


async def test_of_many_who_wait_with_a_lease_one_gets_the_message(house: House) -> None:
    waiting = [asyncio.create_task(house.ids("?wait=60&lease=30&limit=1")) for _ in range(5)]
    await house.waiting(5)
    message_id = await house.put()
    done, still = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result() for task in done] == [[message_id]]
    assert len(still) == 4
    others = [await house.put() for _ in range(4)]
    assert sorted(await asyncio.gather(*still)) == sorted([each] for each in others)


async def test_whoever_waits_gets_what_a_lease_gives_back_when_it_ends(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bells, "POLL_SECONDS", 60.0)  # so that it is the lease's end that is waited for
    message_id = await house.put()
    await house.read("?lease=1")
    assert await house.ids("?wait=60&lease=30") == [message_id]


async def test_giving_back_wakes_whoever_waits_in_another_process(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bells, "POLL_SECONDS", 60.0)
    here, there = await build(), await build()
    message_id = await here.put()
    token = (await here.read("?lease=3600"))["lease"]["token"]
    waiting = asyncio.create_task(there.ids("?wait=60"))
    await there.waiting()
    await here.ask("POST", f"{ALICE}/lease", {"lease": token, "seconds": 0})
    assert await waiting == [message_id]


async def test_whoever_waits_holds_no_connection_to_the_database(house: House) -> None:
    waiting = [asyncio.create_task(house.ids("?wait=60")) for _ in range(40)]
    await house.waiting(40)
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await house.ids() == []
    await house.put()
    assert len([ids for ids in await asyncio.gather(*waiting) if ids]) == 40


async def test_who_hung_up_is_handed_nothing(house: House) -> None:
    wire = await house.doorway.wire()
    await wire.send(head("GET", f"{ALICE}?wait=60&lease=60", f"Authorization: Bearer {house.keys['alice']}"))
    await house.waiting()
    wire.close()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while house.bell._ears:
            await asyncio.sleep(0.01)
    message_id = await house.put()
    assert await house.ids("?lease=60") == [message_id]


async def test_a_key_revoked_meanwhile_opens_nothing_any_more(house: House) -> None:
    waiting = asyncio.create_task(house.ask("GET", f"{ALICE}?wait=60"))
    await house.waiting()
    await house.revoke_keys()
    await house.put()
    assert (await waiting).code == "AUTHENTICATION_FAILED"


async def test_a_closing_door_answers_those_who_wait(build: Build) -> None:
    house = await build()
    waiting = asyncio.create_task(house.read("?wait=60"))
    await house.waiting()
    await house.doorway.door.close(DEADLINE_SECONDS)
    assert (await waiting)["messages"] == []


async def test_a_stream_sends_what_is_open_then_what_comes(house: House) -> None:
    ids = [await house.put() for _ in range(3)]
    stream = await house.stream("?limit=2")
    assert "text/event-stream" in await stream.head()
    assert [(await stream.message())["message_id"] for _ in ids] == ids
    await house.waiting()
    later = await house.put()
    assert (await stream.message())["message_id"] == later


async def test_after_a_reconnect_a_stream_sends_all_but_the_last_it_was_said_to_have_sent(
    house: House,
) -> None:
    ids = [await house.put() for _ in range(3)]
    stream = await house.stream()
    entries = [(await stream.message())["gateway"]["entry"] for _ in ids]
    await house.ask("DELETE", f"{ALICE}/{ids[0]}")
    stream.wire.close()
    again = await house.stream("", f"Last-Event-ID: {entries[2]}")
    assert (await again.message())["message_id"] == ids[1]
    later = await house.put()
    assert (await again.message())["message_id"] == later


async def test_a_stream_with_leases_hands_out_what_nobody_holds_and_what_comes_back(house: House) -> None:
    held, free = await house.put(), await house.put()
    token = (await house.read("?lease=3600&limit=1"))["lease"]["token"]
    stream = await house.stream("?lease=60")
    message = await stream.message()
    assert (message["message_id"], "lease" in message["gateway"]) == (free, True)
    await house.ask("POST", f"{ALICE}/lease", {"lease": token, "seconds": 0})
    assert (await stream.message())["message_id"] == held
    assert await house.ids() == []


async def test_a_message_of_many_lines_is_one_event(house: House) -> None:
    raw = b'{"sender":"bob@acme.test","recipients":["alice@acme.test"],"payload":{\r\n "a":1,\n "b":2}}'
    message = parse_message(raw, row=house.mint(), now=house.clock.now(), local=True)
    agent = await house.database.fetchval("select id from agents where local = 'alice'")
    await house.intake.commit(Admitted(message, proven=True, entries=(Entry(agent, None),)))
    stream = await house.stream()
    assert (await stream.message())["payload"] == {"a": 1, "b": 2}


async def test_a_stream_is_handed_from_memory_what_comes_while_it_waits(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await house.stream()
    await house.listening()
    monkeypatch.setattr(InboxDoor, "_fetch", None)  # whoever looks now fails
    for number in range(3):
        sent = await house.put(payload={"n": number})
        message = await stream.message()
        assert (message["message_id"], message["payload"]) == (sent, {"n": number})
        assert message["gateway"]["status"] == "unread"
        assert message["gateway"]["address"] == "alice@acme.test"
    monkeypatch.undo()
    assert {message["gateway"]["status"] for message in (await house.read())["messages"]} == {"read"}


async def test_a_stream_whose_key_is_revoked_gives_back_what_it_was_handed(house: House) -> None:
    stream = await house.stream()
    await house.listening()
    sent = await house.put()
    assert (await stream.message())["message_id"] == sent
    await house.revoke_keys()
    await house.put()
    assert b"data" not in await stream.wire.rest()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while await house.database.fetchval("select count(*) from entries where read_at is null") != 1:
            await asyncio.sleep(0.01)


async def test_a_stream_ends_when_the_door_closes(house: House) -> None:
    stream = await house.stream()
    await stream.head()
    await house.waiting()
    await house.doorway.door.close(DEADLINE_SECONDS)
    assert b"retry:" in await stream.wire.rest()
    assert not house.bell._ears


async def test_the_oldest_of_too_many_streams_of_an_inbox_ends(build: Build) -> None:
    """Not the newest: an agent that comes back is not kept out by streams of which it knows nothing any more."""
    house = await build(rules=replace(RULES, streams=2))
    first, second, third = [await opened(house) for _ in range(3)]
    assert b"retry: 60000" in await first.wire.rest()
    second.wire.close()
    await until(lambda: sum(map(len, house.bell._ears.values())) == 1)
    fourth = await opened(house)
    hearing = [asyncio.create_task(stream.message()) for stream in (third, fourth)]
    sent = await house.put()
    heard, _ = await asyncio.wait(hearing, return_when=asyncio.FIRST_COMPLETED)
    assert {task.result()["message_id"] for task in heard} == {sent}  # both, where both looked at once
    fourth.wire.close()


async def opened(house: House) -> Events:
    """A stream that has begun."""
    stream = await house.stream()
    await stream.head()
    assert (await stream.event())["retry"] == "1000"
    return stream


async def test_a_stream_that_takes_nothing_ends_too_when_newer_ones_come(build: Build) -> None:
    house = await build(rules=replace(RULES, streams=1))
    for _ in range(20):
        await house.put(payload="x" * 1_000_000)
    stuck = await house.stream()
    await until(lambda: house.doorway.door.load.unsent.size > 0)
    await opened(house)
    assert len(await stuck.wire.rest()) < 20_000_000
    assert house.doorway.diary.cut == ["replaced"]


async def test_leases_that_ran_out_too_often_make_a_dead_letter_of_the_agents_own(house: House) -> None:
    message_id = await house.put()
    for _ in range(RULES.poison_lapses):
        assert await house.ids("?lease=30") == [message_id]
        house.turn(31)
    assert await house.ids("?lease=30") == []
    journal = Journal(house.log)
    await bury(house.database, journal, lapses_max=RULES.poison_lapses)
    listed = (await house.ask("GET", f"{ALICE}/dead-letters")).json
    (letter,) = listed["dead_letters"]
    number = letter["gateway"]["dead_letter"]
    assert (letter["message_id"], letter["gateway"]["attempts"]) == (message_id, 2)
    assert (listed["count"], listed["has_more"]) == (1, False)
    assert (await house.ask("POST", f"{ALICE}/dead-letters/{number}/replay", {})).json["status"] == "replayed"
    assert (await house.ask("POST", f"{ALICE}/dead-letters/{number}/replay", {})).code == "NOT_FOUND"
    assert await house.ids("?status=unread") == [message_id]


async def test_an_agent_may_drop_its_dead_letter(house: House) -> None:
    message_id = await house.put()
    for _ in range(RULES.poison_lapses):
        await house.ids("?lease=30")
        house.turn(31)
    await bury(house.database, Journal(house.log), lapses_max=RULES.poison_lapses)
    (letter,) = (await house.ask("GET", f"{ALICE}/dead-letters")).json["dead_letters"]
    path = f"{ALICE}/dead-letters/{letter['gateway']['dead_letter']}"
    assert (await house.ask("DELETE", path)).json["status"] == "deleted"
    for again in (path, f"{ALICE}/dead-letters/first", f"{ALICE}/dead-letters/{10**30}"):
        assert (await house.ask("DELETE", again)).code == "NOT_FOUND"
    assert (await house.ask("DELETE", f"{ALICE}/{message_id}")).status == 200
    assert await house.ids() == []


async def test_an_agent_that_reads_its_mail_is_active(house: House) -> None:
    await house.ids()
    await house.activity.write()
    seen = await house.database.fetch("select local from agents where last_active_at is not null")
    assert [row["local"] for row in seen] == ["alice"]
