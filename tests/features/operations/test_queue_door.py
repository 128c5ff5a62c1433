"""Queue control over HTTP at a whole gateway: what waits and why, and what operators do about it."""

import io
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from gateway.features.operations.destination_door import reasons, render_destination
from gateway.features.operations.destinations import DestinationState
from gateway.features.operations.queue import LiveDelivery
from gateway.features.operations.queue_door import why
from gateway.flow.lane import Lane
from gateway.journal.journal import Journal
from gateway.net.dns_answer import DnsFailure
from gateway.protocol.discovery import Broken, Silent
from gateway.protocol.timestamp import render_timestamp
from gateway.route.decide import Temporary
from gateway.route.directory import Known
from gateway.route.outage import Outage
from gateway.store.clock import Clock
from gateway.store.tallies import balance
from tests.store.house import House
from tests.world import Agent, Gateway, Reply, World

NOW = datetime(2026, 3, 1, tzinfo=UTC)
QUEUE = "/v1/admin/queue"


@dataclass
class Control:
    """An operator at a gateway whose mail for elsewhere waits, paused."""

    gateway: Gateway
    alice: Agent
    house: House = field(init=False)

    def __post_init__(self) -> None:
        app = self.gateway.app
        self.house = House(app.database, app.mint, app.clock)

    async def ask(self, method: str, path: str, body: Any = None) -> Reply:
        return await self.gateway.call(method, path, key=self.gateway.admin_key, json=body)

    async def do(self, method: str, path: str, body: Any = None) -> Any:
        reply = await self.ask(method, path, body)
        assert reply.status == 200, reply.text
        return reply.json

    async def send(self, *recipients: str, **members: Any) -> str:
        """A message that waits until tomorrow."""
        tomorrow = render_timestamp(self.gateway.app.clock.now() + timedelta(days=1))
        reply = await self.alice.send(*recipients, headers={"deliver-after": tomorrow}, **members)
        assert reply.status == 202, reply.text
        return str(reply.json["message_id"])

    async def waiting(self, query: str = "") -> list[Any]:
        found: list[Any] = (await self.do("GET", f"{QUEUE}{query}"))["deliveries"]
        return found


@pytest.fixture
async def control(world: World) -> AsyncIterator[Control]:
    async with world.gateway() as gateway:
        yield Control(gateway, await gateway.register("alice"))


async def test_the_queue_is_listed_by_filter_and_page_with_the_reason_of_each(control: Control) -> None:
    first = await control.send("x@p.test")
    second = await control.send("y@p.test", "z@q.test")
    everything = await control.waiting()
    assert [(each["message_id"], each["recipient"]) for each in everything] == [
        (first, "x@p.test"),
        (second, "y@p.test"),
        (second, "z@q.test"),
    ]
    assert (everything[0]["reason"], everything[0]["status"]) == (
        "It was sent to be delivered later.",
        "queued",
    )
    assert everything[0]["next_attempt"] > everything[0]["accepted_at"]
    assert [each["recipient"] for each in await control.waiting("?destination=Q.test&status=queued")] == [
        "z@q.test"
    ]
    page = await control.do("GET", f"{QUEUE}?limit=2")
    rest = await control.do("GET", f"{QUEUE}?limit=2&cursor={page['cursor']}")
    assert page["deliveries"] + rest["deliveries"] == everything
    assert (page["has_more"], rest["has_more"], rest["cursor"]) == (True, False, None)
    refused = await control.ask("GET", f"{QUEUE}?cursor=here")
    assert (refused.status, "cursor" in refused.text) == (400, True)


async def test_of_several_messages_with_one_id_each_is_shown_and_decided_by_its_row(control: Control) -> None:
    honest = await control.house.send("x@p.test", message_id="order-17", due=60)
    forged = await control.house.send("x@p.test", message_id="order-17", sender="eve@evil.test", due=60)
    shown = (await control.do("GET", f"{QUEUE}/order-17"))["deliveries"]
    assert [(each["row"], each["sender"]) for each in shown] == [
        (str(honest), "alice@acme.test"),
        (str(forged), "eve@evil.test"),
    ]
    assert (await control.do("POST", f"{QUEUE}/cancel", {"ids": [str(forged)]}))["changed"] == 1
    assert [each["row"] for each in await control.waiting("?recipient=x@p.test")] == [str(honest)]


async def test_one_message_is_shown_with_the_history_of_its_attempts(control: Control) -> None:
    row = await control.house.send("x@p.test", due=60)
    at = control.gateway.app.clock.now()
    await control.house.database.execute(
        "insert into attempts (message, recipient, attempt, at, via, code, error, milliseconds)"
        " values ($1, 'x@p.test', 1, $2, 'amtp:gw.p.test', 'TEMPORARY_FAILURE', 'Later.', 12)",
        row,
        at,
    )
    (shown,) = (await control.do("GET", f"{QUEUE}/{row}"))["deliveries"]
    assert shown["history"] == [
        {
            "attempt": 1,
            "at": render_timestamp(at),
            "via": "amtp:gw.p.test",
            "code": "TEMPORARY_FAILURE",
            "error": "Later.",
            "milliseconds": 12,
        }
    ]
    assert (await control.ask("GET", f"{QUEUE}/none")).code == "NOT_FOUND"


