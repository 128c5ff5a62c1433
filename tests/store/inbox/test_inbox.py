"""Inboxes in a real database: what is handed out, to whom, and what is never handed out again."""

import asyncio
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.journal.journal import Journal
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.inbox import inbox
from gateway.store.inbox.acknowledge import Acknowledgement, EntryName, Result, acknowledge
from gateway.store.inbox.inbox import Lease, Listing, Mark, Page
from gateway.store.inbox.poison import Buried, Undigested, bury, drop, revive, undigested
from gateway.store.row_ids import Mint

LAPSES_MAX = 10


class Box:
    """An agent's inbox, filled and emptied by hand."""

    def __init__(self, database: Database, mint: Mint, clock: Clock, agent: int, name: str) -> None:
        self.database = database
        self.mint = mint
        self.clock = clock
        self.agent = agent
        self.name = name
        self.page_bytes = inbox.PAGE_BYTES_MAX
        self.log = io.StringIO()

    async def put(
        self,
        public_id: str | None = None,
        *,
        sender: str = "bob@acme.test",
        body: bytes = b'{"payload":null}',
        expires_seconds: float | None = None,
    ) -> UUID:
        row = self.mint()
        await self.database.execute(
            "with m as (insert into messages (id, public_id, sender, proven, body, accepted_at, expires_at)"
            " values ($1, $2, $3, true, $4, amtp_now(), amtp_now() + make_interval(secs => $5)))"
            " insert into entries (message, agent, expires_at)"
            " values ($1, $6, amtp_now() + make_interval(secs => $5))",
            row,
            public_id,
            sender,
            body,
            expires_seconds,
            self.agent,
        )
        return row

    async def fill(self, count: int) -> list[UUID]:
        return [await self.put() for _ in range(count)]

    async def fetch(self, listing: Listing | None = None, lease: Lease | None = None) -> Page:
        return await inbox.fetch(
            self.database,
            self.agent,
            listing or Listing(),
            lapses_max=LAPSES_MAX,
            bytes_max=self.page_bytes,
            lease=lease,
        )

    async def take(self, seconds: float = 30, limit: int = 100) -> tuple[Lease, list[UUID]]:
        lease = Lease(seconds)
        page = await self.fetch(Listing(limit=limit), lease)
        return lease, rows_of(page)

    async def acknowledge(self, *names: str | EntryName, lease: Lease | None = None) -> list[Acknowledgement]:
        named = [EntryName(name) if isinstance(name, str) else name for name in names]
        return await acknowledge(self.database, self.agent, named, lease.token if lease else None)

    async def unread(self) -> int:
        return (await inbox.unread(self.database, self.agent, lapses_max=LAPSES_MAX)).count

    async def undigested(self) -> list[Undigested]:
        return (await undigested(self.database, self.agent, after=0, limit=10))[0]

    async def bury(self, lapses_max: int = LAPSES_MAX) -> list[Buried]:
        journal = Journal(self.log)
        buried = await bury(self.database, journal, lapses_max=lapses_max)
        journal.flush()
        return buried

    def turn(self, seconds: float) -> None:
        self.clock.offset += timedelta(seconds=seconds)


def rows_of(page: Page) -> list[UUID]:
    return [item.row for item in page.items]


def results_of(acknowledgements: Sequence[Acknowledgement]) -> list[Result]:
    return [each.result for each in acknowledgements]


async def box_of(database: Database, mint: Mint, clock: Clock, local: str) -> Box:
    agent = await database.fetchval(
        "insert into agents (local, domain, created_at) values ($1, 'acme.test', amtp_now()) returning id",
        local,
    )
    return Box(database, mint, clock, agent, f"{local}@acme.test")


@pytest.fixture
async def box(database: Database, mint: Mint, clock: Clock) -> Box:
    return await box_of(database, mint, clock, "alice")


async def test_an_inbox_is_read_oldest_first(box: Box) -> None:
    rows = await box.fill(5)
    page = await box.fetch()
    assert rows_of(page) == rows
    assert not page.has_more


async def test_an_item_carries_what_the_message_was_and_how_it_came(box: Box) -> None:
    row = await box.put(body=b'{"payload": 1}')
    (item,) = (await box.fetch()).items
    assert (item.row, item.body, item.proven, item.unread) == (row, b'{"payload": 1}', True, True)
    assert (item.address, item.hops, item.lapses, item.lease_until) == (None, (), 0, None)


