"""The pid file of a data folder: the gateway that serves from it holds the file locked while it lives."""

import fcntl
import os
from contextlib import ExitStack
from pathlib import Path

from gateway.serve.expected import StartError

FILE = "gateway.pid"


def claim(data: Path, stack: ExitStack) -> int | None:
    """Writes our pid and holds the lock for as long as the stack; returns the pid of another holder, if any."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(data / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as failure:
        raise StartError(f"Can't use the data folder {data}: {failure.strerror}. Choose another.") from None
    stack.callback(os.close, descriptor)
    if not _lock(descriptor):
        return _number(descriptor)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return None


def holder(data: Path) -> int | None:
    """Returns the pid of the process that serves from this folder now."""
    try:
        descriptor = os.open(data / FILE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return None if _lock(descriptor) else _number(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _number(descriptor: int) -> int | None:
    text = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
    return int(text) if text.isdecimal() else None
