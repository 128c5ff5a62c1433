"""`amtp serve` by a configuration, in a process of its own, as a service manager runs it."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.ports import free_port

AMTP = str(Path(sys.executable).parent / "amtp")
SECONDS_MAX = 60


@dataclass
class GatewayProcess:
    process: Process
    url: str
    file: Path
    lines: list[str] = field(default_factory=list)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return "".join(self.lines)

    async def listen(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            async with self._news:
                self.lines.append(line.decode())
                self._news.notify_all()
        async with self._news:
            self.lines.append("(ended)")
            self._news.notify_all()

    async def says(self, *words: str, times: int = 1) -> None:
        """Waits until so many lines have all of these words."""

        def said() -> bool:
            return sum(all(word in line for word in words) for line in self.lines) >= times

        async with asyncio.timeout(SECONDS_MAX), self._news:
            await self._news.wait_for(lambda: said() or self.lines[-1:] == ["(ended)"])
        assert said(), f"never said {words}: {self.log}"

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        async with asyncio.timeout(SECONDS_MAX):
            return await self.process.wait()

    def children(self) -> list[int]:
        """Its workers."""
        text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in text.split() if "spawn_main" in _command(int(pid))]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """Nothing of ours but which Postgres the suite runs on."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("AMTP_") or name == "AMTP_PG_BINDIR"
    }
    return clean | dict(changes or {})


@asynccontextmanager
async def serving(
    folder: Path,
    dsn: str,
    *options: str,
    program: Sequence[str] = (AMTP,),
    changes: Mapping[str, str] | None = None,
) -> AsyncIterator[GatewayProcess]:
    """One that answers; killed afterwards, if it has not ended. `changes` are variables, which win over the file."""
    port, file = free_port(), folder / "amtp.yaml"
    write(file, dsn, port)
    process = await asyncio.create_subprocess_exec(
        *program, "serve", "--config", str(file), *options, env=environment(changes), stderr=PIPE
    )
    gateway = GatewayProcess(process, f"http://127.0.0.1:{port}", file)
    listening = asyncio.create_task(gateway.listen())
    try:
        await gateway.says('"event":"started"')
        yield gateway
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await listening


def write(file: Path, dsn: str, port: int, more: str = "") -> None:
    listen = f'[{{address: "127.0.0.1:{port}", roles: [all]}}]'
    file.write_text(
        f"domains: [acme.test]\ndevelopment: true\ndatabase: {{url: '{dsn}'}}\nlisten: {listen}\n{more}"
    )


async def amtp(*words: str, changes: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """A command's exit code, and what it printed."""
    process = await asyncio.create_subprocess_exec(
        AMTP, *words, env=environment({"COLUMNS": "200"} | dict(changes or {})), stdout=PIPE, stderr=PIPE
    )
    out, err = await process.communicate()
    assert b"Traceback" not in err
    return process.returncode or 0, out.decode(), err.decode()
