"""Dead letters over HTTP at a whole gateway: shown to whom they concern, replayed and purged by operators."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from gateway.store.tallies import balance
from tests.store.house import TOKEN, House
from tests.world import Agent, Gateway, Reply, World

LETTERS = "/v1/dead-letters"


@dataclass
class Office:
    """An operator at a gateway with dead letters; mail to p.test is paused, so that replayed mail stays seen."""

    gateway: Gateway
    alice: Agent
    bob: Agent
    house: House = field(init=False)

    def __post_init__(self) -> None:
        app = self.gateway.app
        self.house = House(app.database, app.mint, app.clock)

    async def ask(self, method: str, path: str = "", body: Any = None, key: str | None = None) -> Reply:
        key = key or self.gateway.admin_key
        return await self.gateway.call(method, LETTERS + path, key=key, json=body)

    async def do(self, method: str, path: str = "", body: Any = None, key: str | None = None) -> Any:
        reply = await self.ask(method, path, body, key)
        assert reply.status == 200, reply.text
        return reply.json

    async def bury(self, *recipients: str, **members: Any) -> UUID:
        """A message that failed for all of its recipients, as a worker that had its lease settles it."""
        row = await self.house.send(*recipients, due=60, **members)
        await self.house.database.execute(
            "update deliveries set token = $2, attempts = 1, due = amtp_now() + interval '1 min' where message = $1",
            row,
            TOKEN,
        )
        for recipient in recipients:
            await self.house.end(
                row,
                recipient,
                status="failed",
                code="RECIPIENT_NOT_FOUND",
                error="No such name.",
                dead_letter=True,
            )
        return row

    async def numbers(self, query: str = "", key: str | None = None) -> list[int]:
        page = await self.do("GET", query, key=key)
        return [letter["dead_letter"] for letter in page["dead_letters"]]


@pytest.fixture
async def office(world: World) -> AsyncIterator[Office]:
    async with world.gateway() as gateway:
        await gateway.call(
            "POST", "/v1/admin/destinations/p.test/pause", key=gateway.admin_key, json={"reason": "a test"}
        )
        yield Office(gateway, await gateway.register("alice"), await gateway.register("bob"))


async def test_operators_see_all_and_agents_those_of_what_they_sent(office: Office) -> None:
    row = await office.bury("x@p.test", subject="hi", payload={"n": 1})
    (number,) = await office.numbers()
    assert await office.numbers(key=office.alice.key) == [number]
    assert await office.numbers(key=office.bob.key) == []
    shown = await office.do("GET", f"/{number}", key=office.alice.key)
    assert (shown["message_id"], shown["recipient"], shown["failure_code"]) == (
        str(row),
        "x@p.test",
        "RECIPIENT_NOT_FOUND",
    )
    assert shown["original_message"]["payload"] == {"n": 1}
    assert (await office.ask("GET", f"/{number}", key=office.bob.key)).code == "NOT_FOUND"
    assert (await office.ask("POST", f"/{number}/replay", key=office.alice.key)).code == "POLICY_DENIED"


async def test_the_list_is_narrowed_and_paged(office: Office) -> None:
    await office.bury("x@p.test", "y@p.test", "z@q.test")
    newest, middle, oldest = await office.numbers()
    assert await office.numbers("?domain=q.test") == [newest]
    assert await office.numbers("?recipient=x@p.test&code=RECIPIENT_NOT_FOUND") == [oldest]
    assert await office.numbers("?older_than=60") == []
    page = await office.do("GET", "?limit=1")
    assert (page["has_more"], page["count"]) == (True, 1)
    assert await office.numbers(f"?limit=5&cursor={page['cursor']}") == [middle, oldest]


async def test_one_is_replayed_once_and_its_sender_sees_it_queued(office: Office) -> None:
    row = await office.bury("x@p.test")
    (number,) = await office.numbers()
    replayed = await office.do("POST", f"/{number}/replay")
    assert (replayed["status"], replayed["message_id"], replayed["warnings"]) == ("replayed", str(row), [])
    assert (await office.alice.status(str(row)))["status"] == "queued"
    again = await office.ask("POST", f"/{number}/replay")
    assert (again.status, again.code) == (409, "CONFLICT")
    assert await office.numbers() == []
    assert (await office.do("GET", f"/{number}"))["replayed_at"] is not None
    assert (await balance(office.gateway.app.database)).unaccounted == 0


async def test_a_replay_after_14_days_warns_that_it_may_come_twice_and_what_expired_stays(
    office: Office,
) -> None:
    await office.bury("x@p.test")
    await office.bury("y@p.test", headers={"ttl": 60})
    office.gateway.turn(15 * 86_400)
    expired, old = await office.numbers()
    (warning,) = (await office.do("POST", f"/{old}/replay"))["warnings"]
    assert "14 days" in warning
    assert (await office.ask("POST", f"/{expired}/replay")).code == "CONFLICT"


async def test_many_are_counted_first_then_replayed_at_a_rate(office: Office) -> None:
    await office.bury("x@p.test", "y@p.test", "z@q.test")
    wanted = {"domain": "p.test", "per_second": 0.1, "limit": 10}
    dry = await office.do("POST", "/replay", {**wanted, "dry_run": True})
    assert (dry["dry_run"], dry["matched"], dry["replayed"]) == (True, 2, 0)
    assert len(await office.numbers()) == 3
    done = await office.do("POST", "/replay", wanted)
    assert (done["matched"], done["replayed"], done["has_more"], done["forgotten"]) == (2, 2, False, 0)
    spread = await office.house.database.fetchval("select max(due) - min(due) from deliveries")
    assert spread.total_seconds() == 10


async def test_purged_letters_are_gone(office: Office) -> None:
    await office.bury("x@p.test", "y@p.test", "z@q.test")
    newest, _, _ = await office.numbers()
    assert (await office.do("DELETE", f"/{newest}"))["status"] == "purged"
    assert (await office.ask("DELETE", f"/{newest}")).code == "NOT_FOUND"
    done = await office.do("POST", "/purge", {"all": True, "limit": 1})
    assert (done["matched"], done["purged"], done["has_more"]) == (2, 1, True)
    assert len(await office.numbers()) == 1


async def test_what_an_agent_never_acknowledged_is_for_itself_to_let_go_of(office: Office) -> None:
    sent = await office.alice.send(office.bob.address)
    await office.house.database.execute(
        "insert into dead_letters (message, recipient, address, agent, failure_code, failure_reason, attempts, at)"
        " select $1, name, name, id, 'RECIPIENT_UNAVAILABLE', 'Never acknowledged.', 9, amtp_now()"
        " from agents where name = 'bob@acme.test'",
        UUID(sent.json["message_id"]),
    )
    (number,) = await office.numbers()
    assert (await office.do("GET", f"/{number}"))["kind"] == "undigested"
    assert await office.numbers(key=office.alice.key) == []
    reply = await office.ask("DELETE", f"/{number}")
    assert (reply.code, "/v1/inbox/bob@acme.test/dead-letters" in reply.text) == ("CONFLICT", True)
    assert (await office.do("POST", "/purge", {"all": True}))["purged"] == 0
    assert (await office.ask("POST", f"/{number}/replay")).code == "CONFLICT", "its entry is not aside"
    await office.house.database.execute("update entries set dead_at = amtp_now(), lapses = 9")
    assert (await office.do("POST", f"/{number}/replay"))["recipient"] == "bob@acme.test"
    (item,) = await office.bob.inbox("?status=unread")
    assert (item["message_id"], item["gateway"].get("lapses")) == (sent.json["message_id"], None)
    assert (await balance(office.gateway.app.database)).unaccounted == 0


async def test_what_can_not_be_read_is_refused(office: Office) -> None:
    for number in ("none", "999", "9" * 30):
        assert (await office.ask("GET", f"/{number}")).code == "NOT_FOUND"
    for query in ("?cursor=last", "?older_than=old", "?domain=under_score.test"):
        assert (await office.ask("GET", query)).code == "INVALID_MESSAGE_FORMAT"
    for path in ("/replay", "/purge"):
        assert (await office.ask("POST", path, {})).code == "INVALID_MESSAGE_FORMAT"
