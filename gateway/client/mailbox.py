"""An agent's inbox at its gateway: leases of messages and their acknowledgements.

1. A leased message stays ours until it is settled: its lease is renewed as long as this process lives. If it dies
   the lease runs out, and another consumer gets the message.
2. Acknowledgements are sent in batches: one at a time costs twenty times as much.
3. A reply and messages sent with an acknowledgement are accepted in one transaction with it, or neither is.
4. A message that could not be handled is left until its lease runs out, not given back, so that the gateway counts
   it: after too many leases it becomes a dead letter, instead of being retried for ever.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from gateway.client.errors import Refused, Unreachable
from gateway.client.message import Fault, Message, read_message
from gateway.client.wire import FOREVER, Wire

LEASE_SECONDS = 60  # how long a message stays hidden after its consumer died
RENEWALS = 3  # in the time of one lease, so that one may be lost
WAIT_SECONDS = 50.0  # gateways wait a minute at most, and proxies hang up then
TOGETHER_MAX, TOGETHER_BYTES_MAX = 500, 256 * 1024  # acknowledgements in one request
SENDERS_MAX = 8  # such requests at once
CLOSE_SECONDS = 5.0  # for the last requests; otherwise leases run out by themselves

log = logging.getLogger("gateway.client")


class _Page(msgspec.Struct):
    messages: list[dict[str, Any]]
    has_more: bool = False
    cursor: str | None = None

    def read(self) -> list[Message]:
        return [read_message(body) for body in self.messages]


class _Result(msgspec.Struct):
    """The result of one acknowledgement."""

    error: Fault | None = None


class _Results(msgspec.Struct):
    results: list[_Result]


@dataclass(frozen=True, slots=True)
class _Done:
    """A message to acknowledge, and the future for the result."""

    message: Message
    entry: bytes  # as it is sent to the gateway
    told: asyncio.Future[Fault | None]


class Mailbox:
    def __init__(self, wire: Wire, address: str, lease_seconds: int = LEASE_SECONDS) -> None:
        self._wire = wire
        self._path = f"/v1/inbox/{quote(address, safe='')}"
        self._lease_seconds = lease_seconds
        self._wait_seconds_max = WAIT_SECONDS
        self._held: dict[str, set[str]] = {}  # entries by the token of their lease
        self._pending: list[_Done] = []
        self._senders: set[asyncio.Task[None]] = set()
        self._renewing: asyncio.Task[None] | None = None

    async def take(self, limit: int, wait_seconds: float = WAIT_SECONDS) -> list[Message]:
        """Leases the next messages, oldest first, and renews the leases until they are settled; may return none."""
        wait_seconds = min(wait_seconds, self._wait_seconds_max)
        query = {"limit": str(limit), "lease": str(self._lease_seconds), "wait": f"{wait_seconds:g}"}
        try:
            answer = await self._wire.call(
                "GET", self._path, query=query, wait_seconds=wait_seconds, patience_seconds=FOREVER
            )
        except Refused as refusal:
            most = refusal.details.get("limit")
            if refusal.details.get("field") != "wait" or not isinstance(most, int) or most >= wait_seconds:
                raise
            self._wait_seconds_max = most
            return await self.take(limit, most)
        messages = answer.read(_Page).read()
        for message in messages:
            self._held.setdefault(_token_of(message), set()).add(message.entry)
        if self._held and (self._renewing is None or self._renewing.done()):
            self._renewing = asyncio.create_task(self._renew())
        return messages

    async def look(self) -> list[Message]:
        """Returns the messages in the inbox that nobody has leased."""
        messages: list[Message] = []
        query = {"limit": "500"}
        while True:
            page = (await self._wire.call("GET", self._path, query=query)).read(_Page)
            messages += page.read()
            if not page.has_more or page.cursor is None:
                return messages
            query["cursor"] = page.cursor

    async def acknowledge(self, message: Message, beside: Mapping[str, Any] | None = None) -> Fault | None:
        """Acknowledges a message and sends `reply` and `messages` beside it. Returns the fault if that failed: its lease
        has ended and another consumer has it, or what is beside it was refused."""
        return await self._add(message, beside or {})

    def dismiss(self, message: Message) -> None:
        """Acknowledges in the background a message that was handed over already."""
        self._add(message, {})
        self.let_go(message)

    def let_go(self, message: Message) -> None:
        """Stops renewing the lease of a message."""
        if entries := self._held.get(_token_of(message)):
            entries.discard(message.entry)
            if not entries:
                del self._held[_token_of(message)]

    def holds(self, message: Message) -> bool:
        return message.entry in self._held.get(_token_of(message), ())

    async def give_back(self, messages: Sequence[Message]) -> None:
        """Ends the leases of these messages now, so that others get them with all else under the same leases."""
        for token in {_token_of(message) for message in messages if self.holds(message)}:
            if self._held.pop(token, None) is not None:
                await self._extend(token, 0)

    async def close(self) -> None:
        """Sends pending acknowledgements and gives back all leases, so that nobody waits for them to run out."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        tokens, self._held = list(self._held), {}
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(*self._senders)
                await asyncio.gather(*(self._extend(token, 0) for token in tokens))
        pending, self._pending = self._pending, []
        for done in pending:
            done.told.cancel()

    def _add(self, message: Message, beside: Mapping[str, Any]) -> "asyncio.Future[Fault | None]":
        entry = msgspec.json.encode({"message_id": message.id, "sender": message.sender, **beside})
        done = _Done(message, entry, asyncio.get_running_loop().create_future())
        self._pending.append(done)
        if len(self._senders) < SENDERS_MAX:
            sender = asyncio.create_task(self._send())
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        return done.told

    async def _renew(self) -> None:
        while self._held:
            await asyncio.sleep(self._lease_seconds / RENEWALS)
            await asyncio.gather(*(self._extend(token, self._lease_seconds) for token in list(self._held)))

    async def _extend(self, token: str, seconds: int) -> None:
        if not token:
            return
        body = msgspec.json.encode({"lease": token, "seconds": seconds})
        try:
            await self._wire.call("POST", f"{self._path}/lease", body, patience_seconds=self._lease_seconds)
        except (Refused, Unreachable) as failure:
            log.warning("A lease could not be %s: %s", "renewed" if seconds else "given back", failure)
            if isinstance(failure, Refused) and failure.final:
                self._held.pop(token, None)  # it has ended

    async def _send(self) -> None:
        while self._pending:
            batch = _together(self._pending)
            settled = {id(done) for done in batch}
            self._pending = [done for done in self._pending if id(done) not in settled]
            await self._settle(batch)

    async def _settle(self, batch: Sequence[_Done]) -> None:
        """Sends a batch of acknowledgements and sets the result of each."""
        try:
            results = await self._post(batch)
        except asyncio.CancelledError:  # closed, and the gateway is away
            for done in batch:
                done.told.cancel()
            raise
        except (Refused, Unreachable) as failure:
            if isinstance(failure, Refused) and failure.final and len(batch) > 1:
                for done in batch:  # one of them is malformed: don't fail the others
                    await self._settle([done])
                return
            for done in batch:
                if not done.told.done():
                    done.told.set_exception(failure)
                    done.told.exception()  # marks it as retrieved: nobody may be waiting any more
            return
        for done, result in zip(batch, results, strict=True):
            if result.error is None:
                self.let_go(done.message)
            else:
                log.warning("Message %s was not acknowledged: %s", done.message.id, result.error.message)
            if not done.told.done():
                done.told.set_result(result.error)

    async def _post(self, batch: Sequence[_Done]) -> "list[_Result]":
        lease = batch[0].message.lease
        body = b'{"message_ids":[%b]' % b",".join(done.entry for done in batch)
        body += b',"lease":%b}' % msgspec.json.encode(lease)
        answer = await self._wire.call("POST", f"{self._path}/ack", body)
        results = answer.read(_Results).results
        if len(results) != len(batch):
            raise Unreachable(f"What answers at {self._wire.gateway} does not speak AMTP: check the address.")
        return results


def _token_of(message: Message) -> str:
    """Returns the token of its lease; empty if the gateway knows no leases."""
    return message.lease or ""


def _together(pending: Sequence[_Done]) -> list[_Done]:
    """Returns a batch for one request: the first one and others under the same lease, up to the limits."""
    lease, size = pending[0].message.lease, 0
    batch: list[_Done] = []
    for done in pending:
        if done.message.lease == lease:
            size += len(done.entry)
            if batch and (size > TOGETHER_BYTES_MAX or len(batch) == TOGETHER_MAX):
                break
            batch.append(done)
    return batch
