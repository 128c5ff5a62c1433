"""An agent at work: messages come, callbacks run, what they return goes out as replies.

1. At most `concurrency` callbacks run; no more messages are taken than can be worked on at once.
2. A message is acknowledged when its callback has succeeded and its reply is accepted. A crash in between
   repeats the work; the reply has a key of its own, so that it is sent once.
3. A callback that fails is called again, some times; then the message is left to its lease, and comes back
   when that has run out. What nobody digests, the gateway puts aside.
4. Told to stop, it takes nothing new, lets what runs finish for a while, and gives the rest back.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Any

from gateway.client.callbacks import Callbacks, call
from gateway.client.compose import NO_REPLY, Answer, Letter, answering, compose, members
from gateway.client.errors import Refused, Unreachable
from gateway.client.expecting import Expected
from gateway.client.mailbox import Mailbox
from gateway.client.message import Message
from gateway.client.wire import Wire, hand_in, pause_seconds
from gateway.protocol.errors import Code

CONCURRENCY = 10
ATTEMPTS_MAX = 3  # calls of a callback for one message before it is left to its lease
GRACE_SECONDS = 30.0  # for what runs when the agent is told to stop

log = logging.getLogger("gateway.client")


class Work:
    def __init__(
        self,
        address: str,
        wire: Wire,
        mailbox: Mailbox,
        expected: Expected,
        callbacks: Callbacks,
        concurrency: int,
    ) -> None:
        self._address = address
        self._wire = wire
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
        """Messages to work on; none when told to stop, and what was just taken is given back then."""
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
        """From the message to its acknowledgement, or to being left alone for a while."""
        try:
            answer = await self._called(message)
            if answer is not None:
                await self._settle(message, answer)
        except (Refused, Unreachable) as failure:
            log.error("What came of message %s could not be handed in: %s", message.id, failure)
        self._mailbox.let_go(message)

    async def _called(self, message: Message) -> Answer | None:
        """What the callback answers; None when it won't."""
        callback = self._callbacks.choose(message)
        if callback is None:
            log.warning("No callback wants message %s from %s.", message.id, message.sender)
            return None
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                returned = await call(callback, message)
            except Exception:
                log.exception(
                    "The callback for message %s failed, %d of %d.", message.id, attempt, ATTEMPTS_MAX
                )
            else:
                return returned if isinstance(returned, Answer) else Answer(_payload(returned))
            if attempt < ATTEMPTS_MAX:
                await asyncio.sleep(pause_seconds(attempt, random.random()))
        return None

    async def _settle(self, message: Message, answer: Answer) -> None:
        """Hands in what the callback answers, and acknowledges."""
        payload = answer.payload
        if payload is not NO_REPLY and not _wants_reply(message):
            log.info("Message %s is not one to answer: the reply is dropped.", message.id)
            payload = NO_REPLY
        if message.exactly_once:
            await self._mailbox.acknowledge(message, _beside(payload, answer))
            return
        if payload is not NO_REPLY:
            said = {"idempotency_key": f"reply-{message.entry}", **answering(message), **answer.said}
            await self._send(message.reply_to, payload, said)
        for place, letter in enumerate(answer.letters):
            said = {"idempotency_key": f"letter-{message.entry}-{place}", **letter.said}
            await self._send(letter.to, letter.payload, said)
        await self._mailbox.acknowledge(message)

    async def _send(self, to: str | Sequence[str], payload: Any, said: dict[str, Any]) -> None:
        try:
            await hand_in(self._wire, compose(self._address, to, payload, said))
        except Refused as refusal:
            if refusal.code == Code.IDEMPOTENCY_CONFLICT:
                return  # it went out before a crash, in other words
            if not refusal.final:
                raise
            log.error("The answer to %s was refused, and again will not help: %s", to, refusal)


def _payload(returned: Any) -> Any:
    return NO_REPLY if returned is None else returned


def _wants_reply(message: Message) -> bool:
    """Two agents that answer each other's answers would never end."""
    return not message.automatic and message.kind != "response"


def _beside(payload: Any, answer: Answer) -> dict[str, Any]:
    """What an acknowledgement carries, to be accepted with it."""
    beside: dict[str, Any] = {}
    if payload is not NO_REPLY:
        beside["reply"] = members(payload, {"kind": "response", **answer.said})
    if answer.letters:
        beside["messages"] = [_carried(letter) for letter in answer.letters]
    return beside


def _carried(letter: Letter) -> dict[str, Any]:
    recipients = [letter.to] if isinstance(letter.to, str) else list(letter.to)
    return {"recipients": recipients, **members(letter.payload, letter.said)}
