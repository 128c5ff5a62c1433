"""The child processes that parse large bodies, so that none blocks the event loop.

1. Each child parses one body at a time, and only the CPU time of that body counts against its limit. A wait for a
   child that is too long, or a child without progress, is the gateway's fault: 503.
2. A child that hangs or dies fails only the body it was parsing. The next body starts a new child.
3. The number of waiting bodies is limited, and each caller has a share of it.
"""

import asyncio
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from threading import Timer
from time import monotonic
from typing import Any, TypeVar, cast

from gateway.journal.journal import Journal
from gateway.net.shares import Holder, Pot
from gateway.protocol.errors import AMTPError, Code

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rules:
    """Fixed limits of the child processes."""

    processes: int = 2
    seconds_cpu_max: float = 10.0  # for one body: twenty times what the largest message of normal shape takes
    seconds_max: float = 60.0  # wall-clock time: a child silent for so long was stopped or gets no CPU
    wait_seconds_max: float = 10.0  # for a free child


class Lost(AMTPError):
    """The failure of a child that was killed or died while parsing a body."""

    def __init__(self, why: str, error: AMTPError) -> None:
        super().__init__(error.code, error.message, error.details, error.retry_after)
        self.why = why


class Readers:
    """The pool of child processes; each is started when first needed."""

    def __init__(self, journal: Journal, places: Pot, rules: Rules | None = None) -> None:
        """`places` counts the bodies being parsed or waiting for it."""
        self._journal = journal
        self._places = places
        self._rules = rules = rules or Rules()
        self._threads = ThreadPoolExecutor(rules.processes, "amtp-reader")  # each waits for one child
        self._readers = [_Reader(rules) for _ in range(rules.processes)]
        self._idle = list(self._readers)
        self._free = asyncio.Semaphore(rules.processes)

    async def run(self, holder: Holder, task: Callable[..., T], *arguments: object) -> T:
        """Returns the task's result or raises its AMTPError; raises 503 if no child is free in time."""
        with self._places.held(holder):
            try:
                async with asyncio.timeout(self._rules.wait_seconds_max):
                    await self._free.acquire()
            except TimeoutError:
                raise _busy() from None
            reader = self._idle.pop()
            loop = asyncio.get_running_loop()
            reading = loop.run_in_executor(self._threads, reader.run, task, arguments)
            reading.add_done_callback(lambda _: self._give_back(reader))
            # A cancelled request does not interrupt the child.
            result, error = await asyncio.shield(reading)
        if isinstance(error, Lost):
            self._journal.reader_lost(error.why)
        if error is not None:
            raise error
        return cast(T, result)

    def _give_back(self, reader: "_Reader") -> None:
        self._idle.append(reader)
        self._free.release()

    def close(self) -> None:
        for reader in self._readers:
            reader.end()
        self._threads.shutdown()  # their children are gone


class _Reader:
    """One child, started if it is not running; its methods block, so they run in a thread."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, task: Callable[..., Any], arguments: tuple[object, ...]) -> tuple[Any, AMTPError | None]:
        """Runs the task in the child; returns its result, or the error it raised, or Lost."""
        fresh = self._process is None
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        begun = monotonic()
        killer = Timer(self._rules.seconds_max, process.kill)
        killer.start()
        try:
            if fresh:
                pickle.load(process.stdout)  # noqa: S301 - our child wrote it, here and below
            pickle.dump((task, arguments), process.stdin, pickle.HIGHEST_PROTOCOL)
            process.stdin.flush()
            result, error = pickle.load(process.stdout)  # noqa: S301
        except (OSError, ValueError, EOFError, pickle.UnpicklingError):
            self.end()
            return None, _lost(process, monotonic() - begun >= self._rules.seconds_max)
        finally:
            killer.cancel()
        return result, error

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-P", "-m", "gateway.receive.reader", str(self._rules.seconds_cpu_max)]
        return subprocess.Popen(  # noqa: S603 - our own command line
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            process_group=0,  # Ctrl-C is the gateway's to handle
        )

    def end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with suppress(OSError):
                    pipe.close()


def _lost(process: "subprocess.Popen[bytes]", silent: bool) -> Lost:
    if process.returncode == -signal.SIGPROF:
        remedy = "The message takes too long to read: send a simpler or smaller one."
        return Lost("too_slow", AMTPError(Code.INVALID_MESSAGE_FORMAT, remedy, {"field": "body"}))
    again = AMTPError(Code.TEMPORARY_FAILURE, "Reading the message was interrupted; send it again.")
    return Lost("silent" if silent else "died", again)


def _busy() -> AMTPError:
    return AMTPError(
        Code.TEMPORARY_FAILURE,
        "The gateway reads as many large bodies as it can; send this one again shortly.",
    )
