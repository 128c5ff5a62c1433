"""The queue as a state machine: whatever is done to it, in whatever order, each recipient ends once and nobody is lost.

The model is a dictionary; the queue is the real one, in a real Postgres. Time is turned by hand. It goes on a little
while a step runs, so what falls due within MARGIN of now may count as due or not.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway.store import partitions, tallies
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.queue.deliveries import CLAIM_MAX, Delivery, claim, claim_expired, hand_back
from gateway.store.queue.settle import Settlement, settle
from gateway.store.row_ids import Mint
from tests.conftest import Server
from tests.store.house import House

T = TypeVar("T")
LEASE_SECONDS = 30.0
LIFE = timedelta(days=7)  # as House sends
MARGIN = timedelta(seconds=3)
FIRST_AGENT = 100
TABLES = ("messages", "entries", "deliveries", "settled", "attempts", "dead_letters", "events", "tallies")
DESTINATIONS = ("a.test", "b.test", "c.test")

Key = tuple[UUID, str]  # a message and one of its recipients

outcomes = st.sampled_from(["delivered", "failed", "expired", "again", "inbox"])


@dataclass
class Slot:
    """What the queue should know of one recipient."""

    due: datetime
    expires_at: datetime
    attempts: int = 0
    token: int | None = None
    ended: str | None = None


class QueueMachine(RuleBasedStateMachine):
    """`play` gives it the database; every game begins with an empty one."""

    _loop: asyncio.AbstractEventLoop
    database: Database
    clock: Clock

    def __init__(self) -> None:
        super().__init__()
        self.slots: dict[Key, Slot] = {}
        self.taken: list[Delivery] = []  # under any lease there ever was
        self.tokens = 0
        self.clock.offset = timedelta(0)
        self.mint = Mint(self.clock)
        self.house = House(self.database, self.mint, self.clock)
        for table in TABLES:
            self._do(self.database.execute(f"delete from {table}"))

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    def _token(self) -> int:
        self.tokens += 1
        return self.tokens

    @rule(
        recipients=st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True),
        here=st.booleans(),
        seconds=st.sampled_from([0, 0, 0, 60, 7200]),
    )
    def accept(self, recipients: list[int], here: bool, seconds: int) -> None:
        names = [f"r{n}@{DESTINATIONS[n % len(DESTINATIONS)]}" for n in recipients]
        now = self.clock.now()
        row = self._do(self.house.send(*names, to=[1] if here else [], due=seconds))
        for name in names:
            self.slots[row, name] = Slot(now + timedelta(seconds=seconds), now + LIFE)
        if here:
            self.slots[row, "entry of 1"] = Slot(now, now, ended="inbox")

    @rule(closed=st.sets(st.sampled_from(DESTINATIONS), max_size=1), limit=st.sampled_from([1, 3, CLAIM_MAX]))
    def claim(self, closed: set[str], limit: int) -> None:
        token, now = self._token(), self.clock.now()
        claimed = self._do(
            claim(
                self.database,
                shut=closed,
                per_destination=CLAIM_MAX,
                limit=limit,
                lease_seconds=LEASE_SECONDS,
                token=token,
            )
        ).deliveries
        open_ = {
            key: slot for key, slot in self.slots.items() if not slot.ended and _domain(key) not in closed
        }
        may = {key for key, slot in open_.items() if slot.due <= now + MARGIN}
        must = {key for key, slot in open_.items() if slot.due <= now - MARGIN}
        found = {(delivery.message, delivery.recipient) for delivery in claimed}
        assert len(found) == len(claimed) <= limit
        assert found <= may
        assert must <= found or len(found) == limit
        self._lease(claimed, token, now, attempt=True)

    @rule()
    def expire(self) -> None:
        token, now = self._token(), self.clock.now()
        over = self._do(
            claim_expired(self.database, limit=CLAIM_MAX, lease_seconds=LEASE_SECONDS, token=token)
        )
        free = {k: s for k, s in self.slots.items() if not s.ended and s.expires_at <= now + MARGIN}
        may = {key for key, slot in free.items() if slot.token is None or slot.due <= now + MARGIN}
        must = {key for key in may if free[key].token is None and free[key].expires_at <= now - MARGIN}
        assert must <= {(delivery.message, delivery.recipient) for delivery in over} <= may
        self._lease(over, token, now, attempt=False)
        self._settle([(delivery, "expired") for delivery in over])

    def _lease(self, claimed: Sequence[Delivery], token: int, now: datetime, *, attempt: bool) -> None:
        for delivery in claimed:
            slot = self.slots[delivery.message, delivery.recipient]
            slot.attempts += attempt
            slot.due, slot.token = now + timedelta(seconds=LEASE_SECONDS), token
            assert (delivery.token, delivery.attempts) == (token, slot.attempts)
            self.taken.append(delivery)

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """Workers come back, in time or late, several in one batch, also with the same delivery under other leases."""
        self._settle(data.draw(self._outcomes(), label="settled"))

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def crash_while_settling(self, data: st.DataObject) -> None:
        self._write(data.draw(self._outcomes(), label="settled in vain"), commit=False)

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def hand_back(self, data: st.DataObject) -> None:
        delivery = data.draw(st.sampled_from(self.taken[-8:]), label="handed back")
        now = self.clock.now()
        done = self._do(hand_back(self.database, [delivery]))
        assert done == self._holds(delivery)
        if done:
            slot = self.slots[delivery.message, delivery.recipient]
            slot.due, slot.token, slot.attempts = delivery.due or now, None, slot.attempts - 1

    def _outcomes(self) -> st.SearchStrategy[list[tuple[Delivery, str]]]:
        one = st.tuples(st.sampled_from(self.taken[-8:]), outcomes)
        return st.lists(one, min_size=1, max_size=4, unique_by=_lease_of)

    def _holds(self, delivery: Delivery) -> bool:
        slot = self.slots[_key(delivery)]
        return slot.ended is None and slot.token == delivery.token

    def _settle(self, batch: Sequence[tuple[Delivery, str]]) -> None:
        effective = [pair for pair in batch if self._holds(pair[0])]
        kept = self._write(batch, commit=True)
        assert {(s.message, s.recipient, s.token) for s in kept} == {
            (*_key(delivery), delivery.token) for delivery, _ in effective
        }
        for delivery, outcome in effective:
            slot = self.slots[_key(delivery)]
            slot.token = None
            if outcome == "again":
                slot.due = self.clock.now() + timedelta(seconds=60)
            else:
                slot.ended = outcome

    def _write(self, batch: Sequence[tuple[Delivery, str]], *, commit: bool) -> list[Settlement]:
        async def transact() -> list[Settlement]:
            async with self.database.connection() as connection:
                transaction = connection.transaction()
                await transaction.start()
                kept = await settle(connection, self.mint, [self._settlement(*pair) for pair in batch])
                await (transaction.commit() if commit else transaction.rollback())
                return kept

        return self._do(transact())

    def _settlement(self, delivery: Delivery, outcome: str) -> Settlement:
        agent = FIRST_AGENT + int(delivery.recipient[1])
        again = self.clock.now() + timedelta(seconds=60)
        trouble = {"code": "RECIPIENT_UNAVAILABLE", "error": "Nobody there."}
        said: dict[str, dict[str, Any]] = {
            "delivered": {"status": "delivered"},
            "failed": {"status": "failed", "dead_letter": True, **trouble},
            "expired": {"status": "expired", **trouble},
            "again": {"due": again, **trouble},
            "inbox": {"agent": agent},
        }
        return Settlement(
            delivery.message,
            delivery.recipient,
            delivery.address,
            delivery.token,
            delivery.attempts,
            delivery.first_attempt,
            **said[outcome],
        )

    @precondition(lambda self: self.slots)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(sorted({row for row, _ in self.slots})[-5:]), label="cancelled")
        now = self.clock.now()
        done = self._do(self.house.cancel(row))
        for name in done.cancelled:
            slot = self.slots[row, name]
            assert slot.ended is None
            assert slot.token is None or slot.due <= now + MARGIN
            slot.ended = "cancelled"
        for name in done.under_way:
            slot = self.slots[row, name]
            assert slot.ended is None
            assert slot.token is not None

    @rule(seconds=st.sampled_from([10, 45, 3600, 10_000, 8 * 86_400]))
    def turn(self, seconds: int) -> None:
        self.clock.offset += timedelta(seconds=seconds)
        self._do(partitions.keep_ahead(self.database))

    @rule()
    def fold_the_tallies(self) -> None:
        self._do(tallies.fold(self.database))

    @invariant()
    def accepted_is_finished_and_live(self) -> None:
        counted = self._do(tallies.balance(self.database))
        live = sum(slot.ended is None for slot in self.slots.values())
        assert counted.unaccounted == 0
        assert (counted.accepted, counted.queued) == (len(self.slots), live)
        assert self._do(tallies.unaccounted_entries(self.database)) == 0

    @invariant()
    def each_recipient_stands_in_one_place_with_one_status(self) -> None:
        rows = self._do(
            self.database.fetch(
                "select message, recipient, null as status from deliveries"
                " union all select message, recipient, status from settled"
                " union all select message, agent::text, 'inbox' from entries"
            )
        )
        expected = [(row, self._place(name, slot), slot.ended) for (row, name), slot in self.slots.items()]
        assert sorted(map(str, map(tuple, rows))) == sorted(map(str, expected))

    def _place(self, name: str, slot: Slot) -> str:
        if slot.ended != "inbox":
            return name
        return "1" if name == "entry of 1" else str(FIRST_AGENT + int(name[1]))


def play(server: Server, how: settings) -> None:
    """Many games on one database of their own."""
    with asyncio.Runner() as runner:
        dsn = runner.run(server.create())
        clock = Clock()
        database = Database(dsn, clock=clock, pool_size=1)
        runner.run(database.open())
        attributes = {"_loop": runner.get_loop(), "database": database, "clock": clock}
        try:
            run_state_machine_as_test(type("QueueMachine", (QueueMachine,), attributes), settings=how)
        finally:
            runner.run(database.close())
            runner.run(server.drop(dsn))


def _key(delivery: Delivery) -> Key:
    return delivery.message, delivery.recipient


def _lease_of(pair: tuple[Delivery, str]) -> tuple[UUID, str, int]:
    return (*_key(pair[0]), pair[0].token)


def _domain(key: Key) -> str:
    return key[1].partition("@")[2]
