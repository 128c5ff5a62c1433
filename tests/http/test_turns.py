"""Work on messages takes turns with everything else that the event loop does."""

import asyncio

from gateway.http.turns import TURN_SECONDS, Turns


async def test_work_that_fits_a_turn_waits_for_nothing() -> None:
    turns = Turns()
    assert [turns.take(TURN_SECONDS / 4) for _ in range(5)] == [True] * 4 + [False]


async def test_work_that_is_longer_than_a_turn_has_one_to_itself() -> None:
    turns = Turns()
    assert [turns.take(TURN_SECONDS * 9), turns.take(0.0)] == [True, False]


async def test_what_took_longer_than_expected_is_counted() -> None:
    turns = Turns()
    assert turns.take(TURN_SECONDS / 10)
    turns.spend(TURN_SECONDS)
    assert not turns.take(TURN_SECONDS / 10)


async def test_everybody_else_comes_first_and_then_those_who_wait_in_their_order() -> None:
    turns, done = Turns(), []

    async def work(name: str, expected: float) -> None:
        await turns.have(expected)
        done.append(name)

    async def others() -> None:
        for n in range(3):
            done.append(f"other {n}")
            await asyncio.sleep(0)

    long = TURN_SECONDS * 0.9
    tasks = [asyncio.create_task(work(name, long)) for name in ("a", "b", "c")]
    tasks.append(asyncio.create_task(others()))
    await asyncio.gather(*tasks)
    assert done == ["a", "other 0", "other 1", "other 2", "b", "c"]


async def test_who_is_gone_keeps_nobody_waiting() -> None:
    turns = Turns()
    assert turns.take(TURN_SECONDS * 2)
    gone = asyncio.create_task(turns.have(TURN_SECONDS * 2))
    there = asyncio.create_task(turns.have(TURN_SECONDS * 2))
    await asyncio.sleep(0)
    gone.cancel()
    await there
