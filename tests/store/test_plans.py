"""Each hot statement is planned while the tables are empty, keeps that plan, and must not read whole tables later.

Postgres makes one plan for a prepared statement and keeps it until the next ANALYZE: a gateway that was started
with an empty queue meets a flood with the plans of an empty queue. What is held to a bound here is the number of
blocks a statement reads, not its time. A new statement of the hot path gets a line in `HOT`.
"""

import asyncio
import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from gateway.features.notifications import notices
from gateway.features.notifications import retention as notices_retention
from gateway.features.notifications.events import CHALLENGE
from gateway.features.schedules.schedules import Schedule, Schedules
from gateway.journal.journal import Journal
from gateway.protocol.message import parse_message
from gateway.store.admitted import Admitted, Queued
from gateway.store.audit import Audit
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.inbox import inbox
from gateway.store.intake import owed_receipts as receipts
from gateway.store.intake.insertion import insert_unseen
from gateway.store.intake.uniqueness import hashes_of, wanted_of
from gateway.store.messages import messages
from gateway.store.queue import deliveries, destinations
from gateway.store.queue.deliveries import CLAIM_MAX
from gateway.store.queue.settle import Settlement, settle
from gateway.store.row_ids import Mint
from gateway.store.wakeups.bell import Bell
from gateway.store.wakeups.replies import Replies, ReplyQuestion
from tests.store.crowd import DEAD, LIVE, Crowd, Single
from tests.store.house import House

TOKEN = 7
ROW = 12  # blocks for each row that is found by its key, changed, and entered into the indexes
JUMP = 6  # blocks from one destination to the next in the index

Act = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Hot:
    """A statement. `ready` brings about what it works on, and returns the statement itself."""

    ready: Callable[[Crowd], Awaitable[Act]]
    blocks_max: int


def plain(call: Callable[[Crowd], Awaitable[object]]) -> Callable[[Crowd], Awaitable[Act]]:
    """A statement that needs nothing beforehand."""

    async def ready(crowd: Crowd) -> Act:
        return partial(call, crowd)

    return ready


async def claim(crowd: Crowd, token: int = TOKEN) -> list[deliveries.Delivery]:
    claimed = await deliveries.claim(
        crowd.database,
        shut=crowd.dead,
        per_destination=128,
        limit=CLAIM_MAX,
        lease_seconds=60,
        token=token,
    )
    return claimed.deliveries


async def leased(crowd: Crowd) -> list[deliveries.Delivery]:
    """Those of the live destination, or rows that are not there."""
    await crowd.database.execute(
        "update deliveries set token = null, due = amtp_now() - interval '1 second' where destination = $1",
        LIVE,
    )
    return await claim(crowd) or [_nobody() for _ in range(8)]


def _nobody() -> deliveries.Delivery:
    now = Clock().now()
    return deliveries.Delivery(uuid4(), "b@x.test", "b@x.test", "x.test", TOKEN, 1, now, now, "horizon", now)


async def handing_back(crowd: Crowd) -> Act:
    rows = await leased(crowd)
    return lambda: deliveries.hand_back(crowd.database, rows)


async def letters(crowd: Crowd) -> Act:
    rows = {delivery.message for delivery in await leased(crowd)}
    return lambda: deliveries.letters(crowd.database, rows)


async def settling(crowd: Crowd, **outcome: Any) -> Act:
    rows = [
        Settlement(one.message, one.recipient, one.address, TOKEN, 1, None, **outcome)
        for one in await leased(crowd)
    ][:128]

    async def write() -> None:
        async with crowd.database.transaction() as connection:
            await settle(connection, crowd.mint, rows)

    return write


async def answered(crowd: Crowd) -> Act:
    asked = [
        ReplyQuestion(row, str(row), agent, "alice@acme.test", ("bob@acme.test",), live=False)
        for row, agent in zip(crowd.asked or [crowd.mint()], crowd.agents or [1], strict=True)
    ]

    async def provable() -> frozenset[str]:
        return frozenset({"peer.test"})

    found = Replies(crowd.database, Bell(crowd.database, Journal(io.StringIO())), provable)

    async def look() -> None:
        running = asyncio.create_task(found.run())
        await asyncio.gather(*(found.wait(each, 0, asyncio.Event()) for each in asked))
        running.cancel()

    return look


async def states(crowd: Crowd) -> Act:
    rows = {delivery.message for delivery in await leased(crowd)}
    return lambda: messages.states(crowd.database, rows)


async def claim_notices(crowd: Crowd) -> list[notices.DueNotice]:
    return await notices.claim(
        crowd.database, closed=(), per_target=8, limit=128, lease_seconds=60, token=TOKEN
    )


async def telling(crowd: Crowd) -> Act:
    tried = [notices.Tried(due, told=True) for due in await claim_notices(crowd)]
    return lambda: notices.settle(crowd.database, tried or [notices.Tried(_no_notice(), told=True)])


