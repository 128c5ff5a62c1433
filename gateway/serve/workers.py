"""Several gateway processes on the same ports: started, told what we are told, replaced when one dies or hangs."""

import asyncio
import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import uvloop

from gateway.config.settings import ConfigError, reloadable
from gateway.journal.journal import Journal
from gateway.journal.metrics import forget_process
from gateway.journal.metrics_folder import prepare_multiprocess
from gateway.serve import process
from gateway.serve.expected import StartError, tell
from gateway.serve.heartbeat import Heartbeat, Pulse
from gateway.serve.process import Ready, Start, journal_of
from gateway.serve.signals import HEARD, Signals

SILENT_SECONDS_MAX = 30.0  # nothing a worker does holds its loop so long: then it hangs
STOP_SECONDS = 60  # a worker has its own grace, and its couriers theirs; after that it hangs
RESTART_SECONDS_MIN, RESTART_SECONDS_MAX = 0.1, 30.0
STEADY_SECONDS = 60  # a worker that lived this long starts the backoff anew
FOLDER = "metrics"
PR_SET_PDEATHSIG = 1


async def run(start: Start, count: int, signals: Signals, journal: Journal, ready: Ready) -> None:
    """Serves with `count` processes until a signal says stop."""
    folder = start.config.data / FOLDER
    os.environ.update(prepare_multiprocess(folder))  # workers are born with it
    resource_tracker.ensure_running()  # it plays with the signal mask, so not while we do
    posts = [Post(start, folder, journal) for _ in range(count)]
    keepers = [asyncio.create_task(post.keep()) for post in posts]
    follower = asyncio.create_task(_follow(start, posts, signals))
    try:
        await asyncio.gather(*(post.ready for post in posts))
        await ready(tuple(listener.address.port for listener in start.config.listen))
        signals.started()
        await signals.stop.wait()
        journal.draining(signals.reason)
    finally:
        follower.cancel()
        for post in posts:
            post.dismiss()
        await asyncio.wait(keepers)


async def _follow(start: Start, posts: list["Post"], signals: Signals) -> None:
    """Workers read the configuration again, and those that will take their places are born with it."""
    while True:
        await signals.reload.wait()
        signals.reload.clear()
        with contextlib.suppress(ConfigError):  # each worker says so
            start = replace(start, config=reloadable(start.config, start.load())[0])
        for post in posts:
            post.start = start
            post.signal(signal.SIGHUP)


class Post:
    """A place that is never left empty for long."""

    def __init__(self, start: Start, folder: Path, journal: Journal) -> None:
        self.start = start
        self._folder = folder
        self._journal = journal
        self._worker: SpawnProcess | None = None
        self._hung = False
        self._dismissed = asyncio.Event()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def keep(self) -> None:
        """Until it is dismissed there is a worker, or another one soon."""
        clock = asyncio.get_running_loop().time
        delay = RESTART_SECONDS_MIN
        while not self._dismissed.is_set():
            born = clock()
            ending = await self._life()
            self.start = replace(self.start, succeeds="silent" if self._hung else "ended")
            if self._dismissed.is_set():
                return
            if not self.ready.done():
                self.ready.set_exception(StartError("A worker could not start."))
                return
            delay = RESTART_SECONDS_MIN if clock() - born > STEADY_SECONDS else delay
            self._journal.noted("error", f"Worker {ending}; another takes its place in {delay:.1f} s.")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._dismissed.wait(), delay)
            delay = min(delay * 2, RESTART_SECONDS_MAX)

    def dismiss(self) -> None:
        """The worker finishes what it has; one that hangs is ended."""
        self._dismissed.set()
        self.ready.cancel()
        self.signal(signal.SIGTERM)
        asyncio.get_running_loop().call_later(STOP_SECONDS, self.signal, signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        if self._worker is not None and self._worker.is_alive() and self._worker.pid:
            os.kill(self._worker.pid, number)

    async def _life(self) -> str:
        """One worker from its birth to its end, and how that was."""
        self._hung = False
        loop = asyncio.get_running_loop()
        ours, theirs = multiprocessing.Pipe(duplex=False)
        worker = self._worker = _spawn(self.start, theirs)
        theirs.close()
        ended = asyncio.Event()
        loop.add_reader(worker.sentinel, ended.set)
        with ours, Pulse(ours.fileno(), self._is_ready) as pulse:
            listening = asyncio.create_task(self._end_if_silent(pulse))
            try:
                await ended.wait()
            finally:
                listening.cancel()
                loop.remove_reader(worker.sentinel)
        worker.join()
        forget_process(self._folder, worker.pid or 0)
        return f"{worker.pid} {_ending(worker.exitcode or 0)}"

    def _is_ready(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)

    async def _end_if_silent(self, pulse: Pulse) -> None:
        silent_seconds = await pulse.stopped(SILENT_SECONDS_MAX)
        if self._worker is not None:
            self._hung = True
            self._journal.worker_silent(self._worker.pid or 0, silent_seconds)
            self.signal(signal.SIGKILL)


def _spawn(start: Start, channel: Connection) -> SpawnProcess:
    """A worker that hears signals when it is able to: until then they wait."""
    worker = multiprocessing.get_context("spawn").Process(target=_work, args=(start, channel, os.getpid()))
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    try:
        worker.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
    return worker


def _ending(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def _work(start: Start, channel: Connection, parent: int) -> None:
    """All of a worker's life, in a process of its own."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was killed before the line above
        return
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(start, channel))
    except asyncio.CancelledError:
        return
    except Exception as failure:  # noqa: BLE001 - the edge of a process: beyond it is a traceback
        tell(failure)
        sys.exit(1)


async def _serve(start: Start, channel: Connection) -> None:
    signals = Signals()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
    journal = journal_of(start.config)
    if start.succeeds:
        journal.worker_replaced(start.succeeds)
    heartbeat = Heartbeat(channel.fileno(), journal)
    beating = asyncio.create_task(heartbeat.run())

    async def ready(_: tuple[int, ...]) -> None:
        heartbeat.ready()

    try:
        await process.run(start, signals, journal, ready)
    finally:
        beating.cancel()
        journal.flush()
