"""A gateway as a person starts it: `amtp serve --local` in a process of its own."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
AMTP = str(Path(sys.executable).parent / "amtp")
READY_SECONDS = 90  # initdb included, on a machine that does other things too
STOP_SECONDS = 45


@dataclass
class Served:
    """`process` prints where it answers and its admin key; the rest of what it prints is kept in `lines`."""

    process: "subprocess.Popen[str]"
    lines: list[str] = field(default_factory=list)
    ready: threading.Event = field(default_factory=threading.Event)
    url: str = ""
    admin_key: str = ""

    def listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.match(r"Gateway: (\S+)$", line):
                self.url = found[1]
            if found := re.match(r"Admin key: (\S+)$", line):
                self.admin_key = found[1]
            if self.url and self.admin_key:
                self.ready.set()
        self.ready.set()  # it ended


@contextmanager
def served(
    folder: Path,
    *options: str,
    before: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """One that answers, in `folder`, with its data in `folder`/data; stopped as by Ctrl-C afterwards."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AMTP_")}
    kept = {name: value for name, value in os.environ.items() if name == "AMTP_PG_BINDIR"}
    process = subprocess.Popen(
        [*before, AMTP, "serve", "--local", "--data", "data", "--port", "0", *options],
        cwd=folder,
        env=clean | kept | dict(environment or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    gateway = Served(process)
    listener = threading.Thread(target=gateway.listen)
    listener.start()
    try:
        assert gateway.ready.wait(READY_SECONDS), "".join(gateway.lines)
        assert gateway.url, "".join(gateway.lines)
        assert gateway.admin_key, "".join(gateway.lines)
        yield gateway
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        listener.join()
