"""A private Postgres as a child process, for a gateway that was given no database.

    embedded = EmbeddedPostgres(Path("data"))
    dsn = await embedded.start()
    ...
    await embedded.stop()

It listens only on a Unix socket in a private folder. It ends with us, even after kill -9; if it ends alone
it is restarted. Call `start` from the main thread: Linux ties the child to the life of the thread that
made it.
"""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from gateway.journal.seldom import Seldom
from gateway.postgres.home import (
    FREE_BYTES_MIN,
    LOOK_SECONDS,
    Binaries,
    EmbeddedError,
    Home,
    Identity,
    choose_identity,
    find_binaries,
    free_bytes,
    usual_folders,
)
from gateway.postgres.socket_folder import PORT

__all__ = ["FREE_BYTES_MIN", "SETTINGS", "EmbeddedError", "EmbeddedPostgres", "free_bytes"]

T = TypeVar("T")
log = logging.getLogger(__name__)

READY_SECONDS = 300  # after a crash Postgres first replays up to max_wal_size
STOP_SECONDS = 30  # for the last checkpoint; after it an immediate shutdown follows
FIRMLY_SECONDS = 5
RESTART_SECONDS_MIN, RESTART_SECONDS_MAX = 0.1, 30.0
STEADY_SECONDS = 60  # a child that lived this long resets the backoff
LAST_WORDS_SECONDS = 0.5  # for the rest of an ended child's log to arrive
TAIL_LINES, LINE_BYTES_MAX = 20, 1_000  # of Postgres' log, for an error message

SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "fsync": "on",
        "synchronous_commit": "on",  # an acknowledged message is on the disk
        "max_connections": "100",
        "shared_buffers": "128MB",
        "max_wal_size": "1GB",
        "min_wal_size": "128MB",
        "checkpoint_timeout": "10min",
        "wal_compression": "on",
        "jit": "off",  # compiling takes longer than our short statements
        "max_parallel_workers_per_gather": "0",  # containers have a small /dev/shm
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "",  # our own log has timestamps
        "log_error_verbosity": "terse",  # details and statements would show people's mail
        "log_min_error_statement": "panic",
    }
)


class _Child(asyncio.Protocol):
    """One run of the server: its process and the last lines of its log."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.exited = asyncio.Event()
        self.silent = asyncio.Event()  # set at the end of its log
        self._lines: deque[str] = deque(maxlen=TAIL_LINES)
        self._partial = b""
        self._fatal = Seldom()
        self._transport: asyncio.BaseTransport | None = None
        self._pidfd = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.process.wait()
        self.exited.set()

    def data_received(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[:LINE_BYTES_MAX]
        for line in lines:
            self._say(line[:LINE_BYTES_MAX].decode(errors="replace"))

    def _say(self, text: str) -> None:
        """Logs the line; a FATAL one, which Postgres repeats for each refused client, once a minute."""
        if text not in self._lines:
            self._lines.append(text)
        if not text.startswith(("FATAL", "PANIC")):
            log.debug("postgres: %s", text)
        elif (untold := self._fatal.due(text)) is not None:
            log.error("postgres: %s%s", text, f" (and {untold} times before)" if untold else "")

    def sum_up(self) -> None:
        """Logs how often lines were left out."""
        for text, count in self._fatal.untold().items():
            log.error("postgres: %s (%d times more)", text, count)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, problem: Exception | None) -> None:
        self.silent.set()

    def close(self) -> None:
        """Stops reading the log, though a leftover session may still hold it open."""
        if self._transport is not None:
            self._transport.close()

    async def obituary(self) -> str:
        """Returns how the server ended, with the last lines of its log."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.silent.wait(), LAST_WORDS_SECONDS)
        self.close()
        self.sum_up()
        code = self.process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return "\n  ".join([f"Postgres {how}. Its last words:", *self._lines])