async def test_nobody_sees_the_entries_of_another(
    box: Box, database: Database, mint: Mint, clock: Clock
) -> None:
    other = await box_of(database, mint, clock, "mallory")
    row = await box.put()
    assert (await other.fetch()).items == ()
    assert (await other.fetch(lease=Lease(30))).items == ()
    assert results_of(await other.acknowledge(str(row))) == [Result.UNKNOWN]
    assert rows_of(await box.fetch()) == [row]


async def test_pages_by_cursor_and_by_offset_cover_the_inbox(box: Box) -> None:
    rows = await box.fill(7)
    first = await box.fetch(Listing(limit=3))
    second = await box.fetch(Listing(limit=3, after=first.items[-1].row))
    third = await box.fetch(Listing(limit=3, offset=6))
    assert [rows_of(page) for page in (first, second, third)] == [rows[:3], rows[3:6], rows[6:]]
    assert [page.has_more for page in (first, second, third)] == [True, True, False]


async def test_a_full_last_page_has_no_more(box: Box) -> None:
    await box.fill(3)
    assert not (await box.fetch(Listing(limit=3))).has_more


async def test_fetching_marks_read_by_the_same_statement(box: Box) -> None:
    rows = await box.fill(3)
    assert await box.unread() == 3
    page = await box.fetch(Listing(limit=2))
    assert [item.unread for item in page.items] == [True, True]
    assert await box.unread() == 1
    assert rows_of(await box.fetch(Listing(mark=Mark.UNREAD))) == rows[2:]
    again = await box.fetch(Listing(mark=Mark.READ))
    assert rows_of(again) == rows
    assert not any(item.unread for item in again.items)


async def test_since_leaves_out_what_was_accepted_before(box: Box) -> None:
    await box.put()
    box.turn(60)
    row = await box.put()
    (late,) = (await box.fetch(Listing(offset=1))).items
    assert rows_of(await box.fetch(Listing(since=late.accepted_at))) == [row]
    assert rows_of(await box.fetch(Listing(since=late.accepted_at + timedelta(milliseconds=1)))) == []


async def test_since_counts_from_when_a_message_came_into_the_inbox(box: Box) -> None:
    row = await box.put()
    box.turn(3600)
    await box.database.execute("update entries set delivered_at = amtp_now()")
    (item,) = (await box.fetch()).items
    assert item.delivered_at is not None
    assert item.delivered_at > item.accepted_at
    assert rows_of(await box.fetch(Listing(since=item.delivered_at))) == [row]


async def test_an_expired_entry_is_hidden(box: Box) -> None:
    await box.put(expires_seconds=10)
    kept = await box.put(expires_seconds=100)
    box.turn(11)
    assert await box.unread() == 1
    assert rows_of(await box.fetch()) == [kept]
    box.turn(100)
    assert (await box.take())[1] == []
    assert await inbox.with_unread(box.database, [box.agent]) == []


async def test_a_page_is_bounded_in_bytes_and_always_holds_a_message(box: Box) -> None:
    box.page_bytes = 120
    rows = [await box.put(body=b"x" * 60) for _ in range(3)]
    huge = await box.put(body=b"x" * 1000)
    first = await box.fetch()
    assert (rows_of(first), first.has_more) == (rows[:2], True)
    second = await box.fetch(Listing(after=rows[1]), Lease(30))
    assert (rows_of(second), second.has_more) == (rows[2:], True)
    third = await box.fetch(Listing(after=rows[2]))
    assert (rows_of(third), third.has_more) == ([huge], False)


async def test_a_page_of_dead_letters_is_bounded_in_bytes_too(box: Box) -> None:
    for size in (60, 60, 1000):
        await box.put(body=b"x" * size)
    for _ in range(2):
        await box.take()
        box.turn(31)
    await box.bury(lapses_max=2)
    numbers, after = [], 0
    for more in (True, False):
        page, has_more = await undigested(box.database, box.agent, after=after, limit=10, bytes_max=120)
        numbers.append([len(letter.body) for letter in page])
        after = page[-1].number
        assert has_more is more
    assert numbers == [[60, 60], [1000]]


async def test_what_a_byte_bound_left_out_stays_unread_and_free(box: Box) -> None:
    box.page_bytes = 10
    first, second = [await box.put(body=b"x" * 60) for _ in range(2)]
    assert (await box.take())[1] == [first]
    assert (await box.take())[1] == [second]


