"""Those who wait for a reply: what counts as one, and how few statements look for all of them."""

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from gateway.journal.journal import Journal
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.row_ids import Mint
from gateway.store.wakeups import replies as replies_module
from gateway.store.wakeups.bell import Bell
from gateway.store.wakeups.replies import Replies, ReplyQuestion
from tests.store.house import House

ALICE = "alice@acme.test"
BOB = "bob@acme.test"


class Counted(Database):
    """Counts the statements that look something up."""

    fetches = 0

    async def fetch(self, statement: str, *arguments: object) -> list[Any]:
        self.fetches += 1
        return await super().fetch(statement, *arguments)


@pytest.fixture
async def counted(dsn: str, clock: Clock) -> AsyncIterator[Counted]:
    opened = Counted(dsn, clock=clock)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def house(counted: Counted, mint: Mint, clock: Clock) -> House:
    return House(counted, mint, clock)


async def nobody() -> frozenset[str]:
    """The domains that can prove themselves."""
    return frozenset()


@pytest.fixture
async def replies(counted: Counted) -> AsyncIterator[Replies]:
    built = Replies(counted, Bell(counted, Journal(io.StringIO())), nobody)
    running = asyncio.create_task(built.run())
    yield built
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def asked(house: House, alice: int, *, live: bool = False) -> ReplyQuestion:
    row = await house.send(BOB) if live else house.mint()
    return ReplyQuestion(row, str(row), alice, ALICE, (BOB,), live)


async def heard(replies: Replies, question: ReplyQuestion) -> UUID | None:
    """The reply that is there now."""
    found = await replies.wait(question, 0, asyncio.Event())
    return None if found.reply is None else found.reply.row


async def test_the_first_of_several_replies_is_the_answer(house: House, replies: Replies) -> None:
    alice = await house.agent("alice")
    question = await asked(house, alice)
    first = await house.send(sender=BOB, to=[alice], in_reply_to=question.message_id)
    await house.send(sender=BOB, to=[alice], in_reply_to=question.message_id)
    assert await heard(replies, question) == first


async def test_what_is_on_its_way_to_an_agents_own_url_is_an_answer_once_it_is_due(
    house: House, replies: Replies
) -> None:
    alice = await house.agent("alice")
    question = await asked(house, alice)
    later = await house.send(ALICE, sender=BOB, due=3600, in_reply_to=question.message_id)
    assert await heard(replies, question) is None
    house.turn(3700)
    assert await heard(replies, question) == later
    await house.lease()
    await house.end(later, ALICE, status="delivered", via="webhook")
    assert await heard(replies, question) == later


async def test_a_reply_whose_time_is_over_is_none(house: House, replies: Replies) -> None:
    alice = await house.agent("alice")
    question = await asked(house, alice)
    headers = {"ttl": 60}
    row = await house.send(sender=BOB, to=[alice], in_reply_to=question.message_id, headers=headers)
    assert await heard(replies, question) == row
    house.turn(61)
    assert await heard(replies, question) is None


async def test_what_came_for_somebody_else_is_no_answer(house: House, replies: Replies) -> None:
    alice, eve = await house.agent("alice"), await house.agent("eve")
    question = await asked(house, alice)
    about = question.message_id
    await house.send(sender=BOB, to=[eve], in_reply_to=about)
    await house.send("eve@acme.test", sender=BOB, in_reply_to=about)
    await house.send(sender="eve", to=[alice], in_reply_to=about)
    assert await heard(replies, question) is None


async def test_the_states_of_what_was_not_delivered_yet_are_told_and_end_a_wait_that_is_hopeless(
    house: House, replies: Replies
) -> None:
    question = await asked(house, await house.agent("alice"), live=True)
    found = await replies.wait(question, 0, asyncio.Event())
    assert ({n: s.status for n, s in found.states.items()}, found.over) == ({BOB: "queued"}, False)
    await house.lease()
    await house.end(question.row, BOB, status="failed", code="AGENT_UNKNOWN", error="Nobody.")
    found = await replies.wait(question, 60, asyncio.Event())
    assert ({n: s.status for n, s in found.states.items()}, found.over) == ({BOB: "failed"}, True)


async def test_all_who_want_to_know_at_once_are_looked_up_together(
    house: House, counted: Counted, replies: Replies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replies_module, "LOOKS_MAX", 100)
    alice = await house.agent("alice")
    questions = [await asked(house, alice) for _ in range(300)]
    rows = [
        await house.send(sender=BOB, to=[alice], in_reply_to=question.message_id)
        for question in questions[:30]
    ]
    before = counted.fetches
    found = await asyncio.gather(*(heard(replies, question) for question in questions))
    assert found == [*rows, *[None] * 270]
    assert counted.fetches - before <= 4


async def test_while_the_database_is_away_there_is_no_news(
    house: House, counted: Counted, replies: Replies
) -> None:
    question = await asked(house, await house.agent("alice"))
    ending = asyncio.Event()
    waiting = asyncio.create_task(replies.wait(question, 60, ending))
    await asyncio.sleep(0)
    assert counted._pool is not None
    counted._pool.terminate()
    found = await replies.wait(question, 0, ending)
    assert (found.reply, found.over) == (None, False)
    assert not waiting.done()
    ending.set()
    assert not (await waiting).over
