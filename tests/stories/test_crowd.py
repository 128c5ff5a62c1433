"""Honest senders go on at their pace while every pot is filled by somebody, one after the other; then all is as before."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from tests.stories.crowd import PATIENCE_SECONDS, ROWS, Sender, Town, honest, town

MESSAGES_PER_SECOND = 50
FILLED_SECONDS = 1.0  # the honest go on beside a full pot
GROWN_BYTES_MAX = 64 * 2**20
AFTER_SECONDS = 30.0  # three times what the slowest deadline takes


async def test_honest_senders_are_answered_while_every_pot_is_full(tmp_path: Path, dsn: str) -> None:
    async with town(tmp_path, dsn) as built:
        await beside_crowds(built, FILLED_SECONDS)


async def beside_crowds(built: Town, filled_seconds: float, rounds: int = 1) -> None:
    """Fills every pot, round after round, while the honest send; then waits until the gateway holds what it held."""
    senders = honest(built, MESSAGES_PER_SECOND)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        sending = [group.create_task(sender.send()) for sender in senders]
        await asyncio.sleep(filled_seconds)
        descriptors, resident = built.descriptors(), built.resident_bytes()
        told: dict[str, list[float]] = {"nothing": taken_from(senders)}
        for row in ROWS * rounds:
            async with AsyncExitStack() as leaving:
                await row.fill(built, leaving if row.patient else stack)
                await asyncio.sleep(filled_seconds)
            told[row.name] = taken_from(senders)
        tell(told)
        # Those who filled the pots still hold their ends: the gateway lets go of them by itself.
        async with asyncio.timeout(AFTER_SECONDS):
            while built.descriptors() > descriptors + len(senders):
                await asyncio.sleep(0.1)
        for task in sending:
            task.cancel()
        assert built.resident_bytes() - resident < GROWN_BYTES_MAX


def taken_from(senders: list[Sender]) -> list[float]:
    """The latencies since the last time, of whom each sent something."""
    found: list[float] = []
    for sender in senders:
        assert sender.latencies, sender.sender
        found += sender.latencies
        sender.latencies.clear()
    assert max(found) < PATIENCE_SECONDS
    return sorted(found)


def tell(told: dict[str, list[float]]) -> None:
    for name, latencies in told.items():
        p99 = latencies[-1 - len(latencies) // 100]
        print(
            f"{name:24} {len(latencies):4} answers, p99 {p99 * 1000:.0f} ms, slowest {latencies[-1] * 1000:.0f} ms"
        )
