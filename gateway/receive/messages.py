"""The endpoint for sending, `POST /v1/messages`: one message or a batch of lines, from agents and gateways."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from typing import Any

import msgspec
from msgspec import structs

from gateway.admit.authenticate import Authenticator
from gateway.admit.caller import Caller
from gateway.flow.accept import Accept, NobodyAccepted
from gateway.http.answers import Answer, answer_error, answer_json
from gateway.http.limits import Lately
from gateway.http.request import JSON, Request
from gateway.http.roles import Role
from gateway.http.routing import Route
from gateway.http.turns import SECONDS_PER_RECIPIENT
from gateway.net.shares import Pot
from gateway.protocol.errors import AMTPError, Code, envelope
from gateway.protocol.message import Message
from gateway.protocol.status import Acceptance, render_acceptance, render_recipients
from gateway.protocol.timestamp import render_timestamp
from gateway.receive.hops import hops_of
from gateway.receive.openapi_operations import SEND
from gateway.receive.parsing import Parsing
from gateway.receive.waiting import ReplyWait, SentMessage, sent, wait_seconds
from gateway.store.clock import Clock
from gateway.store.row_ids import Mint

LINES = "application/x-ndjson"
LINES_MAX = 100  # messages in one batch


class MessageDoor:
    """The endpoint that accepts messages, and answers once they are committed."""

    def __init__(
        self,
        *,
        accept: Accept,
        waiting: ReplyWait,
        authenticator: Authenticator,
        parsing: Parsing,
        slots: Pot,
        line_slots: Pot,
        clock: Clock,
        mint: Mint,
        domains: Collection[str],
        hostname: str,
        body_bytes_max: int,
        room: Callable[[], bool],
    ) -> None:
        self._accept = accept
        self._waiting = waiting
        self._authenticator = authenticator
        self._parsing = parsing
        self._slots = slots
        self._line_slots = line_slots
        self._clock = clock
        self._mint = mint
        self._domains = frozenset(domains)
        self._hostname = hostname
        self._body_bytes_max = body_bytes_max
        self._room = Lately(room)  # whether the disk has room for more

    def routes(self) -> list[Route]:
        return [Route("POST", "/v1/messages", self.post, frozenset({Role.PUBLIC, Role.AGENTS}), SEND)]

    async def post(self, request: Request) -> Answer:
        kind = request.require_content_type(JSON, LINES)
        caller = await self._authenticator.caller(request)
        hops = hops_of(request.header_values("Via"), self._hostname)
        if hops:
            caller = replace(caller, hops=hops)
        if not self._room():
            raise AMTPError(
                Code.TEMPORARY_FAILURE, "The gateway's disk is nearly full; try again later.", retry_after=60
            )
        if kind == LINES:
            return await self._post_lines(request, caller)
        try:
            return await self._post_one(request, caller)
        except NobodyAccepted as refusal:
            return answer_error(refusal, request.request_id, self._clock.now(), _beside(refusal))

    async def _post_one(self, request: Request, caller: Caller) -> Answer:
        seconds = wait_seconds(preferences) if (preferences := request.header_values("Prefer")) else 0
        body = await request.body(self._body_bytes_max)
        holder = request.holder
        self._slots.take(holder)
        try:
            message = await self._read(body, caller)
            acceptance = await self._hand_in(message, caller)
        finally:
            self._slots.give(holder)
        immediate = self._accept.tells_outcome(message)
        if not seconds and not immediate:
            return answer_json(render_acceptance(acceptance), 202)
        kept = sent(message, immediate=immediate)
        del body, message  # don't hold the body while the request waits
        return await self._waiting.answer(request, caller, kept, acceptance, seconds)

    async def _read(self, body: bytes, caller: Caller) -> Message:
        local = caller.name is not None and caller.proven_domain is None
        message = await self._parse(body, caller, local or caller.development)
        if not local and caller.development and message.sender.domain not in self._domains:
            return await self._parse(body, caller, local=False)
        return message

    def _parse(self, body: bytes, caller: Caller, local: bool) -> Awaitable[Message]:
        row, now = self._mint(), self._clock.now()
        return self._parsing.message(body, holder=caller.holder, row=row, now=now, local=local)

    async def _hand_in(self, message: Message, caller: Caller) -> Acceptance:
        acceptance = as_named(message, await self._accept.accept(message, caller))
        return structs.replace(acceptance, misspelt=message.misspelt) if message.misspelt else acceptance

    async def _post_lines(self, request: Request, caller: Caller) -> Answer:
        """Answers each line in order, once all accepted messages are committed."""
        lines = self._lines(await request.body(self._body_bytes_max))
        with self._slots.held(request.holder):
            read = [await self._read_line(line, caller) for line in lines]  # one large line at a time
            taken = await asyncio.gather(*(self._take(each, caller) for each in read))
        return Answer(200, b"".join([await self._told(each, request) for each in taken]), LINES)

    def _lines(self, body: bytes) -> list[bytes]:
        lines = body.removesuffix(b"\n").split(b"\n")
        if len(lines) > LINES_MAX:
            raise AMTPError(
                Code.MESSAGE_TOO_LARGE,
                f"The batch has {len(lines)} lines: send at most {LINES_MAX}.",
                {"limit": LINES_MAX},
            )
        return lines

    async def _read_line(self, line: bytes, caller: Caller) -> Message | AMTPError:
        try:
            return await self._read(line, caller)
        except AMTPError as error:
            return error

    async def _take(
        self, message: Message | AMTPError, caller: Caller
    ) -> tuple[Acceptance, SentMessage | None] | AMTPError:
        if isinstance(message, AMTPError):
            return message
        await self._parsing.turns.have(len(message.recipients) * SECONDS_PER_RECIPIENT)
        try:
            with self._line_slots.held(caller.holder):
                acceptance = await self._hand_in(message, caller)
        except AMTPError as error:
            return error
        return acceptance, sent(message, immediate=True) if self._accept.tells_outcome(message) else None

    async def _told(
        self, taken: tuple[Acceptance, SentMessage | None] | AMTPError, request: Request
    ) -> bytes:
        """Renders the answer to one line, after waiting for its outcome; all lines wait at the same time."""
        try:
            if isinstance(taken, AMTPError):
                raise taken
            acceptance, kept = taken
            if kept is not None:
                acceptance = await self._waiting.outcome(request, kept, acceptance)
            await self._parsing.turns.have(len(acceptance.recipients) * SECONDS_PER_RECIPIENT)
            answer = render_acceptance(acceptance)
        except AMTPError as error:
            beside = _beside(error) if isinstance(error, NobodyAccepted) else {}
            answer = {**envelope(error, request.request_id, render_timestamp(self._clock.now())), **beside}
        return msgspec.json.encode(answer) + b"\n"


def as_named(message: Message, acceptance: Acceptance) -> Acceptance:
    """Returns the acceptance with the id under which the message was sent."""
    if message.came_as is None or acceptance.message_id != message.message_id:
        return acceptance
    return structs.replace(acceptance, message_id=message.came_as)


def _beside(refusal: NobodyAccepted) -> dict[str, Any]:
    beside: dict[str, Any] = {"recipients": render_recipients(refusal.recipients)}
    return beside if refusal.message_id is None else {"message_id": refusal.message_id, **beside}