async def test_a_leased_entry_is_nobody_elses_to_see(box: Box) -> None:
    rows = await box.fill(3)
    _, taken = await box.take(limit=2)
    assert taken == rows[:2]
    assert rows_of(await box.fetch()) == rows[2:]
    assert (await box.take())[1] == rows[2:]
    assert (await box.take())[1] == []


async def test_a_lease_that_ends_gives_its_entries_back_unread(box: Box) -> None:
    rows = await box.fill(2)
    await box.take(seconds=30)
    assert await inbox.seconds_to_lease_end(box.database, box.agent) == pytest.approx(30, abs=5)
    assert await inbox.with_unread(box.database, [box.agent]) == []
    box.turn(31)
    assert await inbox.seconds_to_lease_end(box.database, box.agent) is None
    assert await inbox.with_unread(box.database, [box.agent]) == [box.agent]
    assert await box.unread() == 2
    page = await box.fetch(Listing(mark=Mark.UNREAD), Lease(30))
    assert rows_of(page) == rows
    assert [item.lapses for item in page.items] == [1, 1]


async def test_reading_what_a_lease_left_behind_counts_its_lapse_once(box: Box) -> None:
    await box.put()
    await box.take(seconds=30)
    box.turn(31)
    assert [item.lapses for item in (await box.fetch()).items] == [1]
    assert [item.lapses for item in (await box.fetch()).items] == [1]
    assert rows_of(await box.fetch(Listing(mark=Mark.UNREAD))) == []


async def test_a_lease_given_back_early_is_free_at_once_and_counts_no_lapse(box: Box) -> None:
    rows = await box.fill(2)
    lease, _ = await box.take()
    assert await inbox.give_back(box.database, box.agent, lease.token) == 2
    assert await inbox.give_back(box.database, box.agent, lease.token) == 0
    page = await box.fetch(Listing(mark=Mark.UNREAD), Lease(30))
    assert rows_of(page) == rows
    assert [item.lapses for item in page.items] == [0, 0]


async def test_a_renewed_lease_ends_later(box: Box) -> None:
    await box.fill(2)
    lease, _ = await box.take(seconds=30)
    box.turn(20)
    assert await inbox.renew(box.database, box.agent, lease.token, 30) == 2
    box.turn(20)
    assert (await box.take())[1] == []
    box.turn(11)
    assert await inbox.renew(box.database, box.agent, lease.token, 30) == 0
    assert len((await box.take())[1]) == 2


async def test_leasing_consumers_that_race_never_hold_the_same_message(box: Box) -> None:
    rows = await box.fill(60)

    async def consume() -> list[UUID]:
        held: list[UUID] = []
        while taken := (await box.take(limit=3))[1]:
            held += taken
        return held

    everyone = await asyncio.gather(*(consume() for _ in range(6)))
    assert sorted(row for held in everyone for row in held) == rows


async def test_readers_consumers_and_acknowledgements_race_without_an_error(box: Box) -> None:
    rows = await box.fill(40)
    names = [str(row) for row in rows]

    async def consume() -> None:
        while (taken := await box.take(limit=4))[1]:
            await box.acknowledge(*(str(row) for row in reversed(taken[1])), lease=taken[0])

    async def look() -> None:
        for _ in range(10):
            await box.fetch()

    await asyncio.gather(
        consume(), look(), consume(), look(), box.acknowledge(*reversed(names)), box.acknowledge(*names)
    )
    assert (await box.fetch()).items == ()


async def test_an_acknowledged_entry_is_gone_and_acknowledging_again_is_as_good(box: Box) -> None:
    row = await box.put()
    (first,) = await box.acknowledge(str(row))
    box.turn(5)
    (again,) = await box.acknowledge(str(row))
    assert first.result is again.result is Result.ACKNOWLEDGED
    assert first.row == row
    assert (again.at, again.again, first.again) == (first.at, True, False)
    assert first.sender == "bob@acme.test"
    assert (await box.fetch()).items == ()


async def test_many_are_acknowledged_at_once_each_with_its_result_in_order(box: Box) -> None:
    row = await box.put()
    await box.put("order-1")
    results = await box.acknowledge("nothing", "order-1", str(row), "order-1", str(UUID(int=7)))
    assert results_of(results) == [
        Result.UNKNOWN,
        Result.ACKNOWLEDGED,
        Result.ACKNOWLEDGED,
        Result.ACKNOWLEDGED,
        Result.UNKNOWN,
    ]
    assert (await box.fetch()).items == ()


async def test_a_row_is_no_public_id_where_the_sender_gave_one(box: Box) -> None:
    row = await box.put("order-1")
    assert results_of(await box.acknowledge(str(row))) == [Result.UNKNOWN]


