"""Bodies to messages: small ones at once, large ones in child processes, so that none holds the event loop.

A 10 MB body takes a fifth of a second to read with the interpreter's lock held; every other caller would wait for it.
"""

import asyncio
import ctypes
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import datetime
from multiprocessing import get_context
from uuid import UUID

from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.message import Message, parse_message

LARGE_BYTES = 256 * 1024
PROCESSES = 2
SECONDS_MAX = 10.0  # twenty times what the largest honest message takes
PR_SET_PDEATHSIG = 1


class Parsing:
    """Turns bodies into messages; the child processes start with the first large body."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    async def message(self, raw: bytes, *, row: UUID, now: datetime, local: bool) -> Message:
        if len(raw) <= LARGE_BYTES:
            return parse_message(raw, row=row, now=now, local=local)
        return await self._in_child(_parse, raw, row, now, local)

    async def _in_child(self, task: Callable[..., Message], *arguments: object) -> Message:
        pool = self._pool = self._pool or ProcessPoolExecutor(
            PROCESSES, mp_context=get_context("forkserver"), initializer=_die_with_parent
        )
        try:
            async with asyncio.timeout(SECONDS_MAX):
                return await asyncio.get_running_loop().run_in_executor(pool, task, *arguments)
        except TimeoutError:
            self._abandon(pool)
            raise AMTPError(
                Code.INVALID_MESSAGE_FORMAT,
                "The message takes too long to read: send a simpler or smaller one.",
            ) from None
        except BrokenProcessPool:
            self._abandon(pool)
            raise AMTPError(
                Code.TEMPORARY_FAILURE, "Reading the message was interrupted; send it again."
            ) from None

    def _abandon(self, pool: ProcessPoolExecutor) -> None:
        """Ends a pool whose child hangs or died; the next large body starts a new one."""
        if self._pool is pool:
            self._pool = None
        for process in (pool._processes or {}).values():  # no public way to end a child that is at work
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


def _parse(raw: bytes, row: UUID, now: datetime, local: bool) -> Message:
    return parse_message(raw, row=row, now=now, local=local)


def _die_with_parent() -> None:
    """A child must not outlive a gateway that was killed; and Ctrl-C is the gateway's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
