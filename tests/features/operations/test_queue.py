"""What operators do to the queue: what is meant changes, what is under way does not, and the books stay right."""

import json
from datetime import timedelta
from typing import Any

import pytest

from gateway.features.operations import queue
from gateway.features.operations.queue import (
    Act,
    Effect,
    EndedMessage,
    Queue,
    Selection,
    attempts,
    shape,
    waiting,
)
from gateway.protocol.message import parse_message
from gateway.store.admitted import Admitted, Entry
from gateway.store.audit import Audit, verify
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.row_ids import Mint
from gateway.store.tallies import balance
from tests.store.house import House


@pytest.fixture
def house(database: Database, mint: Mint, clock: Clock) -> House:
    return House(database, mint, clock)


@pytest.fixture
def acts(database: Database, mint: Mint) -> Queue:
    return Queue(database, mint, Audit(mint()))


async def do(acts: Queue, act: Act, **selected: Any) -> Effect:
    return await acts.change(act, Selection(**selected), actor="ops", reason="a test")


async def listed(house: House, **selected: Any) -> list[str]:
    return [one.recipient for one in await waiting(house.database, Selection(**selected), limit=100)]


async def nobody(_ended: EndedMessage) -> None:
    return None


async def fail(house: House, row: Any, recipient: str, seconds: float = 3600, **more: Any) -> None:
    due = house.clock.now() + timedelta(seconds=seconds)
    await house.end(row, recipient, due=due, code="TEMPORARY_FAILURE", error="Later.", **more)


async def test_each_condition_selects_what_it_says_and_together_they_narrow(house: House) -> None:
    row = await house.send("x@p.test", "y@q.test", message_id="order-1")
    await house.lease()
    await fail(house, row, "x@p.test")
    await house.send("x@p.test", sender="bob", due=60)
    house.turn(600)
    other = await house.send("z@p.test", sender="bob", due=60)
    for selected, recipients in (
        ({}, ["x@p.test", "y@q.test", "x@p.test", "z@p.test"]),
        ({"ids": ("order-1",)}, ["x@p.test", "y@q.test"]),
        ({"ids": ("order-1", str(other), "none")}, ["x@p.test", "y@q.test", "z@p.test"]),
        ({"sender": "bob@acme.test"}, ["x@p.test", "z@p.test"]),
        ({"recipient": "x@p.test"}, ["x@p.test", "x@p.test"]),
        ({"destination": "q.test"}, ["y@q.test"]),
        ({"code": "TEMPORARY_FAILURE"}, ["x@p.test"]),
        ({"older_seconds": 300}, ["x@p.test", "y@q.test", "x@p.test"]),
        ({"state": "held"}, []),
        ({"sender": "bob@acme.test", "older_seconds": 300}, ["x@p.test"]),
    ):
        assert await listed(house, **selected) == recipients, selected
    everything = await waiting(house.database, Selection(), limit=10)
    first = await waiting(house.database, Selection(), limit=3)
    rest = await waiting(house.database, Selection(), after=(first[-1].message, first[-1].recipient), limit=3)
    assert [*first, *rest] == everything


async def test_what_is_held_is_not_claimed_until_it_is_released(house: House, acts: Queue) -> None:
    row = await house.send("x@p.test")
    assert await acts.count(Act.HOLD, Selection(destination="p.test")) == Effect(1, 0, 1)
    assert await listed(house, state="held") == []
    assert await do(acts, Act.HOLD, recipient="x@p.test") == Effect(1, 0, 1)
    await house.lease()
    assert (await house.states(row))["x@p.test"].status == "held"
    assert await do(acts, Act.HOLD) == Effect(1, 0, 0)
    assert await do(acts, Act.RELEASE) == Effect(1, 0, 1)
    await house.lease()
    await house.end(row, "x@p.test", status="delivered", via="amtp:p.test")
    assert await house.status(row) == "delivered"


async def test_what_is_under_way_is_busy_for_every_act(house: House, acts: Queue) -> None:
    row = await house.send("x@p.test")
    await house.lease()
    for act in (Act.HOLD, Act.RELEASE, Act.RETRY):
        assert await do(acts, act) == Effect(1, 1, 0)
    assert await acts.cancel(Selection(), actor="ops", reason=None, report=nobody) == Effect(1, 1, 0)
    (shown,) = await waiting(house.database, Selection(), limit=1)
    assert shown.under_way
    await house.end(row, "x@p.test", status="delivered", via="amtp:p.test")


async def test_a_late_worker_changes_nothing_of_what_was_held_after_its_lease(
    house: House, acts: Queue
) -> None:
    row = await house.send("x@p.test")
    await house.lease()
    house.turn(60)
    assert await do(acts, Act.HOLD) == Effect(1, 0, 1)
    with pytest.raises(AssertionError):
        await house.end(row, "x@p.test", status="delivered", via="amtp:p.test")
    assert (await house.states(row))["x@p.test"].status == "held"