async def test_of_two_with_one_id_the_one_handed_out_first_is_meant_then_the_other(box: Box) -> None:
    first = await box.put("twin", sender="bob@acme.test")
    await box.fetch()
    second = await box.put("twin", sender="eve@evil.test")
    (meant,) = await box.acknowledge("twin")
    assert meant.row == first
    (again,) = await box.acknowledge("twin")
    assert again.row == first, "the other has not been handed out, so it can't be meant"
    await box.fetch()
    (other,) = await box.acknowledge("twin")
    assert other.row == second


async def test_an_id_named_twice_means_both_that_were_handed_out(box: Box) -> None:
    rows = [await box.put("twin", sender=f"{name}@acme.test") for name in ("bob", "carol")]
    await box.fetch()
    results = await box.acknowledge("twin", "twin", "twin")
    assert [each.row for each in results] == [rows[0], rows[1], rows[1]]


async def test_the_sender_chooses_between_two_with_one_id(box: Box) -> None:
    await box.put("twin", sender="bob@acme.test")
    second = await box.put("twin", sender="eve@evil.test")
    await box.fetch()
    (meant,) = await box.acknowledge(EntryName("twin", "eve@evil.test"))
    assert meant.row == second
    assert results_of(await box.acknowledge(EntryName("twin", "dan@acme.test"))) == [Result.UNKNOWN]


async def test_the_lease_chooses_between_two_with_one_id(box: Box) -> None:
    rows = [await box.put("twin", sender=f"{name}@acme.test") for name in ("bob", "carol")]
    leases = [(await box.take(limit=1))[0] for _ in rows]
    (meant,) = await box.acknowledge("twin", lease=leases[1])
    assert meant.row == rows[1]


async def test_a_lease_that_ended_is_too_late_once_another_holds_the_entry(box: Box) -> None:
    row = await box.put()
    stale, _ = await box.take(seconds=30)
    box.turn(31)
    holder, _ = await box.take(seconds=30)
    assert results_of(await box.acknowledge(str(row), lease=stale)) == [Result.TAKEN]
    assert results_of(await box.acknowledge(str(row), lease=holder)) == [Result.ACKNOWLEDGED]
    assert results_of(await box.acknowledge(str(row), lease=stale)) == [Result.ACKNOWLEDGED]


async def test_a_lease_that_ended_still_counts_while_nobody_else_took_the_entry(box: Box) -> None:
    row = await box.put()
    stale, _ = await box.take(seconds=30)
    box.turn(31)
    assert results_of(await box.acknowledge(str(row), lease=stale)) == [Result.ACKNOWLEDGED]


async def wear_out(box: Box) -> None:
    """Lets the lease of whatever lies there run out as often as it may."""
    for _ in range(LAPSES_MAX):
        assert await box.bury() == []
        assert len((await box.take(seconds=30))[1]) == 1
        box.turn(31)


async def test_the_last_lapse_makes_the_entry_its_agents_own_dead_letter(box: Box) -> None:
    row = await box.put("poison")
    await wear_out(box)
    assert (await box.take())[1] == []
    assert (await box.fetch()).items == ()
    assert await box.bury() == [Buried(box.name, "poison", LAPSES_MAX, row, "bob@acme.test")]
    assert "poisoned" in box.log.getvalue()
    assert await box.bury() == []
    (letter,) = await box.undigested()
    assert (letter.row, letter.attempts) == (row, LAPSES_MAX)
    assert "10 times" in letter.reason
    assert letter.first_attempt is not None
    assert letter.last_attempt is not None
    assert letter.first_attempt < letter.last_attempt <= letter.at


async def test_a_dead_letter_that_is_revived_starts_anew(box: Box) -> None:
    row = await box.put()
    await wear_out(box)
    await box.bury()
    (letter,) = await box.undigested()
    assert await revive(box.database, box.agent, letter.number)
    assert not await revive(box.database, box.agent, letter.number)
    assert await box.undigested() == []
    page = await box.fetch(Listing(mark=Mark.UNREAD))
    assert [(item.row, item.lapses) for item in page.items] == [(row, 0)]


async def test_a_dead_letter_that_is_dropped_counts_as_acknowledged(box: Box) -> None:
    row = await box.put()
    await wear_out(box)
    await box.bury()
    (letter,) = await box.undigested()
    assert not await drop(box.database, box.agent + 1, letter.number)
    assert await drop(box.database, box.agent, letter.number)
    assert not await drop(box.database, box.agent, letter.number)
    assert await box.undigested() == []
    assert results_of(await box.acknowledge(str(row))) == [Result.ACKNOWLEDGED]
    assert (await box.fetch()).items == ()


