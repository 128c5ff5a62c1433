"""The bench's load, in a process of its own: `python -m tests.bench.client_process`, a task as JSON on stdin.

closed  every connection sends its next request when the last one is answered
open    requests leave at a fixed rate, whatever the answers do; a late one is counted from when it was due
idle    every connection waits for mail that never comes
asking  requests that wait for their reply leave at a fixed rate, and an agent answers them
patient every connection waits for a reply that never comes
"""

import asyncio
import json
import random
import sys
from collections.abc import Sequence
from itertools import cycle
from time import monotonic
from typing import Any

import uvloop

from tests.bench import asking_client
from tests.bench.exchange import Connection, Pool, rendered

ACCEPTED = 202
ACKNOWLEDGE_AT_ONCE = 100
LATE_SECONDS_MAX = 20.0  # for the last messages to come


async def closed(task: dict[str, Any]) -> dict[str, Any]:
    requests = cycle([_post(agent, task) for agent in task["agents"]])
    connections = [await Connection.open(task["port"]) for _ in range(task["connections"])]
    ends = monotonic() + task["seconds"]
    latencies: list[float] = []
    refused = 0

    async def work(connection: Connection) -> None:
        nonlocal refused
        while (started := monotonic()) < ends:
            status, _ = await connection.exchange(next(requests))
            latencies.append(monotonic() - started)
            refused += status != ACCEPTED

    started = monotonic()
    await asyncio.gather(*map(work, connections))
    seconds = monotonic() - started
    return {
        "answered": len(latencies) - refused,
        "refused": refused,
        "seconds": seconds,
        **_tail("accept", latencies),
    }


async def open_loop(task: dict[str, Any]) -> dict[str, Any]:
    pool = Pool(task["port"])
    await pool.fill(task["connections"])
    total = int(task["rate"] * task["seconds"])
    listeners = [Listener(each, task) for each in task.get("listen", ())]
    async with asyncio.TaskGroup() as group:
        ears = [group.create_task(listener.run()) for listener in listeners]
        for listener in listeners:
            await listener.ready.wait()
        accepted, refused = await _at_rate(pool, task, total)
        ends = monotonic() + LATE_SECONDS_MAX
        while listeners and _arrived(listeners) < total and monotonic() < ends:
            await asyncio.sleep(0.05)
        for ear in ears:
            ear.cancel()
    arrived = [latency for each in listeners for latency in each.latencies]
    return {
        "answered": len(accepted) - refused,
        "refused": refused,
        "seconds": task["seconds"],
        "arrived": len(arrived),
        **_tail("accept", accepted),
        **_tail("arrival", arrived),
    }


def _arrived(listeners: Sequence["Listener"]) -> int:
    return sum(len(each.latencies) for each in listeners)


async def _at_rate(pool: Pool, task: dict[str, Any], total: int) -> tuple[list[float], int]:
    latencies: list[float] = []
    refused = 0
    agents = cycle(task["agents"])

    async def send(due: float) -> None:
        nonlocal refused
        status, _ = await pool.exchange(_post(next(agents), task, due))
        latencies.append(monotonic() - due)
        refused += status != ACCEPTED

    started = monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(total):
            due = started + number / task["rate"]
            if (ahead := due - monotonic()) > 0:
                await asyncio.sleep(ahead)
            group.create_task(send(due))
    return latencies, refused


class Listener:
    """An agent that listens to its inbox's stream and acknowledges in hundreds."""

    def __init__(self, agent: dict[str, str], task: dict[str, Any]) -> None:
        self._agent, self._port = agent, task["listen_port"]
        self._path = f"/v1/inbox/{agent['address']}"
        self.latencies: list[float] = []
        self.ready = asyncio.Event()
        self._began = monotonic()
        self._arrived: list[str] = []

    async def run(self) -> None:
        stream, desk = await Connection.open(self._port), Pool(self._port)
        await desk.fill(1)
        stream.send(rendered("GET", self._path, self._agent["key"], b"", "Accept: text/event-stream"))
        await stream.head()
        self.ready.set()
        async with asyncio.TaskGroup() as group:
            while True:
                line = await stream.reader.readline()
                if line.startswith(b"data: "):
                    message = json.loads(line[6:])
                    if (due := message["payload"]["due"]) >= self._began:  # others are left from a run before
                        self.latencies.append(monotonic() - due)
                    self._arrived.append(message["message_id"])
                if len(self._arrived) >= ACKNOWLEDGE_AT_ONCE:
                    body = json.dumps({"message_ids": self._arrived}).encode()
                    self._arrived = []
                    request = rendered("POST", f"{self._path}/ack", self._agent["key"], body)
                    group.create_task(desk.exchange(request))


async def idle(task: dict[str, Any]) -> dict[str, Any]:
    """Waits until stdin is closed. The first waits end spread over the whole time, as with real agents."""

    async def wait(agent: dict[str, str]) -> None:
        connection = await Connection.open(task["port"])
        seconds = random.uniform(1, task["wait_seconds"])
        while True:
            path = f"/v1/inbox/{agent['address']}?wait={seconds:.3f}"
            status, answer = await connection.exchange(rendered("GET", path, agent["key"]))
            if status != 200:
                raise SystemExit(f"a wait was refused: {answer!r}")
            seconds = task["wait_seconds"]

    waiters = [asyncio.ensure_future(wait(agent)) for agent in task["agents"]]
    await asyncio.to_thread(sys.stdin.readline)
    for waiter in waiters:
        waiter.cancel()
    ended = await asyncio.gather(*waiters, return_exceptions=True)
    failed = [each for each in ended if not isinstance(each, asyncio.CancelledError)]
    if failed:
        raise SystemExit(f"{len(failed)} waits failed: {failed[0]!r}")
    return {}


def _post(agent: dict[str, str], task: dict[str, Any], due: float | None = None) -> bytes:
    return rendered("POST", "/v1/messages", agent["key"], body_of(agent, task["body_bytes"], due))


def body_of(agent: dict[str, str], size: int, due: float | None = None) -> bytes:
    """A message of this many bytes without an id of its own: the gateway mints one."""
    message = {
        "version": "1.0",
        "sender": agent["address"],
        "recipients": [agent["recipient"]],
        "subject": "Bench",
        "schema": "bench.v1",
        "payload": {"due": due, "text": ""},
    }
    bare = json.dumps(message)
    message["payload"] = {"due": due, "text": "x" * (size - len(bare))}
    return json.dumps(message).encode()


def _tail(name: str, latencies: Sequence[float]) -> dict[str, float]:
    if not latencies:
        return {}
    ordered = sorted(latencies)
    return {
        f"{name}_p{percent}_ms": ordered[min(len(ordered) * percent // 100, len(ordered) - 1)] * 1000
        for percent in (50, 99)
    }


TASKS = {
    "closed": closed,
    "open": open_loop,
    "idle": idle,
    "asking": asking_client.asking,
    "patient": asking_client.patient,
}


def main() -> None:
    task = json.loads(sys.stdin.readline())
    print(json.dumps(uvloop.run(TASKS[task["kind"]](task))))


if __name__ == "__main__":
    main()
