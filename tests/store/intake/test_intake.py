"""A message is committed before anyone hears yes, and a key is used once whatever happens."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from gateway.config.sections import LimitSettings
from gateway.journal.journal import Journal
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.message import Message, parse_message
from gateway.store.admitted import Admitted, Entry
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.intake import duplicates as repeats
from gateway.store.intake import intake as intakes
from gateway.store.intake.intake import Intake
from gateway.store.intake.uniqueness import Repeat
from gateway.store.row_ids import Mint

AGENT = 1


def message_of(mint: Mint, **members: Any) -> Message:
    body = {"sender": "a@acme.test", "recipients": ["b@acme.test"], "payload": {"n": 1}, **members}
    return parse_message(msgspec.json.encode(body), row=mint(), now=Clock().now(), local=True)


def admitted_of(mint: Mint, agent: int = AGENT, **members: Any) -> Admitted:
    return Admitted(message_of(mint, **members), proven=True, entries=(Entry(agent, None),))


@asynccontextmanager
async def writing(
    database: Database, mint: Mint, ring: Callable[..., None] = lambda _: None
) -> AsyncIterator[Intake]:
    intake = Intake(database, mint, Journal(io.StringIO()), committed=ring)
    writer = asyncio.create_task(intake.run())
    try:
        yield intake
    finally:
        intake.stop()
        await writer


async def test_a_message_is_in_the_store_when_its_commit_returns(database: Database, mint: Mint) -> None:
    rung: list[set[int]] = []
    async with writing(database, mint, lambda agents: rung.append(set(agents))) as intake:
        admitted = admitted_of(mint)
        assert await intake.commit(admitted) is None
    body = await database.fetchval("select body from messages where id = $1", admitted.message.row)
    assert body == admitted.message.body
    assert await database.fetchval("select count(*) from entries where agent = $1", AGENT) == 1
    assert rung == [{AGENT}]


async def test_a_changed_limit_of_what_may_wait_counts_at_once(database: Database, mint: Mint) -> None:
    async with writing(database, mint) as intake:
        intake.adopt(replace(LimitSettings(), waiting_messages=1))
        first = asyncio.ensure_future(intake.commit(admitted_of(mint)))
        await asyncio.sleep(0)
        with pytest.raises(AMTPError, match="Too many messages wait"):
            await intake.commit(admitted_of(mint))
        assert await first is None


async def test_what_waits_together_is_committed_together(database: Database, mint: Mint) -> None:
    async with writing(database, mint) as intake:
        await asyncio.gather(*(intake.commit(admitted_of(mint)) for _ in range(100)))
    assert await database.fetchval("select sum(accepted) from tallies") == 100
    assert await database.fetchval("select count(*) from tallies") <= 3


async def test_those_who_wait_when_a_commit_ends_wait_a_moment_for_others(
    database: Database, mint: Mint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intakes, "PACE_SECONDS", 1.0)
    async with writing(database, mint) as intake:
        first = await begun(intake, mint)
        second = asyncio.create_task(intake.commit(admitted_of(mint)))
        await first
        await asyncio.gather(second, intake.commit(admitted_of(mint)))
    assert await database.fetchval("select array_agg(accepted order by id) from tallies") == [1, 2]


async def test_whoever_comes_alone_and_whoever_comes_with_many_waits_for_nobody(
    database: Database, mint: Mint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intakes, "PACE_SECONDS", 3600.0)
    async with asyncio.timeout(60), writing(database, mint) as intake:
        for _ in range(3):
            await intake.commit(admitted_of(mint))
        first = await begun(intake, mint)
        await asyncio.gather(first, *(intake.commit(admitted_of(mint)) for _ in range(intakes.FEW)))


async def begun(intake: Intake, mint: Mint) -> "asyncio.Task[Repeat | None]":
    """A commit that the writer is at."""
    commit = asyncio.create_task(intake.commit(admitted_of(mint)))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not intake._queue
    return commit


async def test_a_key_used_by_many_at_once_in_two_processes_makes_one_message(
    database: Database, mint: Mint
) -> None:
    async with writing(database, mint) as one, writing(database, mint) as other:
        outcomes = await asyncio.gather(
            *((one, other)[n % 2].commit(admitted_of(mint, idempotency_key="k")) for n in range(100))
        )
    assert outcomes.count(None) == 1
    (row,) = {outcome.row for outcome in outcomes if isinstance(outcome, Repeat)}
    assert await database.fetchval("select array_agg(id) from messages") == [row]


async def test_crossed_keys_and_ids_in_two_processes_reach_no_caller_as_an_error(
    database: Database, mint: Mint
) -> None:
    async with writing(database, mint) as one, writing(database, mint) as other:
        for turn in range(20):
            crossed: list[tuple[Intake, dict[str, Any]]] = [
                (one, {"idempotency_key": f"k{turn}", "message_id": f"i{turn}"}),
                (other, {"idempotency_key": f"l{turn}", "message_id": f"i{turn}"}),
                (one, {"idempotency_key": f"l{turn}", "message_id": f"j{turn}"}),
                (other, {"idempotency_key": f"k{turn}", "message_id": f"j{turn}"}),
            ]
            outcomes = await asyncio.gather(*(intake.commit(admitted_of(mint, **m)) for intake, m in crossed))
            assert outcomes.count(None) >= 1
    orphans = (
        "select count(*) from idempotency i where not exists (select from messages m where m.id = i.message)"
    )
    assert await database.fetchval(orphans) == 0


async def test_the_same_key_of_another_sender_or_of_an_unproven_one_is_another_key(
    database: Database, mint: Mint
) -> None:
    async with writing(database, mint) as intake:
        first = admitted_of(mint, idempotency_key="k")
        stranger = Admitted(message_of(mint, idempotency_key="k"), proven=False, entries=first.entries)
        assert await intake.commit(first) is None
        assert await intake.commit(stranger) is None
        assert await intake.commit(admitted_of(mint, sender="c@acme.test", idempotency_key="k")) is None


async def test_an_id_that_was_minted_here_is_recognised_when_its_sender_sends_it_back(
    database: Database, mint: Mint
) -> None:
    async with writing(database, mint) as intake:
        first = admitted_of(mint)
        await intake.commit(first)
        again = admitted_of(mint, message_id=first.message.message_id)
        assert await intake.commit(again) == Repeat(first.message.row)


async def test_a_repetition_adds_only_the_recipients_that_are_new(database: Database, mint: Mint) -> None:
    async with writing(database, mint) as intake:
        first = admitted_of(mint, idempotency_key="k")
        await intake.commit(first)
    again = Admitted(
        message_of(mint, idempotency_key="k"),
        proven=True,
        entries=(Entry(AGENT, None), Entry(AGENT + 1, None)),
    )
    assert await repeats.repeat(database, mint, again, first.message.row) == [AGENT + 1]
    assert await database.fetchval("select count(*) from entries") == 2
    assert await database.fetchval("select sum(accepted) from tallies") == 2


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        ({"idempotency_key": "k"}, {"idempotency_key": "k", "payload": 2}, Code.IDEMPOTENCY_CONFLICT),
        ({"message_id": "i"}, {"message_id": "i", "payload": 2}, Code.MESSAGE_ID_CONFLICT),
        ({"message_id": "i"}, {"message_id": "i", "idempotency_key": "k"}, Code.MESSAGE_ID_CONFLICT),
    ],
)
async def test_another_content_under_a_known_key_or_id_is_a_conflict(
    database: Database, mint: Mint, first: dict[str, Any], second: dict[str, Any], code: Code
) -> None:
    async with writing(database, mint) as intake:
        original = admitted_of(mint, **first)
        await intake.commit(original)
        other = admitted_of(mint, **second)
        seen = await intake.commit(other)
    assert seen == Repeat(original.message.row)
    with pytest.raises(AMTPError) as refused:
        await repeats.repeat(database, mint, other, original.message.row)
    assert refused.value.code is code


async def test_the_same_content_written_differently_is_a_repetition(database: Database, mint: Mint) -> None:
    def spelled(text: bytes) -> Admitted:
        message = parse_message(text, row=mint(), now=Clock().now(), local=True)
        return Admitted(message, proven=True, entries=(Entry(AGENT, None),))

    one = (
        b'{"sender":"a@acme.test","recipients":["b@acme.test"],"idempotency_key":"k","payload":{"a":1,"b":2}}'
    )
    two = b'{"idempotency_key":"k","payload": {"b":2, "a":1}, "sender":"a@acme.test","recipients":["b@acme.test"]}'
    async with writing(database, mint) as intake:
        first = spelled(one)
        await intake.commit(first)
        again = spelled(two)
        await intake.commit(again)
    assert await repeats.repeat(database, mint, again, first.message.row) == []


async def test_a_message_the_database_can_not_store_is_refused_alone(database: Database, mint: Mint) -> None:
    await database.execute(
        "alter table messages add constraint no_poison check (sender <> 'poison@acme.test')"
    )
    async with writing(database, mint) as intake:
        good = [intake.commit(admitted_of(mint)) for _ in range(20)]
        bad = intake.commit(admitted_of(mint, sender="poison@acme.test"))
        outcomes = await asyncio.gather(*good, bad, return_exceptions=True)
    assert outcomes[:-1] == [None] * 20
    assert isinstance(outcomes[-1], AMTPError)
    assert await database.fetchval("select count(*) from messages") == 20


async def test_nothing_is_accepted_while_the_database_is_away_and_all_goes_on_when_it_is_back(
    database: Database, mint: Mint
) -> None:
    async with writing(database, mint) as intake:
        await intake.commit(admitted_of(mint))
        await database.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
            " and pid <> pg_backend_pid()"
        )
        outcomes = await asyncio.gather(
            *(intake.commit(admitted_of(mint)) for _ in range(5)), return_exceptions=True
        )
        refused = [o for o in outcomes if isinstance(o, AMTPError)]
        assert all(o.status == 503 and o.retry_after for o in refused)
        await intake.commit(admitted_of(mint))
    assert await database.fetchval("select count(*) from messages") == 2 + 5 - len(refused)