async def test_what_is_held_says_so_to_its_sender_too_until_it_is_released(control: Control) -> None:
    message = await control.send("x@p.test")
    dry = await control.do("POST", f"{QUEUE}/hold", {"ids": [message], "dry_run": True})
    assert (dry["matched"], dry["changed"], dry["dry_run"]) == (1, 1, True)
    held = await control.do("POST", f"{QUEUE}/hold", {"ids": [message], "reason": "odd"})
    assert held == {
        "action": "hold",
        "dry_run": False,
        "matched": 1,
        "busy": 0,
        "changed": 1,
        "has_more": False,
    }
    assert (await control.alice.status(message))["recipients"][0]["status"] == "held"
    (shown,) = await control.waiting("?status=held")
    assert (shown["reason"], shown["next_attempt"]) == ("An operator holds it.", None)
    await control.do("POST", f"{QUEUE}/release", {"sender": control.alice.address})
    assert (await control.alice.status(message))["recipients"][0]["status"] == "queued"


async def test_what_is_cancelled_is_reported_to_its_sender_and_audited(control: Control) -> None:
    message = await control.send("x@p.test", "y@p.test")
    done = await control.do("POST", f"{QUEUE}/cancel", {"destination": "p.test", "reason": "Wrong list."})
    assert (done["matched"], done["changed"]) == (2, 2)
    status = await control.alice.status(message)
    assert [each["status"] for each in status["recipients"]] == ["cancelled", "cancelled"]
    automatic = await control.house.send("x@p.test", due=60)
    await control.house.database.execute("update messages set automatic = true where id = $1", automatic)
    await control.do("POST", f"{QUEUE}/cancel", {"ids": [str(automatic)]})
    (report,) = await control.alice.inbox()  # none about what was itself automatic
    assert (report["message_type"], report["in_reply_to"]) == ("delivery_failure", message)
    assert report["failed_recipients"] == ["x@p.test", "y@p.test"]
    assert report["error_message"] == "Cancelled by an operator. Wrong list."
    database = control.gateway.app.database
    written = await database.fetch("select actor, act from audit where act like 'queue.%'")
    assert [(actor.startswith("tests-"), act) for actor, act in written] == [(True, "queue.cancel")] * 2
    assert (await balance(database)).unaccounted == 0


async def test_the_shape_counts_by_age_and_destination(control: Control) -> None:
    await control.send("x@p.test", "y@p.test", "z@q.test")
    control.gateway.turn(700)
    await control.send("x@p.test", "x@r.test")
    shape = await control.do("GET", f"{QUEUE}/shape?top=1")
    (named,) = shape["destinations"]
    assert (named["destination"], named["count"]) == ("p.test", 3)
    assert (named["by_age"]["1m"], named["by_age"]["1h"]) == (1, 2)
    assert (shape["others"]["count"], shape["total"]["count"]) == (2, 5)
    assert list(named["by_age"]) == shape["ages"]


async def test_a_paused_destination_gets_nothing_and_says_why_until_it_is_resumed(control: Control) -> None:
    place = "/v1/admin/destinations/P.test"
    for body, named in (({}, "reason"), ({"reason": "x", "expires_in": 0}, "expires_in")):
        refused = await control.ask("POST", f"{place}/pause", body)
        assert (refused.status, named in refused.json["error"]["message"]) == (400, True)
    paused = await control.do("POST", f"{place}/pause", {"reason": "they move", "expires_in": 3600})
    assert (paused["destination"], paused["paused"]["reason"]) == ("p.test", "they move")
    row = await control.house.send("x@p.test")
    (shown,) = await control.waiting()
    assert shown["reason"] == "p.test is paused: they move"
    explained = await control.do("GET", f"{place}/explain")
    assert explained["reasons"][0].endswith(": they move")
    assert explained["due"] == 1
    (listed,) = (await control.do("GET", "/v1/admin/destinations"))["destinations"]
    assert listed["paused"]["by"].startswith("tests-")
    await control.do("POST", f"{QUEUE}/hold", {"ids": [str(row)]})
    assert (await control.do("POST", f"{place}/resume"))["paused"] is None


async def test_a_breaker_is_explained_and_reset_and_what_waited_is_flushed(control: Control) -> None:
    app = control.gateway.app
    await app.database.execute(
        "insert into destinations (destination, failures, open_until, last_error)"
        " values ('p.test', 7, amtp_now() + interval '1 h', 'No route to host.')"
    )
    place = "/v1/admin/destinations/p.test"
    explained = await control.do("GET", f"{place}/explain")
    assert "failed 7 times" in explained["reasons"][0]
    assert "No route to host." in explained["reasons"][0]
    reset = await control.do("POST", f"{place}/reset")
    assert (reset["failures"], reset["open_until"]) == (0, None)
    await control.do("POST", f"{place}/pause", {"reason": "a test"})
    await control.house.send("x@p.test", "y@p.test", due=3600)
    await control.house.database.execute("update deliveries set attempts = 3")
    assert (await control.do("POST", f"{place}/flush"))["flushed"] == 2
    assert (await control.do("GET", f"{place}/explain"))["due"] == 2


