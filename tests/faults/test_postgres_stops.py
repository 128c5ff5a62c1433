"""The embedded Postgres stops under load: no fault of ours, told once and counted, and then all goes on."""

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from tests.faults.watching import PATIENCE_SECONDS
from tests.served import Served, served

AT_ONCE = 8
LINES_MAX = (
    3  # about one thing in one stop: when it begins, what was left out, and once more on a slow machine
)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
async def test_a_stop_is_no_fault_and_its_refusals_are_counted(tmp_path: Path, how: signal.Signals) -> None:
    with served(tmp_path, environment={"AMTP_LOG_FORMAT": "text"}) as gateway:
        async with aiohttp.ClientSession() as session:
            postmaster = tmp_path / "data" / "postgres" / "postmaster.pid"
            await until(gateway, session, 200)
            os.kill(int(postmaster.read_text().split()[0]), how)
            await until(gateway, session, 503)
            await until(gateway, session, 200)
            async with session.get(f"{gateway.url}/metrics") as answer:
                metrics = await answer.text()

    assert "amtp_faults_total 0.0" in metrics
    assert "amtp_database_losses_total 0.0" not in metrics
    said = Counter(
        line.partition("postgres: ")[2].partition(" (")[0] for line in gateway.lines if "FATAL" in line
    )
    assert max(said.values()) <= LINES_MAX, said


async def until(gateway: Served, session: aiohttp.ClientSession, status: int) -> None:
    """Many ask at once, again and again, until one of them is answered so."""
    seen: set[int] = set()

    async def ask() -> None:
        while status not in seen:
            async with session.get(f"{gateway.url}/v1/inbox/postmaster@localhost") as answer:
                seen.add(answer.status)

    async with asyncio.timeout(2 * PATIENCE_SECONDS):
        await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
