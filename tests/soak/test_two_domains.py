"""Five thousand messages cross between two domains while both gateways and both databases are killed again and again."""

from random import Random

import pytest

from tests.faults.crossing import Blow, Crossing, break_while_it_crosses

MESSAGES = 5000
KILLS = (Blow.KILL_SENDER, Blow.KILL_RECEIVER, Blow.KILL_NEAR_DATABASE, Blow.KILL_FAR_DATABASE)
STOPS = (Blow.STOP_SENDER, Blow.STOP_RECEIVER)
RESCUE_SECONDS = 180.0  # leases lapse, breakers open again and retries fall due, by the clock on the wall


async def broken_by(across: Crossing, blows: tuple[Blow, ...], seed: int) -> bool:
    """Whether all that was acknowledged arrived, once."""
    order = list(blows)
    Random(seed).shuffle(order)
    ledger = await break_while_it_crosses(across, order, seed, MESSAGES)
    assert len(ledger.acknowledged) >= MESSAGES
    await across.arrived(RESCUE_SECONDS)
    return (await across.audit(ledger)).clean


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_lost_or_doubled_when_gateways_and_databases_of_both_are_killed(
    across: Crossing, seed: int
) -> None:
    assert await broken_by(across, KILLS * 3, seed)


async def test_what_the_receiver_took_before_the_sender_died_is_not_there_twice(across: Crossing) -> None:
    assert await broken_by(across, (Blow.KILL_UNRECORDED,) * 10, seed=4)


async def test_gateways_that_are_told_to_stop_under_load_leave_nothing_undone(across: Crossing) -> None:
    assert await broken_by(across, STOPS * 5, seed=5)


async def test_a_sender_that_stands_still_past_its_leases_changes_nothing_when_it_wakes(
    shared_across: Crossing,
) -> None:
    assert await broken_by(shared_across, (Blow.FREEZE_SENDER,) * 4, seed=6)
