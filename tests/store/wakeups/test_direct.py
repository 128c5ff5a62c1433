"""The straight way is an abbreviation: what it hands over is what a look would have found, and nothing is lost on it."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from gateway.journal.journal import Journal
from gateway.protocol.errors import AMTPError
from gateway.protocol.message import Message, parse_message
from gateway.store.admitted import Admitted, Entry, Place
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.inbox.inbox import Item, Listing, Mark, fetch
from gateway.store.intake.insertion import insert
from gateway.store.intake.intake import Intake
from gateway.store.intake.uniqueness import Repeat
from gateway.store.row_ids import Mint
from gateway.store.wakeups import direct as straights
from gateway.store.wakeups.bell import Bell
from gateway.store.wakeups.direct import BODY_BYTES_MAX, PROMISED_MAX, Hand, Straight

AGENT, OTHER = 1, 2
SOON_SECONDS = 10.0
EVERYTHING = Listing()
UNREAD = Listing(mark=Mark.UNREAD)


@dataclass
class Desk:
    database: Database
    bell: Bell
    straight: Straight
    intake: Intake
    mint: Mint

    def message(self, **members: Any) -> Message:
        body = {"sender": "a@acme.test", "recipients": ["b@acme.test"], "payload": {"n": 1}, **members}
        return parse_message(msgspec.json.encode(body), row=self.mint(), now=Clock().now(), local=True)

    async def put(self, *entries: Entry, **members: Any) -> Message:
        message = self.message(**members)
        admitted = Admitted(message, proven=True, entries=entries or (Entry(AGENT, None),))
        await self.intake.commit(admitted)
        return message

    async def look(self, listing: Listing = UNREAD, agent: int = AGENT) -> list[Item]:
        return list((await fetch(self.database, agent, listing, lapses_max=5)).items)

    async def unread(self, message: Message) -> bool:
        found: bool = await self.database.fetchval(
            "select read_at is null from entries where message = $1", message.row
        )
        return found


@pytest.fixture
async def desk(database: Database, mint: Mint) -> AsyncIterator[Desk]:
    journal = Journal(io.StringIO())
    bell = Bell(database, journal)
    straight = Straight(database, bell)
    intake = Intake(database, mint, journal, committed=bell.ring, promise=straight.promise)
    writer, giver = asyncio.create_task(intake.run()), asyncio.create_task(straight.run())
    yield Desk(database, bell, straight, intake, mint)
    intake.stop()
    await writer
    giver.cancel()


@asynccontextmanager
async def stream(desk: Desk, willing: Callable[[], bool] = lambda: True) -> AsyncIterator[Hand]:
    """A stream that has handed out all that there was."""
    with desk.straight.hand(AGENT, willing) as hand:
        hand.caught_up = True
        yield hand


async def test_a_stream_is_handed_what_a_look_would_have_found(desk: Desk) -> None:
    async with stream(desk) as hand:
        message = await desk.put(
            Entry(AGENT, "b+tag@acme.test"),
            headers={"ttl": 600, "extra": "é"},
            idempotency_key="k",
            message_id="0190a5a0-0000-7000-8000-000000000001",
        )
        assert not await hand.rung(SOON_SECONDS)  # nothing to look for
        (item,) = hand.take()
        assert item.row == message.row
        assert not await desk.look()  # it is read
        (found,) = await desk.look(EVERYTHING)
        assert item == replace(found, unread=True)


async def test_what_came_by_way_of_others_is_handed_over_whole(desk: Desk) -> None:
    async with stream(desk) as hand:
        message = desk.message()
        entries = (Entry(AGENT, None), Entry(OTHER, None))
        hops = ("peer.test", "hub.test")
        await desk.intake.commit(
            Admitted(message, proven=False, entries=entries, automatic=True, hops=hops, local=False)
        )
        (item,) = hand.take()
        (found,) = await desk.look(EVERYTHING)
        assert item == replace(found, unread=True)
        (other,) = await desk.look(agent=OTHER)  # nobody listened there
        assert other.row == message.row


async def test_the_bell_wakes_a_stream_for_what_takes_the_other_way(desk: Desk) -> None:
    async with stream(desk) as hand:
        desk.bell.ring([AGENT])
        assert await hand.rung(SOON_SECONDS)
        assert hand.take() == []


@pytest.mark.parametrize(
    ("entry", "members"),
    [
        (Entry(AGENT, "b@acme.test", receipt=True), {}),  # the sender is to hear when it is read
        (Entry(AGENT, None), {"payload": "x" * BODY_BYTES_MAX}),
    ],
    ids=["receipt", "large"],
)
async def test_what_needs_a_look_is_rung_for(desk: Desk, entry: Entry, members: dict[str, Any]) -> None:
    async with stream(desk) as hand:
        message = await desk.put(entry, **members)
        assert await hand.rung(SOON_SECONDS)
        assert hand.take() == []
        (item,) = await desk.look()
        assert item.row == message.row


async def test_a_stream_that_is_not_willing_or_not_alone_or_still_behind_looks_itself(desk: Desk) -> None:
    async with stream(desk, lambda: False) as unwilling:
        await desk.put()
        assert await unwilling.rung(SOON_SECONDS)
    async with stream(desk) as one:
        with desk.bell.ear(AGENT) as other:
            await desk.put()
            assert await one.rung(SOON_SECONDS)
            assert await other.rung(SOON_SECONDS)
        one.caught_up = False
        await desk.put()
        assert await one.rung(SOON_SECONDS)
        assert one.take() == []
    assert len(await desk.look()) == 3


async def test_a_stream_that_takes_nothing_is_promised_a_bounded_number(desk: Desk) -> None:
    async with stream(desk) as hand:
        sent = [await desk.put() for _ in range(PROMISED_MAX + 2)]
        assert await hand.rung(SOON_SECONDS)
        assert [item.row for item in hand.take()] == [message.row for message in sent[:PROMISED_MAX]]
        assert [item.row for item in await desk.look()] == [message.row for message in sent[PROMISED_MAX:]]
        await desk.put()  # it has taken them
        assert len(hand.take()) == 1


async def test_a_repetition_is_not_handed_over_again_and_leaves_its_place_to_others(desk: Desk) -> None:
    async with stream(desk) as hand:
        first = await desk.put(idempotency_key="k")
        for _ in range(PROMISED_MAX):
            again = Admitted(desk.message(idempotency_key="k"), proven=True, entries=(Entry(AGENT, None),))
            assert await desk.intake.commit(again) == Repeat(first.row)
        assert [item.row for item in hand.take()] == [first.row]
        assert hand.promised == 0


async def test_those_beside_one_that_can_not_be_stored_are_handed_over_once(desk: Desk) -> None:
    async with stream(desk) as hand:
        spoiled = Admitted(desk.message(), proven=True, entries=(Entry(AGENT, "\0"),))
        good = Admitted(desk.message(), proven=True, entries=(Entry(AGENT, None),))
        refused, taken = await asyncio.gather(
            desk.intake.commit(spoiled), desk.intake.commit(good), return_exceptions=True
        )
        assert isinstance(refused, AMTPError)
        assert taken is None
        assert [item.row for item in hand.take()] == [good.message.row]
        assert not await hand.rung(0.2)  # nothing was given back
        assert not await desk.unread(good.message)
        assert hand.promised == 0


async def test_what_was_handed_to_a_stream_that_went_is_unread_again_and_rings(desk: Desk) -> None:
    async with stream(desk):
        message = await desk.put()
        assert not await desk.unread(message)
    with desk.bell.ear(AGENT) as other:
        assert await other.rung(SOON_SECONDS)
    (item,) = await desk.look()
    assert item.row == message.row


async def test_what_was_promised_to_a_stream_that_goes_before_the_commit_is_unread_again(desk: Desk) -> None:
    async with stream(desk):
        admitted = Admitted(desk.message(), proven=True, entries=(Entry(AGENT, None),))
        promises = desk.straight.promise([admitted])
        assert (admitted.message.row, AGENT) in promises.places
    await written_as_read(desk, admitted)
    with desk.bell.ear(AGENT) as other:
        assert promises.keep([admitted], datetime.now(UTC)) == set()
        assert await other.rung(SOON_SECONDS)
    assert await desk.unread(admitted.message)


async def test_what_is_in_doubt_is_looked_for(desk: Desk) -> None:
    async with stream(desk) as hand:
        admitted = Admitted(desk.message(), proven=True, entries=(Entry(AGENT, None),))
        promises = desk.straight.promise([admitted])
        await written_as_read(desk, admitted)
        assert promises.keep([admitted], None) == set()  # it was committed, nobody knows when
        assert await hand.rung(SOON_SECONDS)
        assert [item.row for item in await desk.look()] == [admitted.message.row]
        assert hand.promised == 0


async def test_what_is_acknowledged_or_leased_meanwhile_is_not_given_back(desk: Desk) -> None:
    async with stream(desk) as hand:
        done, held, free = [await desk.put() for _ in range(3)]
        await desk.database.execute(
            "update entries set acknowledged_at = amtp_now() where message = $1", done.row
        )
        await desk.database.execute(
            "update entries set lease_until = amtp_now() + interval '1 hour' where message = $1", held.row
        )
    async with asyncio.timeout(SOON_SECONDS):
        while not await desk.unread(free):
            await asyncio.sleep(0.01)
    assert not await desk.unread(done)
    assert not await desk.unread(held)
    assert hand.closed


async def test_giving_back_is_tried_until_the_database_is_there(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(straights, "AGAIN_SECONDS", 0.01)
    async with stream(desk):
        message = await desk.put()
        await desk.database.execute("alter table entries rename to entries_away")
    await asyncio.sleep(0.1)  # some tries in vain
    await desk.database.execute("alter table entries_away rename to entries")
    async with asyncio.timeout(SOON_SECONDS):
        while not await desk.unread(message):
            await asyncio.sleep(0.01)


async def test_what_is_added_while_others_are_given_back_is_given_back_too(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Admitted(desk.message(), proven=True, entries=(Entry(AGENT, None),))
    await written_as_read(desk, late)
    give_back = straights._give_back

    async def slowly(database: Database, owed: Sequence[Place]) -> None:
        monkeypatch.setattr(straights, "_give_back", give_back)
        await give_back(database, owed)
        desk.straight.give_back([(late.message.row, AGENT)])

    monkeypatch.setattr(straights, "_give_back", slowly)
    async with stream(desk):
        first = await desk.put()
    async with asyncio.timeout(SOON_SECONDS):
        while not (await desk.unread(first) and await desk.unread(late.message)):
            await asyncio.sleep(0.01)


async def written_as_read(desk: Desk, admitted: Admitted) -> None:
    """As the commit writes what is promised."""
    async with desk.database.transaction() as connection:
        await insert(connection, desk.mint(), [admitted], {(admitted.message.row, AGENT)})
    assert not await desk.unread(admitted.message)
