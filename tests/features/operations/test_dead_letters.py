"""Dead letters: shown to whom they concern, replayed under the same ids, purged; the books stay right."""

from datetime import timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest

from gateway.config.sections import RetentionSettings
from gateway.features.operations.dead_letters import (
    DeadLetter,
    DeadLetters,
    Which,
    dead_letter,
    dead_letters,
    original,
)
from gateway.store.audit import Audit
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.retention import forget
from gateway.store.row_ids import Mint
from gateway.store.tallies import balance
from tests.store.house import House


@pytest.fixture
def house(database: Database, mint: Mint, clock: Clock) -> House:
    return House(database, mint, clock)


@pytest.fixture
def acts(database: Database, mint: Mint) -> DeadLetters:
    return DeadLetters(database, mint, Audit(mint()), domains=["acme.test"], horizon=timedelta(days=7))


async def bury(house: House, *recipients: str, code: str = "RECIPIENT_NOT_FOUND", **members: Any) -> UUID:
    """A message that failed for all of its recipients."""
    row = await house.send(*recipients, **members)
    await house.lease()
    for recipient in recipients:
        await house.end(row, recipient, status="failed", code=code, error="No such name.", dead_letter=True)
    return row


async def listed(house: House, own: str | None = None, **which: Any) -> list[DeadLetter]:
    return await dead_letters(house.database, Which(**which), own=own, before=None, limit=100)


async def test_each_condition_chooses_what_it_says(house: House) -> None:
    await bury(house, "x@p.test")
    await bury(house, "x@q.test", code="POLICY_DENIED", sender="bob")
    house.turn(600)
    await bury(house, "y@p.test")
    for which, recipients in (
        ({}, ["y@p.test", "x@q.test", "x@p.test"]),
        ({"sender": "bob@acme.test"}, ["x@q.test"]),
        ({"recipient": "y@p.test"}, ["y@p.test"]),
        ({"domain": "p.test"}, ["y@p.test", "x@p.test"]),
        ({"code": "POLICY_DENIED"}, ["x@q.test"]),
        ({"older_seconds": 300}, ["x@q.test", "x@p.test"]),
        ({"younger_seconds": 300}, ["y@p.test"]),
        ({"domain": "p.test", "older_seconds": 300}, ["x@p.test"]),
    ):
        assert [one.recipient for one in await listed(house, **which)] == recipients, which
    first = await dead_letters(house.database, Which(), own=None, before=None, limit=2)
    rest = await dead_letters(house.database, Which(), own=None, before=first[-1].number, limit=2)
    assert [one.recipient for one in [*first, *rest]] == ["y@p.test", "x@q.test", "x@p.test"]


async def test_a_letter_tells_why_to_the_agent_that_sent_it_and_to_no_other(house: House) -> None:
    row = await bury(house, "x@p.test", message_id="order-1", subject="hi")
    (letter,) = await listed(house, own="alice@acme.test")
    assert (letter.message_id, letter.sender, letter.code) == (
        "order-1",
        "alice@acme.test",
        "RECIPIENT_NOT_FOUND",
    )
    assert (letter.reason, letter.attempts, letter.replayed_at) == ("No such name.", 1, None)
    assert b'"subject":"hi"' in (await original(house.database, letter.number) or b"")
    assert (await house.states(row))["x@p.test"].status == "failed"
    assert await listed(house, own="bob@acme.test") == []
    assert await dead_letter(house.database, letter.number, own="alice@acme.test") == letter
    assert await dead_letter(house.database, letter.number, own="bob@acme.test") is None
    await house.database.execute("update messages set proven = false")
    assert await listed(house, own="alice@acme.test") == []