class EmbeddedPostgres:
    """An embedded Postgres in the data folder `data`; `settings` override SETTINGS."""

    def __init__(self, data: Path, *, settings: Mapping[str, str] = MappingProxyType({})) -> None:
        self._home = Home(data.absolute())
        self._settings = {**SETTINGS, **settings}
        self._lock: int | None = None
        self._child: _Child | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self.fault: str | None = None  # why the server is down now

    @property
    def dsn(self) -> str:
        return self._home.dsn

    @property
    def pid(self) -> int | None:
        """Returns the pid of the server, if it runs."""
        child = self._child
        return child.process.pid if child and not child.exited.is_set() else None

    async def start(self) -> str:
        """Starts the server; returns the DSN once it accepts connections."""
        if self._lock is not None:
            raise EmbeddedError(f"Embedded Postgres on {self._home.data} was started already.")
        try:
            binaries, identity = await _in_thread(self._move_in)
            await self._launch(binaries, identity)
        except (OSError, subprocess.SubprocessError) as problem:
            await self.stop()
            raise EmbeddedError(
                f"Can't run Postgres in the data folder {self._home.data}: {problem}"
            ) from problem
        except BaseException:
            await self.stop()
            raise
        self._supervisor = asyncio.create_task(self._supervise(binaries, identity))
        return self.dsn

    async def stop(self) -> None:
        """Stops the server and releases the data folder; may be called at any time."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait({self._supervisor})
            self._supervisor = None
        if self._child is not None:
            await self._end(self._child)
            self._child.close()
            self._child = None
        if self._lock is not None:
            self._home.unlock(self._lock)
            self._lock = None

    def _move_in(self) -> tuple[Binaries, Identity]:
        binaries = find_binaries(os.environ.get("AMTP_PG_BINDIR"), usual_folders())
        self._lock = self._home.lock()
        identity = choose_identity(self._home.data, self._home.cluster, binaries)
        self._home.furnish(binaries, identity, durable=self._settings["fsync"] == "on")
        log.debug("PostgreSQL %d from %s, %s", binaries.major, binaries.folder, identity)
        return binaries, identity

    async def _launch(self, binaries: Binaries, identity: Identity) -> None:
        await _in_thread(self._home.vacate)
        process = identity.spawn(self._command(binaries), self._home.data, subprocess.DEVNULL)
        child = self._child = _Child(process)
        await asyncio.get_running_loop().connect_read_pipe(lambda: child, process.stdout)
        deadline = asyncio.get_running_loop().time() + READY_SECONDS
        while not self._is_ready(process.pid):
            if child.exited.is_set():
                raise EmbeddedError(await child.obituary())
            if asyncio.get_running_loop().time() > deadline:
                await self._end(child)
                raise EmbeddedError(
                    f"Postgres was not ready within {READY_SECONDS} s. " + await child.obituary()
                )
            await asyncio.sleep(LOOK_SECONDS)
        child.sum_up()

    def _command(self, binaries: Binaries) -> list[str]:
        private = {
            "listen_addresses": "",
            "port": PORT,
            "unix_socket_directories": str(self._home.sockets),
            "unix_socket_permissions": "0700",
            "logging_collector": "off",
        }
        command = [binaries["postgres"], "-D", str(self._home.cluster)]
        for name, value in {**self._settings, **private}.items():
            command += ["-c", f"{name}={value}"]
        return command

    def _is_ready(self, pid: int) -> bool:
        """Returns whether the server's pid file says it is ready, as pg_ctl does."""
        try:
            lines = (self._home.cluster / "postmaster.pid").read_text().split("\n")
        except OSError:
            return False
        return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"

    async def _supervise(self, binaries: Binaries, identity: Identity) -> None:
        delay = RESTART_SECONDS_MIN
        clock = asyncio.get_running_loop().time
        while self._child is not None:
            born = clock()
            await self._child.exited.wait()
            delay = RESTART_SECONDS_MIN if clock() - born > STEADY_SECONDS else delay
            self.fault = await self._child.obituary()
            while self.fault is not None:
                log.error("%s\nStarting it again in %.1f s.", self.fault, delay)
                await asyncio.sleep(delay)
                delay = min(delay * 2, RESTART_SECONDS_MAX)
                try:
                    await self._launch(binaries, identity)
                except (EmbeddedError, OSError, subprocess.SubprocessError) as problem:
                    self.fault = str(problem)
                else:
                    self.fault = None

    async def _end(self, child: _Child) -> None:
        for how, seconds in (
            (signal.SIGINT, STOP_SECONDS),  # "fast": sessions are ended, everything is written
            (signal.SIGQUIT, FIRMLY_SECONDS),  # "immediate": it recovers at the next start
            (signal.SIGKILL, FIRMLY_SECONDS),
        ):
            if child.exited.is_set():
                return
            child.process.send_signal(how)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child.exited.wait(), seconds)


async def _in_thread(work: Callable[[], T]) -> T:
    """Runs the work in a thread and waits for it even when cancelled, so that its resources can be released."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
