"""Requests that wait for their reply, and the ways it can arrive.

The gateway answers a waiting request with the reply, which also lies in the inbox. A reply found while reading the
inbox is handed to its request only, and once.

1. A wait that ends early or breaks is repeated with the same idempotency key, which waits again.
2. If the gateway does not wait, or too many wait already, the inbox is polled, once for all such requests.
3. Only the recipient of a request can answer it. Its further answers are duplicates.
4. A reply of an unproven sender does not count, unless the agent accepts such replies: it stays in the inbox, like
   any message.
"""

import asyncio
import math
from dataclasses import dataclass
from typing import Any

from gateway.client.errors import NoReply, Undelivered
from gateway.client.mailbox import Mailbox
from gateway.client.message import Message, Receipt, name_of, read_message
from gateway.client.wire import MESSAGES, Wire

ANSWERED_MAX = 10_000  # requests whose further answers are recognized as duplicates
WAIT_SECONDS = 50.0  # of one attempt; gateways wait a minute at most
WAITS_MAX = 384  # at once; each holds a connection, and others must get through
EARLY = 0.5  # an answer before this part of that time means that the gateway doesn't wait
LOOK_SECONDS = 1.0  # between two polls of the inbox
LOOKS = 10  # polls before the gateway is asked to wait again


class Waited(Receipt, frozen=True):
    """A receipt that has the reply if the gateway waited for it."""

    reply: dict[str, Any] | None = None


@dataclass(slots=True)
class Request:
    """A waiting request. The first id is ours, so that its reply is recognized before the gateway has answered; if its
    key was used before, the gateway returns the earlier id."""

    ids: list[str]
    recipient: str
    body: bytes
    reply: asyncio.Future[Message]
    doubted: bool = False  # a reply of an unproven sender came


class Expected:
    """The requests of one agent that have no reply yet."""

    def __init__(self, wire: Wire, mailbox: Mailbox, *, unproven: bool) -> None:
        """`unproven` says whether answers of unproven senders are taken."""
        self._unproven = unproven
        self._wire = wire
        self._mailbox = mailbox
        self._open: dict[str, Request] = {}
        self._answered: dict[str, str] = {}  # who answered, by the request's id
        self._looking: asyncio.Task[None] | None = None
        self._waits = 0  # requests the gateway waits for

    async def reply(self, message_id: str, recipient: str, body: bytes, seconds: float) -> Message:
        """Sends the request and returns its reply; raises NoReply if none comes in time."""
        loop = asyncio.get_running_loop()
        request = Request([message_id], name_of(recipient), body, loop.create_future())
        self._open[message_id] = request
        asking = asyncio.create_task(self._ask(request, loop.time() + seconds))
        try:
            both: set[asyncio.Future[Any]] = {asking, request.reply}
            await asyncio.wait(both, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not request.reply.done() and asking.done():
                asking.result()
            if not request.reply.done():
                raise NoReply(request.ids[-1], seconds, doubted=request.doubted)
            return request.reply.result()
        finally:
            asking.cancel()
            await asyncio.wait({asking})
            for known in request.ids:
                self._open.pop(known, None)

    def take(self, message: Message) -> bool:
        """Hands a reply to its request and acknowledges it; returns False for other messages."""
        asked = message.in_reply_to
        if asked is None:
            return False
        request = self._open.get(asked)
        recipient = self._answered.get(asked) if request is None else request.recipient
        if not message.is_failure_report and name_of(message.sender) != recipient:
            return False
        if not self._believes(message):
            if request is not None:
                request.doubted = True
            return False
        if request is not None:
            self._hand(request, message)
        elif recipient is None:
            return False
        self._mailbox.dismiss(message)
        return True

    def _believes(self, message: Message) -> bool:
        return self._unproven or message.proven

    def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()

    async def _ask(self, request: Request, deadline: float) -> None:
        """Sends the request until there is a reply; cancelled by the coroutine that waits for it."""
        loop = asyncio.get_running_loop()
        while not request.reply.done():
            begun = loop.time()
            seconds = math.ceil(min(WAIT_SECONDS, max(deadline - begun, 1))) if self._waits < WAITS_MAX else 0
            self._waits += bool(seconds)
            try:
                answer = await self._wire.call(
                    "POST",
                    MESSAGES,
                    request.body,
                    {"Prefer": f"wait={seconds}"} if seconds else None,
                    wait_seconds=seconds,
                    patience_seconds=deadline - begun,
                )
            finally:
                self._waits -= bool(seconds)
            self._read(request, answer.read(Waited))
            if loop.time() - begun < seconds * EARLY or not seconds:
                await self._look_for(request)

    def _read(self, request: Request, answer: "Waited") -> None:
        if answer.message_id not in request.ids:
            request.ids.append(answer.message_id)
            self._open[answer.message_id] = request
        if answer.reply is not None:
            self.take(read_message(answer.reply))
        for recipient in answer.recipients:
            if recipient.undone and not request.reply.done():
                fault = recipient.error
                why = fault.message if fault else f"{recipient.address} did not get it: {recipient.status}."
                raise Undelivered(request.ids[-1], fault.code if fault else "", why)

    async def _look_for(self, request: Request) -> None:
        for _ in range(LOOKS):
            if request.reply.done():
                return
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look())
            await asyncio.shield(self._looking)

    async def _look(self) -> None:
        for message in await self._mailbox.look():
            self.take(message)
        await asyncio.sleep(LOOK_SECONDS)

    def _hand(self, request: Request, message: Message) -> None:
        for known in request.ids:
            if len(self._answered) >= ANSWERED_MAX:
                del self._answered[next(iter(self._answered))]
            self._answered[known] = request.recipient
        if request.reply.done():
            return
        if message.is_failure_report:
            said = message.payload if isinstance(message.payload, dict) else {}
            code, why = said.get("error_code"), said.get("error_message")
            request.reply.set_exception(
                Undelivered(request.ids[-1], str(code or ""), str(why or "It could not be delivered."))
            )
        else:
            request.reply.set_result(message)
