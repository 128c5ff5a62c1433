"""The load of those who ask and wait for the answer with the request that asks; runs in the client's process."""

import asyncio
import json
import sys
from time import monotonic
from typing import Any

from tests.bench.exchange import Connection, Pool, rendered

WAIT_SECONDS = 60
LINES = 64  # over which the agent sends its replies
ACKNOWLEDGE_AT_ONCE = 100
BEGINNERS_PER_SECOND = 1000


async def asking(task: dict[str, Any]) -> dict[str, Any]:
    """Questions at a fixed rate; of each answer's time what the agent took for it is not counted."""
    (asker,) = task["agents"]
    answerer, pool = _Answerer(task["answerer"], task["port"]), Pool(task["port"])
    await pool.fill(task["connections"])
    latencies: list[float] = []
    missed = 0

    async def question(due: float) -> None:
        nonlocal missed
        status, answer = await pool.exchange(_question(asker, task["answerer"]["address"]))
        if status == 200:
            latencies.append(monotonic() - due - json.loads(answer)["reply"]["payload"]["took"])
        else:
            missed += 1

    async with asyncio.TaskGroup() as group:
        at_work = group.create_task(answerer.run())
        await answerer.ready.wait()
        started = monotonic()
        questions = []
        for number in range(int(task["rate"] * task["seconds"])):
            due = started + number / task["rate"]
            if (ahead := due - monotonic()) > 0:
                await asyncio.sleep(ahead)
            questions.append(group.create_task(question(due)))
        await asyncio.gather(*questions)
        at_work.cancel()
    ordered = sorted(latencies)
    return {
        "answered": len(ordered),
        "missed": missed,
        "p95_ms": ordered[len(ordered) * 95 // 100] * 1000 if ordered else None,
    }


async def patient(task: dict[str, Any]) -> dict[str, Any]:
    """Waits until stdin is closed; an answer of its own would be a fault."""
    (asker,) = task["agents"]

    async def wait(number: int) -> None:
        await asyncio.sleep(number / BEGINNERS_PER_SECOND)
        connection = await Connection.open(task["port"])
        while True:
            status, answer = await connection.exchange(_question(asker, task["silent"]))
            if status == 503:
                await asyncio.sleep(1)
            elif status != 202:
                raise ValueError(f"a wait was refused: {answer!r}")

    waiters = [asyncio.ensure_future(wait(number)) for number in range(task["connections"])]
    await asyncio.to_thread(sys.stdin.readline)
    for waiter in waiters:
        waiter.cancel()
    ended = await asyncio.gather(*waiters, return_exceptions=True)
    failed = [each for each in ended if not isinstance(each, asyncio.CancelledError)]
    if failed:
        raise SystemExit(f"{len(failed)} waits failed: {failed[0]!r}")
    return {}


class _Answerer:
    """An agent that answers what its stream brings, and acknowledges in hundreds."""

    def __init__(self, agent: dict[str, str], port: int) -> None:
        self._agent, self._port = agent, port
        self._path = f"/v1/inbox/{agent['address']}"
        self._pool = Pool(port)
        self._done: list[str] = []
        self.ready = asyncio.Event()

    async def run(self) -> None:
        stream = await Connection.open(self._port)
        await self._pool.fill(LINES)
        stream.send(rendered("GET", self._path, self._agent["key"], b"", "Accept: text/event-stream"))
        await stream.head()
        self.ready.set()
        async with asyncio.TaskGroup() as group:
            while True:
                line = await stream.reader.readline()
                if not line.startswith(b"data: "):
                    continue
                begun, message = monotonic(), json.loads(line[6:])
                group.create_task(self._reply(message, begun))
                self._done.append(message["message_id"])
                if len(self._done) >= ACKNOWLEDGE_AT_ONCE:
                    body = json.dumps({"message_ids": self._done}).encode()
                    self._done = []
                    request = rendered("POST", f"{self._path}/ack", self._agent["key"], body)
                    group.create_task(self._pool.exchange(request))

    async def _reply(self, message: dict[str, Any], begun: float) -> None:
        reply = {
            "sender": self._agent["address"],
            "recipients": [message["sender"]],
            "in_reply_to": message["message_id"],
            "payload": {"took": monotonic() - begun},
        }
        request = rendered("POST", "/v1/messages", self._agent["key"], json.dumps(reply).encode())
        status, answer = await self._pool.exchange(request)
        if status != 202:
            raise ValueError(f"a reply was refused: {answer!r}")


def _question(asker: dict[str, str], recipient: str) -> bytes:
    message = {"sender": asker["address"], "recipients": [recipient], "payload": {"text": "x" * 900}}
    body = json.dumps(message).encode()
    return rendered("POST", "/v1/messages", asker["key"], body, f"Prefer: wait={WAIT_SECONDS}")