async def test_a_replayed_letter_is_delivered_under_its_ids_and_the_books_stay_right(
    house: House, acts: DeadLetters
) -> None:
    row = await bury(house, "x@p.test", "gone@acme.test")
    letter = (await listed(house, recipient="x@p.test"))[0]
    (replayed,) = await acts.replay(Which(number=letter.number), actor="ops")
    assert (replayed.message_id, replayed.forgotten) == (str(row), False)
    assert (await house.states(row))["x@p.test"].status == "queued"
    assert (await house.states(row))["gone@acme.test"].status == "failed"
    found = await balance(house.database)
    assert (found.accepted, found.finished, found.queued, found.unaccounted) == (2, 1, 1, 0)
    await house.lease()
    await house.end(row, "x@p.test", status="delivered", via="amtp:p.test")
    assert await house.status(row) == "partial"
    assert (await balance(house.database)).unaccounted == 0
    assert await acts.replay(Which(number=letter.number), actor="ops") == []
    shown = await dead_letter(house.database, letter.number, own=None)
    assert shown is not None
    assert shown.replayed_at is not None
    await acts.replay(Which(recipient="gone@acme.test"), actor="ops")
    # A recipient here is delivered by name; whoever may have it already gets it as a repetition.
    delivery = await house.database.fetchrow("select destination, attempts, expiry from deliveries")
    assert tuple(delivery) == ("gone@acme.test", 1, "horizon")


async def test_a_replay_that_fails_again_is_a_letter_of_its_own(house: House, acts: DeadLetters) -> None:
    row = await bury(house, "x@p.test")
    first = (await listed(house))[0]
    await acts.replay(Which(), actor="ops")
    await house.lease()
    await house.end(row, "x@p.test", status="failed", code="POLICY_DENIED", error="No.", dead_letter=True)
    (second,) = await listed(house)
    assert (second.number > first.number, second.code) == (True, "POLICY_DENIED")
    assert (await balance(house.database)).unaccounted == 0


async def test_a_rate_spreads_the_letters_oldest_first_and_a_limit_leaves_the_youngest(
    house: House, acts: DeadLetters
) -> None:
    await bury(house, "w@p.test", "x@p.test", "y@p.test", "z@p.test")
    youngest = (await listed(house))[0]
    assert await acts.count(Which(), replayable=True) == 4
    replayed = await acts.replay(Which(), actor="ops", limit=3, per_second=0.5)
    assert [one.number for one in replayed] == sorted(one.number for one in replayed)
    gaps = [(later.due - one.due).total_seconds() for one, later in pairwise(replayed)]
    assert gaps == [2.0, 2.0]
    assert await listed(house) == [youngest]


async def test_a_time_to_live_goes_on_and_what_outlived_it_is_not_replayed(
    house: House, acts: DeadLetters
) -> None:
    await bury(house, "x@p.test", headers={"ttl": 60})
    await bury(house, "y@p.test", headers={"ttl": 600})
    house.turn(61)
    assert await acts.count(Which(), replayable=True) == 1
    assert len(await acts.replay(Which(), actor="ops", limit=10)) == 1
    (left,) = await listed(house)
    assert left.recipient == "x@p.test"
    same = (
        "select d.expires_at = m.expires_at and d.expiry = 'ttl'"
        " from deliveries d join messages m on m.id = d.message"
    )
    assert await house.database.fetchval(same)


async def test_a_purged_letter_is_gone_and_the_audit_says_who_did_it(house: House, acts: DeadLetters) -> None:
    row = await bury(house, "x@p.test", "y@q.test")
    assert await acts.count(Which(domain="p.test"), replayable=False) == 1
    assert await acts.purge(Which(domain="p.test"), actor="ops", limit=10) == 1
    assert [one.recipient for one in await listed(house)] == ["y@q.test"]
    assert (await house.states(row))["x@p.test"].status == "failed"
    assert (await balance(house.database)).unaccounted == 0
    assert await acts.purge(Which(domain="p.test"), actor="ops", limit=10) == 0
    (left,) = await listed(house)
    await acts.replay(Which(number=left.number), actor="ops")
    rows = await house.database.fetch("select actor, act, subject from audit order by number")
    assert [tuple(row) for row in rows] == [
        ("ops", "dead_letter.purge", "all"),
        ("ops", "dead_letter.replay", str(left.number)),
    ]


async def test_a_replayed_letter_is_forgotten_in_time_and_an_open_one_never(
    house: House, acts: DeadLetters
) -> None:
    await bury(house, "x@p.test", "y@p.test")
    y, x = await listed(house)
    await acts.replay(Which(number=x.number), actor="ops")
    house.turn(20 * 86400)
    await forget(house.database, house.mint, RetentionSettings(attempts_days=30))
    assert await dead_letter(house.database, x.number, own=None) is not None
    house.turn(20 * 86400)
    await forget(house.database, house.mint, RetentionSettings(attempts_days=30))
    assert await dead_letter(house.database, x.number, own=None) is None
    assert await listed(house) == [y]
