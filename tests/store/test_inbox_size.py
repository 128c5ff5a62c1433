"""Looks at an inbox touch what they hand out, whatever else lies in it, and whenever their plans were made."""

import io
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

import pytest

from gateway.journal.journal import Journal
from gateway.store.clock import Clock
from gateway.store.inbox import inbox
from gateway.store.inbox.inbox import Lease, Listing, Mark
from gateway.store.inbox.poison import bury
from gateway.store.row_ids import Mint
from tests.store.crowd import Single
from tests.store.house import House

MANY = 20_000
BLOCKS_MAX = 180  # a page of ten costs some dozens; all of the entries fill more than 250
LAPSES_MAX = 10

FILL = """
with m as (
    insert into messages (id, sender, proven, body, accepted_at)
    select u, 'bob@acme.test', true, '{{"payload": null}}', amtp_now() from unnest($2::uuid[]) as u
)
insert into entries (message, agent, {columns}) select u, $1, {values} from unnest($2::uuid[]) as u
"""
FILLED = {
    "read": ("read_at", "amtp_now()"),
    "leased": (
        "read_at, lease_until, lease_token",
        "amtp_now(), amtp_now() + interval '1 day', gen_random_uuid()",
    ),
    "lapsed": (
        "read_at, lease_until, lease_token",
        "amtp_now(), amtp_now() - interval '1 s', gen_random_uuid()",
    ),
    "unread": ("address", "null"),
}


class Box:
    """An inbox on one connection, which counts the blocks that each look touches."""

    def __init__(self, database: Single, mint: Mint, agent: int) -> None:
        self.database, self.mint, self.agent = database, mint, agent

    async def fill(self, state: str, count: int = MANY) -> list[UUID]:
        rows = [self.mint() for _ in range(count)]
        columns, values = FILLED[state]
        await self.database.execute(FILL.format(columns=columns, values=values), self.agent, rows)
        return rows

    async def looks(self) -> dict[str, Callable[[], Awaitable[object]]]:
        def page(mark: Mark | None = None, lease: Lease | None = None) -> Callable[[], Awaitable[object]]:
            listing = Listing(limit=10, mark=mark)
            return lambda: inbox.fetch(self.database, self.agent, listing, lapses_max=LAPSES_MAX, lease=lease)

        return {
            "a page": page(),
            "a page of what is unread": page(Mark.UNREAD),
            "a page of what is read": page(Mark.READ),
            "a leased page": page(lease=Lease(60)),
            "a leased page of what is unread": page(Mark.UNREAD, Lease(60)),
            "the number of what is unread": lambda: inbox.unread(
                self.database, self.agent, lapses_max=LAPSES_MAX
            ),
            "the poll": lambda: inbox.with_unread(self.database, [self.agent]),
            "the end of the next lease": lambda: inbox.seconds_to_lease_end(self.database, self.agent),
            "the look for poison": lambda: bury(self.database, Journal(io.StringIO()), lapses_max=LAPSES_MAX),
        }

    async def touched(self) -> dict[str, int]:
        """Blocks by look. Each was planned, and kept its plan, while the tables were empty."""
        found = {}
        for name, look in (await self.looks()).items():
            found[name] = (await self.database.blocks(look)).get("entries", 0)
        return found


@pytest.fixture
async def box(dsn: str, clock: Clock, mint: Mint) -> AsyncIterator[Box]:
    database = Single(dsn, clock=clock)
    await database.begin()
    opened = Box(database, mint, await House(database, mint, clock).agent("alice"))
    for _ in range(6):
        await opened.touched()
    yield opened
    await database.close()


@pytest.mark.parametrize("state", FILLED)
async def test_a_look_does_not_walk_through_what_it_does_not_hand_out(box: Box, state: str) -> None:
    await box.fill(state)
    new = await box.fill("unread", 5)
    touched = await box.touched()
    assert {name: count for name, count in touched.items() if count > BLOCKS_MAX} == {}
    assert len(new) == 5
