"""Mail that crosses between two domains while either side is killed: all that was acknowledged arrives, once."""

import signal

from tests.faults.crossing import Blow, Crossing, break_while_it_crosses
from tests.faults.points import HASTY, KILL, TRUSTING, Point

FEW = 20  # acknowledgements


async def test_nothing_is_lost_or_doubled_when_both_gateways_are_killed(across: Crossing) -> None:
    ledger = await break_while_it_crosses(across, (Blow.KILL_RECEIVER, Blow.KILL_UNRECORDED), seed=1)
    await across.arrived_later()
    assert (await across.audit(ledger)).clean


async def test_nothing_is_lost_or_doubled_when_both_databases_are_killed(across: Crossing) -> None:
    blows = (Blow.KILL_NEAR_DATABASE, Blow.KILL_FAR_DATABASE)
    ledger = await break_while_it_crosses(across, blows, seed=2)
    await across.arrived_later()
    assert (await across.audit(ledger)).clean


async def test_gateways_that_are_told_to_stop_under_load_leave_nothing_undone(across: Crossing) -> None:
    ledger = await break_while_it_crosses(across, (Blow.STOP_RECEIVER, Blow.STOP_SENDER), seed=4)
    await across.arrived_later()
    assert (await across.audit(ledger)).clean


async def test_the_ledger_reports_the_loss_of_a_receiver_that_answers_before_commit(across: Crossing) -> None:
    receiver = across.far.gateway
    await receiver.kill()
    await receiver.start(**{HASTY: "1", KILL: f"{Point.BEFORE_COMMIT}:3"})
    async with across.load() as load:
        assert await receiver.ended() == -signal.SIGKILL
        await receiver.start()
    await across.arrived_later()
    findings = await across.audit(load.ledger)
    assert findings.missing
    assert not findings.repeated


async def test_the_ledger_reports_the_loss_of_a_sender_that_does_not_wait_for_the_answer(
    across: Crossing,
) -> None:
    sender = across.near.gateway
    await sender.kill()
    await across.far.gateway.kill()
    await sender.start(**{TRUSTING: "1"})
    async with across.load() as load:
        await load.acknowledged(FEW)
    await across.far.gateway.start()
    await across.arrived_later()
    findings = await across.audit(load.ledger)
    assert findings.missing
    assert not findings.repeated