def _no_notice() -> notices.DueNotice:
    now = Clock().now()
    return notices.DueNotice(uuid4(), uuid4(), CHALLENGE, b"", now, TOKEN, 1, "", "", (), shaky=False)


async def expired(crowd: Crowd) -> object:
    return await deliveries.claim_expired(crowd.database, limit=CLAIM_MAX, lease_seconds=60, token=TOKEN)


async def owed(crowd: Crowd) -> object:
    async def none(_due: receipts.DueReceipt) -> list[Admitted]:
        return []

    return await receipts.send_owed(crowd.database, crowd.mint, none)


async def ticks(crowd: Crowd) -> object:
    async def unknown(_schedule: Schedule) -> None:
        return None

    register = Schedules(crowd.database, crowd.mint, Audit(crowd.mint()), per_agent_max=lambda: 1)
    return await register.fire(unknown)


async def accepting(crowd: Crowd) -> Act:
    now = crowd.house.clock.now()
    body = {"version": "1.0", "sender": "a@acme.test", "recipients": ["b@far.test"], "payload": None}

    def admitted() -> Admitted:
        key = {**body, "idempotency_key": str(uuid4())}
        message = parse_message(msgspec.json.encode(key), row=crowd.mint(), now=now, local=True)
        queued = Queued("b@far.test", "b@far.test", "far.test", now, now + timedelta(days=7), "horizon")
        return Admitted(message, proven=True, deliveries=(queued,))

    async def write() -> None:
        new = [admitted() for _ in range(64)]
        wanted = wanted_of([(one, hashes_of(one)) for one in new])
        async with crowd.database.connection() as connection:
            assert await insert_unseen(connection, crowd.mint(), new, (), wanted)

    return write


async def haste(crowd: Crowd) -> object:
    return await destinations.hasten(
        crowd.database, crowd.dead[0], before=crowd.house.clock.now(), at_once=True, limit=32
    )


HOT = {
    "the claim of what is due": Hot(plain(claim), DEAD * JUMP + CLAIM_MAX * ROW),
    "the claim of what expired": Hot(plain(expired), 50),
    "what is handed back": Hot(handing_back, CLAIM_MAX * 2 * ROW),
    "the letters of a claim": Hot(letters, CLAIM_MAX * (ROW + 1)),
    "a settlement of delivered ones": Hot(partial(settling, status="delivered"), 128 * 2 * ROW),
    "the states of messages": Hot(states, CLAIM_MAX * 2 * ROW),
    "what is accepted": Hot(accepting, 64 * 2 * ROW),
    "destinations in trouble": Hot(plain(lambda c: destinations.troubled(c.database)), DEAD * JUMP),
    "mail that an outage made wait": Hot(plain(haste), 32 * ROW),
    "inboxes with something unread": Hot(plain(lambda c: inbox.with_unread(c.database, c.agents)), 200 * ROW),
    "replies that are waited for": Hot(answered, 200 * 2 * ROW),
    "the claim of notices": Hot(plain(claim_notices), 200 * JUMP * 2 + 128 * ROW),
    "the settlement of notices": Hot(telling, 128 * 2 * ROW),
    "notices that are given up": Hot(plain(lambda c: notices_retention.give_up(c.database)), 200 * 8),
    "schedules that are due": Hot(plain(ticks), 50 * ROW),
    "receipts that are owed": Hot(plain(owed), receipts.AT_ONCE * 2 * ROW),
}


@pytest.fixture
async def crowd(dsn: str, clock: Clock, mint: Mint) -> Any:
    database = Single(dsn, clock=clock)
    await database.begin()
    yield Crowd(House(database, mint, clock))
    await database.close()


async def test_plans_made_for_empty_tables_read_few_blocks_of_full_ones(crowd: Crowd) -> None:
    database = crowd.database
    assert isinstance(database, Single)
    for hot in HOT.values():
        act = await hot.ready(crowd)
        for _ in range(6):  # from the sixth time on a plan is kept, whatever it is asked with
            await act()
    await crowd.fill()
    found = {}
    for name, hot in HOT.items():
        act = await hot.ready(crowd)
        read = await database.blocks(act)
        found[name] = (sum(read.values()), hot.blocks_max, read)
        print(f"{sum(read.values()):8} of {hot.blocks_max:6}  {name}")
    assert not {name: one for name, one in found.items() if one[0] > one[1]}


async def test_a_writer_does_not_plan_a_small_batch_anew(database: Database, mint: Mint) -> None:
    """Planning the settlement of a few deliveries takes several times as long as writing it."""
    line = await database.line(rings=True)
    for count in range(1, 9):
        nobody = [_nobody() for _ in range(count)]
        async with line.transaction():
            await settle(
                line,
                mint,
                [
                    Settlement(one.message, one.recipient, one.address, TOKEN, 1, None, status="delivered")
                    for one in nobody
                ],
            )
    planned = await line.fetch(
        "select custom_plans from pg_prepared_statements where statement like '%settled%'"
    )
    await line.close()
    assert {row["custom_plans"] for row in planned} == {0}
