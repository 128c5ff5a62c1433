"""Large bodies are read in child processes, and nothing that becomes of one body is felt by another."""

import asyncio
import io
import math
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import pytest

from gateway.journal.journal import Journal
from gateway.net.shares import Holder, Pot, Shares
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.json_strict import read_strict
from gateway.receive.readers import Readers, Rules

HALF = Shares(address_percent=50, owner_percent=50, unproven_percent=50)
A, B = Holder(owner="a"), Holder(owner="b")
MANY = Rules(processes=2, wait_seconds_max=60)
ENDLESS = partial(time.sleep, 600)


@dataclass
class Nursery:
    readers: Readers
    log: io.StringIO = field(default_factory=io.StringIO)

    async def child(self) -> int:
        return await self.readers.run(A, os.getpid)


@asynccontextmanager
async def nursery(rules: Rules, places: int = 64) -> AsyncIterator[Nursery]:
    log = io.StringIO()
    journal = Journal(log, form="text")
    readers = Readers(journal, Pot("large bodies to read", places, HALF), rules)
    try:
        yield Nursery(readers, log)
    finally:
        readers.close()
        journal.flush()


async def test_a_task_is_done_by_another_process_and_its_error_comes_back() -> None:
    async with nursery(MANY) as each:
        assert await each.child() not in (0, os.getpid())
        assert await each.readers.run(A, read_strict, b"[1]") == [1]
        with pytest.raises(AMTPError, match="keep one") as refused:
            await each.readers.run(A, read_strict, b'{"a":1,"a":1}')
        assert refused.value.code is Code.INVALID_MESSAGE_FORMAT


async def test_what_takes_too_much_cpu_is_refused_for_good_and_the_next_is_read() -> None:
    async with nursery(replace(MANY, processes=1, seconds_cpu_max=0.3)) as each:
        child = await each.child()
        with pytest.raises(AMTPError, match="simpler or smaller") as refused:
            await each.readers.run(A, math.factorial, 10**7)  # inside a library, where no Python code runs
        assert refused.value.code is Code.INVALID_MESSAGE_FORMAT
        assert await each.child() != child
    assert "reader_lost" in each.log.getvalue()
    assert "too_slow" in each.log.getvalue()


async def test_a_child_that_makes_no_progress_is_our_fault_and_is_replaced() -> None:
    async with nursery(replace(MANY, processes=1, seconds_max=1.0)) as each:
        child = await each.child()
        os.kill(child, signal.SIGSTOP)
        with pytest.raises(AMTPError) as refused:
            await each.readers.run(A, len, b"x" * 10_000_000)  # more than a pipe holds
        assert (refused.value.code, refused.value.status) == (Code.TEMPORARY_FAILURE, 503)
        assert await each.child() != child
    assert "silent" in each.log.getvalue()


async def test_who_waits_behind_a_body_that_kills_its_child_is_read_all_the_same() -> None:
    async with nursery(replace(MANY, seconds_cpu_max=1.0)) as each:
        await asyncio.gather(each.child(), each.child())
        slow = [asyncio.create_task(each.readers.run(A, math.factorial, 10**7)) for _ in range(3)]
        honest = [asyncio.create_task(each.readers.run(B, time.sleep, 0.1)) for _ in range(5)]
        assert await asyncio.gather(*honest) == [None] * 5
        failures = await asyncio.gather(*slow, return_exceptions=True)
        assert [type(failure).__name__ for failure in failures] == ["Lost"] * 3


async def test_a_child_that_dies_is_our_fault() -> None:
    async with nursery(replace(MANY, processes=1)) as each:
        with pytest.raises(AMTPError) as refused:
            await each.readers.run(A, os._exit, 3)
        assert refused.value.status == 503
        assert await each.child()
    assert "died" in each.log.getvalue()


async def test_waiting_too_long_for_a_child_is_our_fault() -> None:
    async with nursery(replace(MANY, processes=1, wait_seconds_max=0.1)) as each:
        busy = asyncio.create_task(each.readers.run(A, ENDLESS))
        await asyncio.sleep(0)  # it has the child now
        with pytest.raises(AMTPError) as refused:
            await each.readers.run(B, os.getpid)
        assert (refused.value.status, refused.value.retry_after) == (503, 5)
        busy.cancel()


async def test_one_caller_does_not_take_all_the_places_to_wait_in() -> None:
    async with nursery(MANY, places=6) as each:
        greedy = [asyncio.create_task(each.readers.run(A, time.sleep, 0.2)) for _ in range(4)]
        others = [asyncio.create_task(each.readers.run(B, time.sleep, 0.2)) for _ in range(3)]
        done = await asyncio.gather(*greedy, *others, return_exceptions=True)
        assert [getattr(each, "status", each) for each in done] == [None] * 3 + [429] + [None] * 3
        assert await each.child()


async def test_who_stops_waiting_leaves_the_child_to_its_work() -> None:
    async with nursery(replace(MANY, processes=1)) as each:
        child = await each.child()
        left = asyncio.create_task(each.readers.run(A, time.sleep, 0.2))
        await asyncio.sleep(0)
        left.cancel()
        assert await each.child() == child


async def test_no_child_is_left_when_the_gateway_stops() -> None:
    async with nursery(MANY) as each:
        child = await each.child()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
