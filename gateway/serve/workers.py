"""Several worker processes on the same ports: started, sent our signals, replaced when one dies or hangs."""

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

SILENT_SECONDS_MAX = 30.0  # no work blocks a loop this long, so the worker hangs
STOP_SECONDS = 60  # more than the grace of its requests and couriers; after that it is killed
RESTART_SECONDS_MIN, RESTART_SECONDS_MAX = 0.1, 30.0
STEADY_SECONDS = 60  # a worker that lived this long resets the backoff
FOLDER = "metrics"
PR_SET_PDEATHSIG = 1


async def run(start: Start, count: int, signals: Signals, journal: Journal, ready: Ready) -> None:
    """Serves with `count` processes until a stop signal."""
    folder = start.config.data / FOLDER
    os.environ.update(prepare_multiprocess(folder))  # workers inherit it
    resource_tracker.ensure_running()  # it changes the signal mask, so start it before we do
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
    """Passes reload signals on to the workers; their replacements start with the new configuration."""
    while True:
        await signals.reload.wait()
        signals.reload.clear()
        with contextlib.suppress(ConfigError):  # each worker reports it
            start = replace(start, config=reloadable(start.config, start.load())[0])
        for post in posts:
            post.start = start
            post.signal(signal.SIGHUP)


class Post:
    """The supervisor of one worker process, which it replaces when it ends or hangs."""

    def __init__(self, start: Start, folder: Path, journal: Journal) -> None:
        self.start = start
        self._folder = folder
        self._journal = journal
        self._worker: SpawnProcess | None = None
        self._hung = False
        self._dismissed = asyncio.Event()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def keep(self) -> None:
        """Runs a worker, and restarts it with a backoff, until dismissed."""
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
        """Stops the worker, which finishes its work first; kills it if it hangs."""
        self._dismissed.set()
        self.ready.cancel()
        self.signal(signal.SIGTERM)
        asyncio.get_running_loop().call_later(STOP_SECONDS, self.signal, signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        if self._worker is not None and self._worker.is_alive() and self._worker.pid:
            os.kill(self._worker.pid, number)

    async def _life(self) -> str:
        """Runs one worker until it ends; returns how it ended."""
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
    """Starts a worker with signals blocked; it unblocks them once it handles them."""
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
    """Runs a worker; the entry point of its process."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent was killed before the line above
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
