"""The consumer loop of an agent: calls callbacks for messages and sends what they return as replies.

1. At most `concurrency` callbacks run; no more messages are leased than can run at once.
2. A callback's answer is sent with the acknowledgement, in one transaction: after a crash the work is repeated, but
   the answer is sent only once.
3. A failed callback is retried a few times; then the message is left until its lease runs out, and is delivered
   again. After too many leases the gateway moves it to the dead letters.
4. On stop it takes nothing new, lets callbacks finish within the grace, and gives the rest back.
"""

import asyncio
import logging
import random
from typing import Any

import msgspec

from gateway.client.callbacks import Callbacks, call
from gateway.client.compose import NO_REPLY, Answer, compose, members
from gateway.client.errors import Refused, Unreachable
from gateway.client.expecting import Expected
from gateway.client.mailbox import Mailbox
from gateway.client.message import Fault, Message
from gateway.client.wire import pause_seconds
from gateway.protocol.errors import RETRY_AFTER_STATUSES, STATUS_OF, Code

CONCURRENCY = 10
ATTEMPTS_MAX = 3  # calls of a callback for one message before it is left to its lease
GRACE_SECONDS = 30.0  # for running callbacks when the agent is stopped

log = logging.getLogger("gateway.client")


class Work:
    def __init__(
        self,
        address: str,
        mailbox: Mailbox,
        expected: Expected,
        callbacks: Callbacks,
        concurrency: int,
    ) -> None:
        self._address = address
        self._mailbox = mailbox
        self._expected = expected
        self._callbacks = callbacks
        self._concurrency = concurrency
        self._running: dict[asyncio.Task[None], Message] = {}

    async def run(self, stop: asyncio.Event, grace_seconds: float) -> None:
        """Works until told to stop."""
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                room = self._concurrency - len(self._running)
                for message in await self._taken(room, stopping):
                    task = asyncio.create_task(self._attend(message))
                    self._running[task] = message
                    task.add_done_callback(self._running.pop)
                if len(self._running) >= self._concurrency:
                    await asyncio.wait({stopping, *self._running}, return_when=asyncio.FIRST_COMPLETED)
            if self._running:
                await asyncio.wait(self._running, timeout=grace_seconds)
        finally:
            left: set[asyncio.Task[Any]] = {stopping, *self._running}
            unfinished = list(self._running.values())
            for task in left:
                task.cancel()
            await asyncio.wait(left)
            await self._mailbox.give_back(unfinished)

    async def _taken(self, room: int, stopping: "asyncio.Task[Any]") -> list[Message]:
        """Leases messages to work on; on stop returns none and gives back what was just leased."""
        taking = asyncio.create_task(self._mailbox.take(room))
        try:
            await asyncio.wait({taking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                if taking.done():
                    await self._mailbox.give_back(taking.result())
                return []
            return [message for message in taking.result() if not self._expected.take(message)]
        finally:
            taking.cancel()
            await asyncio.wait({taking})

    async def _attend(self, message: Message) -> None:
        """Handles a message: acknowledges it, or leaves it until its lease runs out."""
        try:
            said = await self._called(message)
            if said is not None:
                await self._settle(message, said)
        except (Refused, Unreachable) as failure:
            log.error("What came of message %s could not be told: %s", message.id, failure)
        self._mailbox.let_go(message)

    async def _called(self, message: Message) -> dict[str, msgspec.Raw] | None:
        """Calls the callback; returns what to send with the acknowledgement, or None if it failed or there is none."""
        callback = self._callbacks.choose(message)
        if callback is None:
            log.warning("No callback wants message %s from %s.", message.id, message.sender)
            return None
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                return self._said(message, await call(callback, message))
            except Exception:
                log.exception(
                    "The callback for message %s failed, %d of %d.", message.id, attempt, ATTEMPTS_MAX
                )
            if attempt < ATTEMPTS_MAX:
                await asyncio.sleep(pause_seconds(attempt, random.random()))
        return None

    def _said(self, message: Message, returned: Any) -> dict[str, msgspec.Raw]:
        """Returns the reply and further messages; the gateway adds the reply's recipient and thread."""
        said: dict[str, msgspec.Raw] = {}
        if returned is None:
            return said
        answer = returned if isinstance(returned, Answer) else Answer(returned)
        if answer.payload is not NO_REPLY:
            if _wants_reply(message):
                said["reply"] = _raw(members(answer.payload, answer.said))
            else:
                log.info("Message %s is not one to answer: the reply is dropped.", message.id)
        if answer.letters:
            bodies = [compose(self._address, each.to, each.payload, each.said) for each in answer.letters]
            said["messages"] = _raw([msgspec.Raw(body) for body in bodies])
        return said

    async def _settle(self, message: Message, said: dict[str, msgspec.Raw]) -> None:
        """Acknowledges with the answer; without it if the answer is refused for good."""
        fault = await self._mailbox.acknowledge(message, said)
        if fault is not None and said and fault.code != Code.CONFLICT and not _passes(fault):
            log.error("The answer to message %s was refused: %s (%s)", message.id, fault.message, fault.code)
            await self._mailbox.acknowledge(message)


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _wants_reply(message: Message) -> bool:
    """Returns whether the message is to be answered; answers are not, or two agents would loop."""
    return not message.automatic and message.kind != "response"


def _passes(fault: Fault) -> bool:
    """Returns whether a retry may succeed; then the message is left to be delivered again."""
    try:
        return STATUS_OF[Code(fault.code)] in RETRY_AFTER_STATUSES
    except (ValueError, KeyError):
        return False
