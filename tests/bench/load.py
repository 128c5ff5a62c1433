"""Load on a gateway, by wrk where it is installed, else by our own client; both in a process of their own."""

import asyncio
import json
import shutil
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench.client_process import body_of
from tests.bench.site import ROOT, Agent

BODY_BYTES = 1024
WRK = shutil.which("wrk")
_SCRIPT = """
local pairs_ = { %s }
local requests, place = {}, 0
function init(args)
  for number, pair in ipairs(pairs_) do
    local headers = { ["Content-Type"] = "application/json", ["Authorization"] = "Bearer " .. pair[1] }
    requests[number] = wrk.format("POST", "/v1/messages", headers, pair[2])
  end
end
function request()
  place = place %% #requests + 1
  return requests[place]
end
function done(summary, latency, requests_)
  local refused = summary.errors.status + summary.errors.read + summary.errors.timeout
  io.write(string.format('{"answered": %%d, "refused": %%d, "seconds": %%f, "accept_p50_ms": %%f, "accept_p99_ms": %%f}',
    summary.requests - refused, refused, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


@dataclass(frozen=True, slots=True)
class Letter:
    """Who writes to whom."""

    address: str
    key: str
    recipient: str


def ring_of(agents: Sequence[Agent]) -> list[Letter]:
    """Everybody writes to the next one."""
    return [
        Letter(sender.address, sender.key, recipient.address)
        for sender, recipient in zip(agents, [*agents[1:], agents[0]], strict=True)
    ]


async def drive(port: int, letters: Sequence[Letter], connections: int, seconds: float, folder: Path) -> Any:
    """Closed loop: as much as this many connections can."""
    if WRK is None:
        return await ask(kind="closed", port=port, agents=letters, connections=connections, seconds=seconds)
    script = folder / "load.lua"
    bodies = [(each.key, body_of(asdict(each), BODY_BYTES).decode()) for each in letters]
    script.write_text(_SCRIPT % ", ".join(f"{{ [==[{key}]==], [==[{body}]==] }}" for key, body in bodies))
    said = await _output(
        (
            WRK,
            "-t1",
            f"-c{connections}",
            f"-d{round(seconds)}s",
            "-s",
            str(script),
            f"http://127.0.0.1:{port}",
        )
    )
    return json.loads(said[said.index("{") :])


async def ask(*, agents: Sequence[Letter], **task: Any) -> Any:
    """A task for our own client."""
    return json.loads(await _output(_CLIENT, _task(agents, task)))


@asynccontextmanager
async def waiting(*, agents: Sequence[Letter], **task: Any) -> AsyncIterator[None]:
    """Our own client at work while the block lasts."""
    process = await asyncio.create_subprocess_exec(*_CLIENT, cwd=ROOT, stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None
    process.stdin.write(_task(agents, task))
    try:
        yield
    finally:
        await process.communicate(b"\n")
        if process.returncode:
            raise SystemExit("the load failed")


_CLIENT = (sys.executable, "-m", "tests.bench.client_process")


def _task(agents: Sequence[Letter], task: dict[str, Any]) -> bytes:
    whole = {**task, "agents": [asdict(each) for each in agents], "body_bytes": BODY_BYTES}
    return json.dumps(whole).encode() + b"\n"


async def _output(command: Sequence[str], given: bytes = b"") -> str:
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=PIPE, stdout=PIPE)
    said, _ = await process.communicate(given)
    if process.returncode:
        raise SystemExit(f"the load failed: {said.decode()}")
    return said.decode()
