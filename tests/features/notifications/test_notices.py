"""Notices in the store: claimed under leases, written down with how they went, kept for a while, and forgotten."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from gateway.features.notifications import notices
from gateway.features.notifications import retention as notices_retention
from gateway.features.notifications.events import Subscriber
from gateway.features.notifications.health import disable, failing, warn
from gateway.features.notifications.leaving import WebhookLeaving
from gateway.features.notifications.notices import FAILURES_MAX, DueNotice, Notice, Tried
from gateway.features.notifications.subscriptions import (
    KEPT_DAYS,
    OWN_MAX,
    Change,
    NewSubscription,
    Subscriptions,
    subscribers,
)
from gateway.protocol.errors import AMTPError
from gateway.store.agents.agents import Agents, Profile
from gateway.store.agents.keys import NewKey
from gateway.store.audit import Audit
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.row_ids import Mint

HOUR = 3600
DAY = 24 * HOUR


@dataclass
class Desk:
    """A store with subscriptions, and a process that tells them."""

    database: Database
    clock: Clock
    mint: Mint

    @property
    def register(self) -> Subscriptions:
        return Subscriptions(self.database, Audit(self.mint()))

    async def subscribe(self, owner: str | None = None, *, active: bool = True) -> UUID:
        number = self.mint()
        new = NewSubscription(number, owner, "https://hooks.test/", (), (), None, "abc", b"sealed")
        await self.register.add(new, b"{}", "tests")
        if active:
            (challenge,) = [due for due in await self.claim() if due.subscription == number]
            await self.tell(challenge)
        return number

    async def notice(self, subscription: UUID, event: str = "message.failed") -> UUID:
        identity = uuid4()
        async with self.database.transaction() as connection:
            await Notice.write(connection, [Notice(identity, subscription, event, b"{}")])
        return identity

    async def claim(
        self, closed: Sequence[UUID] = (), per_target: int = 100, token: int = 7
    ) -> list[DueNotice]:
        return await notices.claim(
            self.database, closed=closed, per_target=per_target, limit=100, lease_seconds=30, token=token
        )

    async def tell(self, *taken: DueNotice) -> None:
        kept, _ = await notices.settle(self.database, [Tried(due, told=True, status=200) for due in taken])
        assert len(kept) == len(taken)

    async def fail(self, *refused: DueNotice, after: float | None = 1) -> list[UUID]:
        again = None if after is None else self.clock.now() + timedelta(seconds=after)
        tries = [Tried(due, False, again, 500, "The target answered 500.") for due in refused]
        return (await notices.settle(self.database, tries))[1]

    async def count(self, table: str) -> int:
        found: int = await self.database.fetchval(f"select count(*) from {table}")
        return found

    def turn(self, seconds: float) -> None:
        self.clock.offset += timedelta(seconds=seconds)


@pytest.fixture
def desk(database: Database, clock: Clock, mint: Mint) -> Desk:
    return Desk(database, clock, mint)


async def test_a_pending_subscription_gets_its_challenge_alone_and_hears_of_nothing(desk: Desk) -> None:
    number = await desk.subscribe(active=False)
    await desk.notice(number)
    (due,) = await desk.claim()
    assert (due.event, due.challenge, due.attempts) == ("challenge", "abc", 1)
    assert (await subscribers(desk.database))[1] == []
    before, _ = await subscribers(desk.database)
    await desk.tell(due)
    after, found = await subscribers(desk.database)
    assert found == [Subscriber(number, None)]
    assert after > before


async def test_an_answer_to_the_challenge_of_before_proves_nothing(desk: Desk) -> None:
    number = await desk.subscribe(active=False)
    (due,) = await desk.claim()
    moved = Change(url="https://elsewhere.test/", challenge="def")
    await desk.register.change(number, None, moved, b"{}", "tests")
    await notices.settle(desk.database, [Tried(due, told=True)])
    assert (await desk.register.get(number, None)).status == "pending"


async def test_what_waits_is_claimed_oldest_first_a_window_for_each_target(desk: Desk) -> None:
    one, other = await desk.subscribe(), await desk.subscribe()
    ids = [await desk.notice(one) for _ in range(3)]
    await desk.notice(other)
    first = await desk.claim(per_target=2)
    assert {due.id for due in first if due.subscription == one} == set(ids[:2])
    assert len(first) == 3
    assert await desk.claim(closed=[one]) == []
    assert [due.id for due in await desk.claim()] == ids[2:]


async def test_a_result_under_a_stale_lease_changes_nothing(desk: Desk) -> None:
    number = await desk.subscribe()
    await desk.notice(number)
    (late,) = await desk.claim(token=1)
    desk.turn(31)
    (due,) = await desk.claim(token=2)
    kept, _ = await notices.settle(desk.database, [Tried(late, told=True)])
    assert kept == []
    assert due.attempts == 2
    await desk.tell(due)
    assert await desk.count("notices") == 0
    assert await desk.count("notices_ended where told") == 1


async def test_a_lease_that_is_handed_back_counts_as_no_attempt(desk: Desk) -> None:
    number = await desk.subscribe()
    await desk.notice(number)
    await notices.hand_back(desk.database, await desk.claim())
    (due,) = await desk.claim()
    assert due.attempts == 1


async def test_a_target_that_fails_time_and_again_rests_and_is_tried_one_at_a_time(desk: Desk) -> None:
    number, well = await desk.subscribe(), await desk.subscribe()
    for _ in range(FAILURES_MAX + 1):
        await desk.notice(number)
    failed = await desk.claim()
    assert await desk.fail(*failed[:-2]) == []
    assert await desk.fail(failed[-2]) == [number]
    desk.turn(1.5)
    assert await desk.claim() == []
    await desk.notice(well)
    assert [due.subscription for due in await desk.claim()] == [well]
    desk.turn(1)
    (probe,) = await desk.claim()
    assert probe.shaky
    await desk.tell(probe)
    assert (await desk.register.get(number, None)).failures == 0
    assert len(await desk.claim()) == FAILURES_MAX - 1


async def test_attempts_are_listed_newest_first_page_by_page(desk: Desk) -> None:
    number = await desk.subscribe()
    await desk.notice(number)
    await desk.fail(*await desk.claim())
    desk.turn(2)
    await desk.tell(*await desk.claim())
    newest, *_ = page = await notices.attempts(desk.database, number, before=None, limit=2)
    assert [(one.attempt, one.status, one.error) for one in page] == [
        (2, 200, None),
        (1, 500, "The target answered 500."),
    ]
    (challenge,) = await notices.attempts(desk.database, number, before=page[-1].number, limit=2)
    assert challenge.event == "challenge"
    assert newest.number > challenge.number


async def test_what_ended_is_replayed_with_what_was_given_up_and_nothing_else(desk: Desk) -> None:
    number, other = await desk.subscribe(), await desk.subscribe()
    told, given_up = await desk.notice(number), await desk.notice(number)
    await desk.notice(other)
    taken = {due.id: due for due in await desk.claim()}
    await desk.tell(taken.pop(told))
    await desk.fail(taken.pop(given_up), after=None)
    await desk.tell(*taken.values())
    long_ago = desk.clock.now() - timedelta(days=1)
    assert await notices.replay(desk.database, number, desk.clock.now() + timedelta(hours=1)) == 0
    assert await notices.replay(desk.database, number, long_ago, "message.dead") == 0
    assert await notices.replay(desk.database, number, long_ago) == 2
    assert await notices.replay(desk.database, number, long_ago) == 0
    assert {due.id for due in await desk.claim()} == {told, given_up}


async def test_what_nobody_took_in_its_time_is_given_up_and_in_the_end_forgotten(desk: Desk) -> None:
    number = await desk.subscribe()
    await desk.notice(number)
    assert await notices_retention.give_up(desk.database) == 0
    desk.turn(3 * DAY + 1)
    assert await notices_retention.give_up(desk.database) == 1
    assert await desk.count("notices_ended where not told") == 1
    desk.turn(5 * DAY)
    await notices_retention.forget(desk.database)
    assert await desk.count("notices_ended") == 0
    assert await desk.count("notice_attempts") == 0


async def test_too_many_that_wait_are_given_up_oldest_first(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounded = notices_retention._TOO_MANY.replace(str(notices_retention.WAITING_MAX), "2")
    monkeypatch.setattr(notices_retention, "_TOO_MANY", bounded)
    number = await desk.subscribe()
    ids = []
    for _ in range(3):
        ids.append(await desk.notice(number))
        desk.turn(1)
    assert await notices_retention.give_up(desk.database) == 1
    assert {due.id for due in await desk.claim()} == set(ids[1:])


async def test_who_unsubscribed_is_told_nothing_and_leaves_nothing_behind(desk: Desk) -> None:
    number = await desk.subscribe()
    await desk.notice(number)
    await desk.register.remove(number, None, "tests")
    await desk.notice(number)
    assert await desk.claim() == []
    await notices_retention.forget(desk.database)
    assert [await desk.count(t) for t in ("notices", "notices_ended", "notice_attempts")] == [0, 0, 0]


async def test_one_that_is_disabled_is_kept_for_some_days_and_told_when_it_is_back(desk: Desk) -> None:
    number = await desk.subscribe()
    await desk.register.change(number, None, Change(enabled=False), None, "tests")
    kept = await desk.notice(number)
    assert await desk.claim() == []
    await desk.register.change(number, None, Change(enabled=True), None, "tests")
    assert [due.id for due in await desk.claim()] == [kept]
    await desk.register.change(number, None, Change(enabled=False), None, "tests")
    desk.turn(KEPT_DAYS * DAY + 1)
    await desk.notice(number)
    assert await desk.count("notices") == 1


async def test_the_steps_of_the_ladder_are_taken_once_and_only_by_who_fails(desk: Desk) -> None:
    number, well = await desk.subscribe(), await desk.subscribe()
    await desk.notice(number)
    await desk.fail(*await desk.claim())
    desk.turn(HOUR)
    assert await failing(desk.database, HOUR + 1, unwarned=True) == []
    assert await failing(desk.database, HOUR, unwarned=True) == [number]
    async with desk.database.transaction() as connection:
        assert await warn(connection, number) is not None
        assert await warn(connection, number) is None
        assert await disable(connection, well) is None
        assert await disable(connection, number) is not None
        assert await disable(connection, number) is None
    assert (await desk.register.get(number, None)).status == "disabled"


async def test_an_agents_subscriptions_are_few_and_end_with_it(desk: Desk) -> None:
    agents = Agents(desk.database, Audit(desk.mint()), [WebhookLeaving()])

    async def register() -> None:
        await agents.register("alice", "acme.test", Profile(), NewKey(str(uuid4()), bytes(32)), "tests")

    await register()
    numbers = [await desk.subscribe("alice@acme.test") for _ in range(OWN_MAX)]
    with pytest.raises(AMTPError, match="the most one owner has"):
        await desk.subscribe("alice@acme.test")
    await agents.retire("alice@acme.test", "tests")
    await desk.notice(numbers[0])
    assert await desk.count("notices") == 0
    await register()
    await desk.notice(numbers[0])
    assert await desk.count("notices") == 1
    await agents.remove("alice@acme.test", "drop", "tests")
    await register()
    assert await desk.register.all("alice@acme.test", None, 100) == []
