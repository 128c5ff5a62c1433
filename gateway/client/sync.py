"""The same agent for code that does not await; it runs the async one in a thread.

with Agent("buyer@acme.test") as buyer:
    print(buyer.request("seller@acme.test", {"offer": 80}).payload)
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from gateway.client import agent as waiting
from gateway.client.callbacks import Callback
from gateway.client.compose import Kind, Said
from gateway.client.mailbox import LEASE_SECONDS
from gateway.client.message import Attachment, Message, Receipt
from gateway.client.work import CONCURRENCY, GRACE_SECONDS
from gateway.protocol.webhook_signature import Signed

T = TypeVar("T")
C = TypeVar("C", bound=Callback)


class Agent:
    """An agent with the methods of `gateway.client.agent.Agent`. Any thread may call it, also that of a callback."""

    def __init__(
        self,
        address: str,
        *,
        key: str | None = None,
        gateway: str | None = None,
        patience: float = waiting.PATIENCE_SECONDS,
        lease_seconds: int = LEASE_SECONDS,
        accept_unproven_replies: bool = False,
    ) -> None:
        self._agent = waiting.Agent(
            address,
            key=key,
            gateway=gateway,
            patience=patience,
            lease_seconds=lease_seconds,
            accept_unproven_replies=accept_unproven_replies,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    @property
    def address(self) -> str:
        return self._agent.address

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives leased messages back, closes the connections and ends the thread."""
        with self._starting:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(_ended(self._agent), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def send(self, to: str | Sequence[str], payload: Any = None, **said: Unpack[Said]) -> Receipt:
        return self._wait(self._agent.send(to, payload, **said))

    def request(
        self,
        to: str,
        payload: Any = None,
        *,
        timeout: float = waiting.REPLY_SECONDS,
        **said: Unpack[Said],
    ) -> Message:
        return self._wait(self._agent.request(to, payload, timeout=timeout, **said))

    def reply(self, message: Message, payload: Any = None, **said: Unpack[Said]) -> Receipt:
        return self._wait(self._agent.reply(message, payload, **said))

    def schedule(
        self,
        to: str | Sequence[str],
        payload: Any = None,
        *,
        at: datetime | None = None,
        after: timedelta | None = None,
        every: str | None = None,
        **said: Unpack[Said],
    ) -> Receipt:
        return self._wait(self._agent.schedule(to, payload, at=at, after=after, every=every, **said))

    def attach(
        self, file: str | Path | bytes, *, filename: str | None = None, content_type: str | None = None
    ) -> Attachment:
        return self._wait(self._agent.attach(file, filename=filename, content_type=content_type))

    def fetch(self, message: Message, place: int = 0) -> bytes:
        return self._wait(self._agent.fetch(message, place))

    def cancel(self, sent: Receipt | str) -> None:
        self._wait(self._agent.cancel(sent))

    def status(self, message_id: str) -> dict[str, Any]:
        return self._wait(self._agent.status(message_id))

    def inbox(self) -> Iterator[Message]:
        messages = self._agent.inbox()
        try:
            while True:
                yield self._wait(_next(messages))
        finally:
            if self._loop is not None:
                self._wait(messages.aclose())

    def acknowledge(self, message: Message) -> None:
        self._wait(self._agent.acknowledge(message))

    def on(self, *, schema: str | None = None, kind: Kind | None = None) -> Callable[[C], C]:
        return self._agent.on(schema=schema, kind=kind)

    def run(self, *, concurrency: int = CONCURRENCY, grace_seconds: float = GRACE_SECONDS) -> None:
        """Calls the callbacks until `stop()` or Ctrl-C."""
        self._wait(self._agent.run(concurrency=concurrency, grace_seconds=grace_seconds), self.stop)

    def stop(self) -> None:
        if self._loop is None:
            self._agent.stop()  # before it runs
        else:
            self._loop.call_soon_threadsafe(self._agent.stop)

    def verify_webhook(
        self, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime | None = None
    ) -> Signed:
        return self._agent.verify_webhook(headers, body, secrets, now)

    def _wait(self, work: Coroutine[Any, Any, T], interrupted: Callable[[], None] | None = None) -> T:
        """Returns the coroutine's result. On Ctrl-C it is cancelled, or stopped by calling `interrupted`."""
        doing = asyncio.run_coroutine_threadsafe(work, self._started())
        try:
            return doing.result()
        except KeyboardInterrupt:
            if interrupted is None:
                doing.cancel()
                raise
            interrupted()
            with suppress(asyncio.CancelledError):
                doing.result()
            raise

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name=f"amtp {self.address}", daemon=True
                )
                self._thread.start()
            return self._loop


async def _next(messages: AsyncGenerator[Message, None]) -> Message:
    return await anext(messages)


async def _ended(agent: waiting.Agent) -> None:
    """Closes the agent and cancels the remaining tasks of the loop."""
    agent.stop()
    await agent.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others)
        await agent.close()  # leases they still held, and connections they opened