async def test_acknowledging_a_dead_letter_closes_it(box: Box) -> None:
    row = await box.put()
    await wear_out(box)
    await box.bury()
    assert results_of(await box.acknowledge(str(row))) == [Result.ACKNOWLEDGED]
    assert await box.undigested() == []


# What consumers and time may do to an inbox. Times lie far apart: how long the test takes does not matter.
STEPS = st.one_of(
    st.tuples(st.just("put"), st.just(0)),
    st.tuples(st.just("take for 100"), st.integers(1, 3)),
    st.tuples(st.just("take for 300"), st.integers(1, 3)),
    st.tuples(st.just("turn"), st.sampled_from([60, 200])),
    st.tuples(st.just("acknowledge"), st.integers(0, 5)),
    st.tuples(st.just("give back"), st.integers(0, 5)),
    st.tuples(st.just("bury"), st.just(0)),
)


@dataclass
class Model:
    """Who holds what, as it should be."""

    now: float = 0.0
    lapses: dict[UUID, int] = field(default_factory=dict)  # of the open entries, oldest first
    held: dict[UUID, tuple[Lease, float]] = field(default_factory=dict)
    ran_out: dict[UUID, float] = field(
        default_factory=dict
    )  # when the lease of each ended that nobody took since

    def free(self) -> list[UUID]:
        return [row for row in sorted(self.lapses) if row not in self.held and self.lapses[row] < 3]

    def next(self, number: int) -> list[UUID]:
        """What a lease of at most so many is for: a suspect alone, else what ran out before the others."""
        lapsed = sorted((until, row) for row, until in self.ran_out.items() if self.lapses[row] < 3)
        suspects = sorted(row for _, row in lapsed if self.lapses[row] == 2)
        suspects += [row for row in self.free() if self.lapses[row] == 2 and row not in self.ran_out]
        if suspects:
            return suspects[:1]
        others = [row for row in self.free() if row not in self.ran_out]
        return sorted(([row for _, row in lapsed] + others)[:number])

    def turn(self, seconds: float) -> None:
        self.now += seconds
        for row, (_, until) in list(self.held.items()):
            if until <= self.now:
                del self.held[row]
                self.lapses[row] += 1
                self.ran_out[row] = until


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, max_size=30))
async def test_every_message_is_with_one_leaseholder_until_it_is_acknowledged_free_or_dead(
    box: Box, steps: list[tuple[str, int]]
) -> None:
    await box.database.execute("delete from entries")
    model = Model()
    for step, number in steps:
        await take_step(box, model, step, number)
    page = await inbox.fetch(box.database, box.agent, Listing(limit=1000), lapses_max=3)
    assert rows_of(page) == model.free()


async def take_step(box: Box, model: Model, step: str, number: int) -> None:
    match step.split(" for "):
        case ["put"]:
            model.lapses[await box.put()] = 0
        case ["take", seconds]:
            lease, expected = Lease(float(seconds)), model.next(number)
            page = await inbox.fetch(
                box.database, box.agent, Listing(limit=number), lapses_max=3, lease=lease
            )
            assert rows_of(page) == expected
            assert [item.lapses for item in page.items] == [model.lapses[row] for row in expected]
            model.held |= dict.fromkeys(expected, (lease, model.now + lease.seconds))
            for row in expected:
                model.ran_out.pop(row, None)
        case ["turn"]:
            box.turn(number)
            model.turn(number)
        case ["acknowledge"]:
            for row in list(model.held)[number : number + 1]:
                lease, _ = model.held.pop(row)
                assert results_of(await box.acknowledge(str(row), lease=lease)) == [Result.ACKNOWLEDGED]
                del model.lapses[row]
        case ["give back"]:
            for lease, _ in list(model.held.values())[number : number + 1]:
                rows = [row for row, (holder, _) in model.held.items() if holder is lease]
                assert await inbox.give_back(box.database, box.agent, lease.token) == len(rows)
                for row in rows:
                    del model.held[row]
        case ["bury"]:
            worn = [row for row, lapses in model.lapses.items() if lapses == 3 and row not in model.held]
            buried = await box.bury(3)
            assert sorted(each.message_id for each in buried) == sorted(map(str, worn))
            for row in worn:
                del model.lapses[row], model.ran_out[row]
