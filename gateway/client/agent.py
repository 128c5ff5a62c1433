"""The async client of an agent, which takes a few lines:

agent = Agent("echo@acme.test")

@agent.on()
async def echo(message: Message) -> object:
    return message.payload

asyncio.run(agent.run())
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack
from urllib.parse import quote
from uuid import uuid4

from gateway.client.attaching import fetch, upload
from gateway.client.callbacks import Callback, Callbacks, Rule
from gateway.client.compose import Kind, Said, answering, compose
from gateway.client.expecting import Expected
from gateway.client.mailbox import LEASE_SECONDS, Mailbox
from gateway.client.message import Attachment, Message, Receipt
from gateway.client.webhooks import Verifier
from gateway.client.wire import MESSAGES, Wire, hand_in
from gateway.client.work import CONCURRENCY, GRACE_SECONDS, Work
from gateway.protocol.address import parse_address
from gateway.protocol.webhook_signature import Signed

GATEWAY_DEFAULT = "http://127.0.0.1:8080"
PATIENCE_SECONDS = 60.0
REPLY_SECONDS = 60.0
AT_ONCE = 10  # messages leased at a time by `inbox()`, which yields them one by one

C = TypeVar("C", bound=Callback)


class Agent:
    """An agent: sends, requests, reads and answers as one address.

    `key` and `gateway` come from AMTP_KEY and AMTP_GATEWAY if they are not given. A call is retried for `patience`
    seconds while the gateway is down or busy; then it raises Unreachable, or Refused with the gateway's code.
    `request` takes replies of proven senders only, unless `accept_unproven_replies` is set. Use it as
    `async with Agent(…) as agent`, or call `close()` in the end; `run()` does so by itself.
    """

    def __init__(
        self,
        address: str,
        *,
        key: str | None = None,
        gateway: str | None = None,
        patience: float = PATIENCE_SECONDS,
        lease_seconds: int = LEASE_SECONDS,
        accept_unproven_replies: bool = False,
    ) -> None:
        self.address = parse_address(address, "address").written
        gateway = gateway or os.environ.get("AMTP_GATEWAY") or GATEWAY_DEFAULT
        self._wire = Wire(gateway, key or os.environ.get("AMTP_KEY"), patience)
        self._mailbox = Mailbox(self._wire, self.address, lease_seconds)
        self._expected = Expected(self._wire, self._mailbox, unproven=accept_unproven_replies)
        self._callbacks = Callbacks()
        self._verifier = Verifier()
        self._stop = asyncio.Event()
        self._entered = 0

    async def __aenter__(self) -> Self:
        self._entered += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered -= 1
        if self._entered <= 0:
            await self.close()

    async def close(self) -> None:
        """Gives leased messages back and closes the connections."""
        self._expected.close()
        await self._mailbox.close()
        await self._wire.close()

    async def send(self, to: str | Sequence[str], payload: Any = None, **said: Unpack[Said]) -> Receipt:
        """Sends a message; when this returns, the gateway has committed it.

        Some recipients may be refused while others are accepted: see `receipt.refused`. If all are, Refused is raised.
        An idempotency key is made unless you give one; give one to call again safely after a crash of your own.
        """
        return await hand_in(self._wire, self._compose(to, payload, said))

    async def request(
        self, to: str, payload: Any = None, *, timeout: float = REPLY_SECONDS, **said: Unpack[Said]
    ) -> Message:
        """Sends a message and returns the reply; raises NoReply after `timeout` seconds, Undelivered if delivery fails.

        The reply is acknowledged, and not given to a callback.
        """
        message_id = str(uuid4())
        body = self._compose(to, payload, {"message_id": message_id, "kind": "request", **said})
        return await self._expected.reply(message_id, to, body, timeout)

    async def reply(self, message: Message, payload: Any = None, **said: Unpack[Said]) -> Receipt:
        """Answers a message, at its reply address, with its thread and correlation ids."""
        return await hand_in(
            self._wire, self._compose(message.reply_to, payload, {**answering(message), **said})
        )

    async def schedule(
        self,
        to: str | Sequence[str],
        payload: Any = None,
        *,
        at: datetime | None = None,
        after: timedelta | None = None,
        every: str | None = None,
        **said: Unpack[Said],
    ) -> Receipt:
        """Sends later: `at` a time, `after` a delay, or repeatedly: `every` is five cron fields in UTC."""
        if sum(when is not None for when in (at, after, every)) != 1:
            raise TypeError("schedule() takes one of at=, after= and every=")
        if after is not None:
            at = datetime.now(UTC) + after
        return await hand_in(
            self._wire, self._compose(to, payload, {"deliver_after": at, "repeat": every, **said})
        )

    async def attach(
        self, file: str | Path | bytes, *, filename: str | None = None, content_type: str | None = None
    ) -> Attachment:
        """Uploads a file, given by its path or as bytes, for `send(…, attachments=[…])`.

        The gateway keeps it as long as the message; a file that no message names is removed after a day.
        """
        return await upload(self._wire, Path(file) if isinstance(file, str) else file, filename, content_type)

    async def fetch(self, message: Message, place: int = 0) -> bytes:
        """Returns the content of a message's attachment, after checking its hash."""
        return await fetch(self._wire, message, place)

    async def cancel(self, sent: Receipt | str) -> None:
        """Cancels deliveries that have not begun; for the receipt of a schedule, cancels the schedule."""
        if isinstance(sent, Receipt) and sent.schedule is not None:
            path = f"/v1/schedules/{quote(sent.schedule.id, safe='')}"
        else:
            path = _path_of(sent.message_id if isinstance(sent, Receipt) else sent)
        await self._wire.call("DELETE", path)

    async def status(self, message_id: str) -> dict[str, Any]:
        """Returns the status of a message, for each of its recipients."""
        return (await self._wire.call("GET", f"{_path_of(message_id)}/status")).read(dict[str, Any])

    async def inbox(self) -> AsyncGenerator[Message, None]:
        """Yields messages, oldest first, without end; each is acknowledged when you ask for the next.

        When you leave the loop, the current message is given back, unless you acknowledged it.
        """
        open_messages: deque[Message] = deque()
        try:
            while True:
                taken = await self._mailbox.take(AT_ONCE)
                open_messages += [message for message in taken if not self._expected.take(message)]
                while open_messages:
                    yield open_messages[0]
                    await self.acknowledge(open_messages.popleft())
        finally:
            await self._mailbox.give_back(open_messages)

    async def acknowledge(self, message: Message) -> None:
        """Acknowledges a message, so that it is not shown again. Repeating it does no harm."""
        if self._mailbox.holds(message):
            await self._mailbox.acknowledge(message)
            self._mailbox.let_go(message)

    def on(self, *, schema: str | None = None, kind: Kind | None = None) -> Callable[[C], C]:
        """Registers a callback for messages of that schema or kind; without either, for all others.

        It returns the reply: a payload, or an Answer for more than a payload; None sends no reply. A callback that is not
        a coroutine function runs in a thread.
        """

        def register(callback: C) -> C:
            self._callbacks.add(Rule(callback, schema, kind))
            return callback

        return register

    async def run(self, *, concurrency: int = CONCURRENCY, grace_seconds: float = GRACE_SECONDS) -> None:
        """Calls the callbacks for incoming messages, at most `concurrency` at a time, until `stop()`."""
        if not self._callbacks:
            raise ValueError(f"{self.address} has nothing to run: register a callback with @agent.on()")
        work = Work(self.address, self._mailbox, self._expected, self._callbacks, max(concurrency, 1))
        async with self:
            try:
                await work.run(self._stop, grace_seconds)
            finally:
                self._stop.clear()

    def stop(self) -> None:
        """Ends `run()`: takes no new messages, lets callbacks finish, gives the rest back."""
        self._stop.set()

    def verify_webhook(
        self, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime | None = None
    ) -> Signed:
        """Checks a webhook request; raises AMTPError unless the gateway sent it just now and it was not seen before."""
        return self._verifier.verify_webhook(headers, body, secrets, now)

    def _compose(self, to: str | Sequence[str], payload: Any, said: Mapping[str, Any]) -> bytes:
        key = said.get("idempotency_key") or str(uuid4())
        return compose(self.address, to, payload, {**said, "idempotency_key": key})


def _path_of(message_id: str) -> str:
    return f"{MESSAGES}/{quote(message_id, safe='')}"