async def test_retry_makes_due_what_failed_and_leaves_what_is_scheduled(house: House, acts: Queue) -> None:
    row = await house.send("x@p.test")
    await house.lease()
    await fail(house, row, "x@p.test")
    await house.send("later@p.test", due=3600)
    assert await acts.count(Act.RETRY, Selection()) == Effect(2, 0, 1)
    assert await do(acts, Act.RETRY) == Effect(2, 0, 1)
    due = {
        one.recipient: one.due <= house.clock.now()
        for one in await waiting(house.database, Selection(), limit=9)
    }
    assert due == {"x@p.test": True, "later@p.test": False}


async def test_a_cancelled_delivery_is_final_and_its_report_comes_in_the_same_transaction(
    house: House, acts: Queue
) -> None:
    alice = await house.agent("alice")
    row = await house.send("x@p.test", "y@p.test", "z@q.test")
    told: list[EndedMessage] = []

    async def report(ended: EndedMessage) -> Admitted:
        told.append(ended)
        body = (
            b'{"version":"1.0","sender":"postmaster@acme.test","recipients":["alice@acme.test"],"payload":1}'
        )
        message = parse_message(body, row=house.mint(), now=house.clock.now(), local=True)
        return Admitted(message, True, (Entry(alice, None),), automatic=True)

    effect = await acts.cancel(
        Selection(destination="p.test"), actor="ops", reason="wrong list", report=report
    )
    assert (effect.matched, effect.busy, effect.changed, effect.has_more) == (2, 0, 2, False)
    (ended,) = told
    assert (ended.message_id, ended.sender, ended.proven) == (str(row), "alice@acme.test", True)
    assert ended.addresses == ("x@p.test", "y@p.test")
    states = await house.states(row)
    assert [states[name].status for name in ("x@p.test", "y@p.test", "z@q.test")] == ["cancelled"] * 2 + [
        "queued"
    ]
    assert await house.database.fetchval("select count(*) from entries where agent = $1", alice) == 1
    assert (await balance(house.database)).unaccounted == 0


async def test_a_report_that_fails_cancels_nothing(house: House, acts: Queue) -> None:
    await house.send("x@p.test")

    async def report(_ended: EndedMessage) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await acts.cancel(Selection(), actor="ops", reason=None, report=report)
    assert await listed(house) == ["x@p.test"]
    assert (await balance(house.database)).unaccounted == 0


async def test_every_act_stands_in_the_audit_with_who_did_it_to_what(house: House, acts: Queue) -> None:
    row = await house.send("x@p.test")
    await do(acts, Act.HOLD, ids=(str(row),))
    await do(acts, Act.HOLD, ids=(str(row),))
    await acts.cancel(Selection(destination="p.test"), actor="ops", reason=None, report=nobody)
    rows = await house.database.fetch("select actor, act, subject, details from audit order by number")
    assert [tuple(row)[:3] for row in rows] == [
        ("ops", "queue.hold", str(row)),
        ("ops", "queue.cancel", "p.test"),
    ]
    assert json.loads(rows[0]["details"]) == {"changed": 1, "reason": "a test", "ids": [str(row)]}
    assert await verify(house.database) == []


async def test_one_act_changes_a_bounded_number_and_says_that_there_are_more(
    house: House, acts: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "CHANGED_MAX", 2)
    await house.send("x@p.test", "y@p.test", "z@p.test")
    assert await do(acts, Act.HOLD) == Effect(3, 0, 2, has_more=True)
    assert await do(acts, Act.HOLD) == Effect(3, 0, 1)


async def test_the_history_tells_every_attempt_in_order(house: House) -> None:
    row = await house.send("x@p.test")
    for _ in range(2):
        await house.lease()
        await fail(house, row, "x@p.test", 1, milliseconds=12)
        house.turn(2)
    shown = await waiting(house.database, Selection(), limit=1)
    history = (await attempts(house.database, shown))[row, "x@p.test"]
    assert [one.code for one in history] == ["TEMPORARY_FAILURE"] * 2
    assert history[0].at < history[1].at
    assert (history[0].error, history[0].milliseconds) == ("Later.", 12)


async def test_the_shape_shows_age_by_destination_the_largest_first_and_the_others_together(
    house: House,
) -> None:
    await house.send("x@p.test", "y@p.test", "x@q.test")
    house.turn(600)
    await house.send("x@p.test", "x@r.test")
    found = await shape(house.database, [60, 3600], 1)
    assert [(one.destination, one.bucket, one.count) for one in found] == [
        ("p.test", 0, 1),
        ("p.test", 1, 2),
        (None, 0, 1),
        (None, 1, 1),
    ]