def test_a_destination_where_nothing_waits_says_so() -> None:
    assert reasons(DestinationState("p.test"), None, None) == ["Nothing waits for it."]


def test_every_cause_is_told_the_weightiest_first() -> None:
    found = DestinationState(
        "p.test",
        queued=10,
        held=1,
        under_way=2,
        due=3,
        scheduled=1,
        next_due=NOW,
        failures=6,
        open_until=NOW,
        last_error="Refused.",
        paused_at=NOW,
        paused_by="ops",
        pause_reason="they move",
    )
    told = reasons(found, Lane("p.test", window=2.5, active=2), Known(Silent(), NOW, NOW))
    assert told == [
        "Paused by ops until it is resumed: they move",
        "It failed 6 times in a row. At 2026-03-01T00:00:00.000Z one message tries it again,"
        " and the others follow if it arrives. Last error: Refused.",
        "It publishes no AMTP gateway (no TXT record _amtp.p.test).",
        "2 on the way right now.",
        "3 due and waiting for that.",
        "4 failed before and wait for their next attempt, the first at 2026-03-01T00:00:00.000Z.",
        "1 to be delivered later, as their senders asked.",
        "1 held by an operator.",
    ]


def test_what_waits_because_of_an_answer_names_the_answer_and_what_is_due_the_pace() -> None:
    found = DestinationState(
        "p.test",
        queued=20_005,
        due=20_000,
        next_due=NOW,
        last_error="gw answered 503 TEMPORARY_FAILURE: Later.",
    )
    assert reasons(found, Lane("p.test", window=4.0), None) == [
        "20000 due and waiting for their turn, 4 at once.",
        "5 failed before and wait for their next attempt, the first at 2026-03-01T00:00:00.000Z."
        " Last error: gw answered 503 TEMPORARY_FAILURE: Later.",
    ]


def test_an_outage_of_the_dns_is_among_the_reasons() -> None:
    outage = Outage(Clock(), Journal(io.StringIO()))
    for _ in range(2):
        outage.heard("_amtp.p.test", DnsFailure("no answer within 5 s"))
    (told,) = reasons(DestinationState("p.test"), None, None, outage)
    assert "(no answer within 5 s)" in told


def test_a_look_up_that_failed_and_a_record_that_is_gone_are_told_apart() -> None:
    assert Temporary("no answer within 5 s").told("p.test") == (
        "The DNS look-up of p.test failed: no answer within 5 s."
    )
    assert Temporary("spoke AMTP until noon", gone=True).told("p.test") == (
        "p.test has no AMTP record any more: it spoke AMTP until noon."
    )


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (DestinationState("p.test", queued=1, due=1, paused_at=NOW), "paused"),
        (DestinationState("p.test", queued=1, failures=5, open_until=NOW), "failing"),
        (DestinationState("p.test", queued=2, due=1), "delivering"),
        (DestinationState("p.test", queued=2), "waiting"),
        (DestinationState("p.test", held=1), "idle"),
    ],
)
def test_a_destination_is_described_in_a_word(found: DestinationState, state: str) -> None:
    assert render_destination(found)["state"] == state


def test_a_broken_record_is_told_in_the_words_of_its_fault() -> None:
    told = reasons(DestinationState("p.test"), None, Known(Broken("no gateway="), NOW, NOW))
    assert told == ["Its record in the DNS is broken: no gateway=."]


WAITS = LiveDelivery(
    message=UUID(int=1),
    recipient="x@p.test",
    message_id="m",
    sender="alice@acme.test",
    address="x@p.test",
    destination="p.test",
    state="queued",
    under_way=False,
    due=NOW,
    scheduled=False,
    attempts=0,
    accepted_at=NOW,
    expires_at=NOW,
    first_attempt=None,
    last_attempt=None,
    code=None,
    error=None,
    paused=None,
    open_until=None,
    trouble=None,
)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "It waits for its turn."),
        ({"error": "Later."}, "Later."),
        ({"under_way": True, "error": "Later."}, "It is on the way right now."),
        ({"state": "held", "paused": "x"}, "An operator holds it."),
        ({"paused": "they move"}, "p.test is paused: they move"),
        ({"open_until": NOW, "trouble": "Refused."}, "p.test is failing: Refused."),
        ({"open_until": NOW}, "p.test is failing: every message fails there"),
        ({"scheduled": True}, "It was sent to be delivered later."),
    ],
)
def test_whatever_waits_says_why(changes: dict[str, Any], told: str) -> None:
    assert why(replace(WAITS, **changes)) == told
