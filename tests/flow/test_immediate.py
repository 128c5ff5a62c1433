"""Who waits for the outcome of a message is told, and who doesn't any more is known."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest

from gateway.flow import immediate as immediate_module
from gateway.flow.immediate import Immediate
from gateway.protocol.message import Message, parse_message
from gateway.route.placing import ONCE, is_immediate
from gateway.store.admitted import Admitted, Queued
from gateway.store.queue.deliveries import Delivery

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=30)
ROW = UUID(int=1)
RECIPIENTS = ("b@p.test", "c@q.test")


def message(**headers: str) -> Message:
    body = {"sender": "a@acme.test", "recipients": RECIPIENTS, "headers": headers}
    return parse_message(msgspec.json.encode(body), row=ROW, now=NOW, local=True)


def admitted() -> Admitted:
    queued = [Queued(to, to, to.partition("@")[2], NOW, LATER, ONCE) for to in RECIPIENTS]
    return Admitted(message(delivery="best_effort"), True, deliveries=tuple(queued))


def delivery(recipient: str) -> Delivery:
    return Delivery(ROW, recipient, recipient, "p.test", 7, 1, NOW, LATER, ONCE, NOW)


async def steps() -> None:
    """Lets everything happen that waits for nothing else."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_the_wait_is_over_when_every_delivery_has_its_outcome() -> None:
    immediate = Immediate()
    immediate.expect(admitted())
    waiting = asyncio.create_task(immediate.over(ROW, asyncio.Event()))
    for recipient in RECIPIENTS:
        await steps()
        assert not waiting.done()
        with immediate.deciding([delivery(recipient)]) as awaited:
            assert set(awaited) == {ROW}
    await waiting


async def test_what_came_before_somebody_waited_ends_the_wait_at_once() -> None:
    immediate = Immediate()
    immediate.expect(admitted())
    with immediate.deciding([delivery(recipient) for recipient in RECIPIENTS]):
        pass
    async with asyncio.timeout(5):
        await immediate.over(ROW, asyncio.Event())


async def test_who_gives_up_amid_a_verdict_still_hears_it_and_no_later_one() -> None:
    """That verdict is told by nobody else."""
    immediate, ending = Immediate(), asyncio.Event()
    immediate.expect(admitted())
    waiting = asyncio.create_task(immediate.over(ROW, ending))
    first, second = map(delivery, RECIPIENTS)
    with immediate.deciding([first]):
        ending.set()
        await steps()
        assert not waiting.done()
    await waiting
    with immediate.deciding([second]) as awaited:
        assert not awaited


async def test_a_request_that_vanished_is_expected_by_nobody_after_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(immediate_module, "IMMEDIATE_SECONDS", 0)
    immediate = Immediate()
    immediate.expect(admitted())
    await steps()
    with immediate.deciding([delivery(RECIPIENTS[0])]) as awaited:
        assert not awaited


@pytest.mark.parametrize(
    ("asked", "domain", "immediate"),
    [
        ("best_effort", "acme.test", True),
        ("at_least_once", "acme.test", False),
        ("best_effort", "umbrella.test", False),  # its sender lives elsewhere
    ],
)
def test_only_our_own_agents_are_answered_with_an_outcome(asked: str, domain: str, immediate: bool) -> None:
    assert is_immediate(message(delivery=asked), {domain}) is immediate
