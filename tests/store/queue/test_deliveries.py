"""The queue as workers see it: who is claimed, in which order, and who holds what."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any

import pytest

from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.queue import delays, deliveries, destinations
from gateway.store.queue.deliveries import CLAIM_MAX, Delivery
from gateway.store.row_ids import Mint
from tests.store.house import House

LEASE_SECONDS = 30.0


@pytest.fixture
def house(database: Database, mint: Mint, clock: Clock) -> House:
    return House(database, mint, clock)


async def take(
    house: House,
    *,
    token: int = 1,
    closed: Collection[str] = (),
    each: int = 100,
    limit: int = 100,
    after: str = "",
) -> list[Delivery]:
    return (await claim(house, token=token, shut=closed, each=each, limit=limit, after=after)).deliveries


async def claim(
    house: House, *, token: int = 1, each: int = 100, limit: int = 100, **where: Any
) -> deliveries.Claimed:
    return await deliveries.claim(
        house.database,
        per_destination=each,
        limit=limit,
        lease_seconds=LEASE_SECONDS,
        token=token,
        **where,
    )


def places(claimed: list[Delivery]) -> list[str]:
    return [delivery.destination for delivery in claimed]


async def test_a_destination_with_much_mail_takes_no_more_than_its_share(house: House) -> None:
    await house.send(*(f"b{n}@a.test" for n in range(50)))
    await house.send("bob@z.test")
    assert places(await take(house, each=10)) == ["a.test"] * 10 + ["z.test"]


async def test_a_claim_starts_behind_the_place_where_the_last_one_ended(house: House) -> None:
    for destination in ("a.test", "b.test", "c.test"):
        await house.send(*(f"b{n}@{destination}" for n in range(4)))
    assert places(await take(house, each=2, limit=4)) == ["a.test", "a.test", "b.test", "b.test"]
    assert places(await take(house, each=2, limit=4, after="b.test")) == ["c.test", "c.test"]


async def test_closed_destinations_are_passed_by(house: House) -> None:
    await house.send("bob@a.test", "bob@b.test", "bob@c.test")
    assert places(await take(house, closed={"a.test", "c.test"})) == ["b.test"]


async def test_the_oldest_is_claimed_first_and_what_is_not_due_not_at_all(house: House) -> None:
    late = await house.send("bob@a.test", due=-10)
    later = await house.send("bob@a.test", due=-5)
    await house.send("bob@a.test", due=60)
    latest = await house.send("bob@a.test", due=-1)
    assert [delivery.message for delivery in await take(house, limit=2)] == [late, later]
    assert [delivery.message for delivery in await take(house)] == [latest]


async def test_a_held_delivery_is_not_claimed(house: House) -> None:
    await house.send("bob@a.test")
    await house.database.execute("update deliveries set state = 'held'")
    assert await take(house) == []


async def test_a_claim_is_bounded_whatever_is_asked(house: House) -> None:
    await house.send(*(f"b{n}@a.test" for n in range(CLAIM_MAX + 1)))
    assert len(await take(house, each=1000, limit=1000)) == CLAIM_MAX


async def test_a_lease_that_lapsed_is_found_again_and_counts(house: House) -> None:
    await house.send("bob@a.test")
    (first,) = await take(house, token=1)
    house.turn(LEASE_SECONDS - 1)
    assert await take(house, token=2) == []
    house.turn(2)
    (second,) = await take(house, token=2)
    assert (first.attempts, second.attempts, second.token) == (1, 2, 2)
    assert second.first_attempt == first.first_attempt


async def test_what_is_handed_back_is_as_if_it_had_never_been_taken(house: House) -> None:
    await house.send("bob@a.test", due=-600)
    before = await house.database.fetch("select * from deliveries")
    claimed = await take(house)
    assert await deliveries.hand_back(house.database, claimed) == 1
    assert await house.database.fetch("select * from deliveries") == before
    assert await deliveries.hand_back(house.database, claimed) == 0


async def test_what_another_has_claimed_since_is_not_handed_back(house: House) -> None:
    await house.send("bob@a.test")
    claimed = await take(house, token=1)
    house.turn(LEASE_SECONDS + 1)
    assert len(await take(house, token=2)) == 1
    assert await deliveries.hand_back(house.database, claimed) == 0
    assert await take(house, token=3) == []


async def test_what_is_past_its_time_is_claimed_wherever_it_waits_but_not_from_under_a_courier(
    house: House,
) -> None:
    held, waiting, leased = [await house.send(f"bob@{name}.test", due=0) for name in ("a", "b", "c")]
    await house.database.execute("update deliveries set state = 'held' where message = $1", held)
    await house.database.execute(
        "update deliveries set due = due + interval '20 days' where message = $1", waiting
    )
    house.turn(8 * 86_400)
    assert len(await take(house, token=1)) == 1

    async def over() -> set[object]:
        claimed = await deliveries.claim_expired(
            house.database, limit=100, lease_seconds=LEASE_SECONDS, token=2
        )
        assert {delivery.attempts for delivery in claimed} <= {0, 1}
        return {delivery.message for delivery in claimed}

    assert await over() == {held, waiting}
    house.turn(LEASE_SECONDS + 1)
    assert await over() >= {leased}


async def test_letters_have_what_couriers_need(house: House) -> None:
    row = await house.send("bob@a.test", message_id="m-1")
    (letter,) = (await deliveries.letters(house.database, [row])).values()
    assert (letter.row, letter.message_id, letter.sender, letter.proven) == (
        row,
        "m-1",
        "alice@acme.test",
        True,
    )
    assert letter.hops == ()


async def fail(
    house: House, *, wait: float = 3600, attempts: int = 13, code: str = "TEMPORARY_FAILURE"
) -> None:
    """Whatever is due is tried, in vain."""
    for delivery in await take(house):
        await house.database.execute(
            "update deliveries set token = null, due = amtp_now() + make_interval(secs => $2), attempts = $3,"
            " last_code = $4, last_error = 'Not now.' where message = $1",
            delivery.message,
            wait,
            attempts,
            code,
        )


async def hasten(house: House, *, at_once: bool = False, limit: int = 100, ago: float = 0) -> int:
    before = house.clock.now() - timedelta(seconds=ago)
    return await destinations.hasten(house.database, "a.test", before=before, at_once=at_once, limit=limit)


async def test_after_an_outage_mail_that_was_never_sent_is_due_at_once_as_much_as_the_lane_takes(
    house: House,
) -> None:
    for _ in range(5):
        await house.send("bob@a.test")
    await house.send("bob@b.test")
    await fail(house)
    house.turn(1)
    assert [await hasten(house, at_once=True, limit=3) for _ in range(3)] == [3, 2, 0]
    assert places(await take(house)) == ["a.test"] * 5


async def test_after_an_outage_mail_that_was_answered_badly_waits_a_part_of_its_delay_and_no_more(
    house: House,
) -> None:
    await house.send("bob@a.test")
    await fail(house, attempts=8, wait=128)  # 2 ** 7
    house.turn(10)
    assert [await hasten(house), await hasten(house)] == [1, 0]
    house.turn(128 / destinations.HASTE - 11)
    assert await take(house) == []
    house.turn(2)
    assert len(await take(house)) == 1


async def test_after_an_outage_nothing_moves_that_the_outage_did_not_hold_up(house: House) -> None:
    await house.send("bob@a.test", due=60)  # for later, by its sender
    await house.send("bob@a.test")
    await fail(house, code="RATE_LIMIT_EXCEEDED")
    await house.send("carol@a.test")
    await fail(house)
    assert await hasten(house, at_once=True, ago=5) == 0  # it was tried since
    assert await hasten(house, at_once=True) == 1
    assert [delivery.recipient for delivery in await take(house)] == ["carol@a.test"]


async def test_after_an_outage_a_wish_for_a_later_time_is_still_honoured(house: House) -> None:
    await house.send("bob@a.test")
    await fail(house, attempts=2, wait=600)  # our own delay were two seconds
    house.turn(60)
    assert await hasten(house, at_once=True) == 0


async def test_a_destination_is_forgotten_when_nothing_waits_for_it_any_more(house: House) -> None:
    """Whether its last mail arrived, was cancelled or expired: it is not probed from then on."""
    kept, held = await house.send("bob@a.test"), await house.send("bob@b.test")
    until = house.clock.now() + timedelta(seconds=10)
    for name in ("a.test", "b.test", "c.test"):
        await destinations.note_failure(house.database, name, 9, until, "It is down.", unreachable=True)
    assert set(await destinations.troubled(house.database)) == {"a.test", "b.test", "c.test"}
    house.turn(11)
    assert set(await destinations.troubled(house.database)) == {"a.test", "b.test"}
    await house.database.execute("update deliveries set state = 'held' where message = $1", held)
    assert set(await destinations.troubled(house.database)) == {"a.test"}
    await destinations.forget_quiet(house.database)
    left = await house.database.fetch("select destination from destinations order by destination")
    assert [row[0] for row in left] == ["a.test", "b.test"]
    await house.cancel(kept)
    assert await destinations.troubled(house.database) == {}


async def test_a_claim_tells_when_the_next_falls_due_and_which_busy_ones_are_behind(house: House) -> None:
    assert (await claim(house)).next_seconds is None
    await house.send("bob@a.test", due=60)
    await house.send("bob@b.test", "bob@c.test")
    await house.send("bob@b.test", due=20)
    await house.send("bob@d.test", due=5)
    first = await claim(house, busy=["b.test"], shut=["d.test"])
    assert (places(first.deliveries), first.behind) == (["c.test"], ["b.test"])
    assert first.next_seconds is not None
    assert 19 < first.next_seconds <= 20  # behind the one of b.test that is due; d.test opens when it opens
    second = await claim(house)
    assert (places(second.deliveries), second.behind) == (["b.test"], ())
    third = await claim(house)
    assert third.next_seconds is not None
    assert 4 < third.next_seconds <= 5
    house.turn(10)
    await claim(house)
    fourth = await claim(house, shut=["a.test", "b.test"])
    assert fourth.next_seconds is not None
    assert LEASE_SECONDS - 11 < fourth.next_seconds <= LEASE_SECONDS - 10  # a lease that ends is due, too


async def test_a_message_is_late_from_its_first_chance_on(house: House) -> None:
    scheduled = await house.send("bob@a.test", due=7200)
    urgent = await house.send("bob@b.test", due=-700)
    house.turn(4 * 3600 - 60)
    assert await delays.late_messages(house.database, hours=4, limit=10) == {}
    house.turn(120)
    assert set(await delays.late_messages(house.database, hours=4, limit=10)) == {urgent}
    house.turn(7200)
    assert set(await delays.late_messages(house.database, hours=4, limit=10)) == {urgent, scheduled}


async def test_what_has_expired_is_late_no_more(house: House) -> None:
    message = await house.send("bob@a.test")
    house.turn(7 * 86_400 - 60)
    assert set(await delays.late_messages(house.database, hours=4, limit=10)) == {message}
    house.turn(120)
    assert await delays.late_messages(house.database, hours=4, limit=10) == {}
