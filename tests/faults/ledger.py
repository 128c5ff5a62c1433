"""The ledger: what was acknowledged, held against what can be read afterwards.

1. Every acknowledged message is readable, once, in the inbox of its recipient.
2. A message with an idempotency key is sent again until it is acknowledged, whatever the answers before. It too is
   there once.
3. A message without one is sent once. Without an acknowledgement it may be there or not, but never twice.
"""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.faults.processes import Account

SENDERS = 16  # that wait for their answers at the same time
PAGE = 1000
ANSWER_SECONDS = 45.0  # a gateway in doubt asks its database for half a minute
PAUSE_SECONDS = 0.02  # of a client before it sends again
PATIENCE_SECONDS = 90.0


@dataclass(frozen=True, slots=True, order=True)
class Line:
    """One message for one recipient; the serial is what the sender wrote into it."""

    recipient: str
    message_id: str
    serial: int


@dataclass(frozen=True, slots=True)
class Findings:
    """How the ledger and the inboxes differ."""

    missing: frozenset[Line]  # acknowledged, and not to be read
    repeated: frozenset[Line]  # to be read more than once
    doubled: frozenset[int]  # serials that stand in an inbox under several ids

    @property
    def clean(self) -> bool:
        return not (self.missing or self.repeated or self.doubled)


@dataclass
class Ledger:
    acknowledged: list[Line] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)  # by status

    def compare(self, readable: Iterable[Line]) -> Findings:
        found = Counter(readable)
        places = Counter((line.recipient, line.serial) for line in found)
        return Findings(
            missing=frozenset(self.acknowledged) - set(found),
            repeated=frozenset(line for line, times in found.items() if times > 1),
            doubled=frozenset(serial for (_, serial), ids in places.items() if ids > 1),
        )


class Load:
    """Clients that send without a pause, over HTTP, for as long as the block lasts, and keep the ledger."""

    def __init__(self, urls: Sequence[str], sender: Account, recipients: Sequence[Account]) -> None:
        self.ledger = Ledger()
        self._urls = itertools.cycle(urls)
        self._sender = sender
        self._recipients = recipients
        self._serials = itertools.count()
        self._moved = asyncio.Condition()
        self._over = False
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        self._session = await self._stack.enter_async_context(
            aiohttp.ClientSession(connector=connector, timeout=timeout, headers=self._sender.headers)
        )
        self._senders = [asyncio.create_task(self._send_on()) for _ in range(SENDERS)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """No new messages; those with a key go on until they are acknowledged."""
        self._over = True
        try:
            async with asyncio.timeout(PATIENCE_SECONDS if error is None else 0):
                await asyncio.gather(*self._senders)
        except TimeoutError:
            if error is None:
                raise
        finally:
            await self._stack.aclose()

    async def acknowledged(self, more: int) -> None:
        """Until that many more messages are acknowledged."""
        wanted = len(self.ledger.acknowledged) + more
        async with asyncio.timeout(PATIENCE_SECONDS), self._moved:
            await self._moved.wait_for(lambda: len(self.ledger.acknowledged) >= wanted)

    async def _send_on(self) -> None:
        while not self._over:
            serial = next(self._serials)
            keyed = serial % 2 == 0
            while not await self._send(serial, keyed):
                await asyncio.sleep(PAUSE_SECONDS)
                if not keyed:
                    break

    async def _send(self, serial: int, keyed: bool) -> bool:
        recipient = self._recipients[serial % len(self._recipients)]
        message: dict[str, Any] = {
            "sender": self._sender.address,
            "recipients": [recipient.address],
            "payload": {"serial": serial},
        }
        if keyed:
            message["idempotency_key"] = f"key-{serial}"
        try:
            url = f"{next(self._urls)}/v1/messages"
            async with self._session.post(url, data=json.dumps(message)) as response:
                self.ledger.answers[response.status] += 1
                if response.status != 202:
                    return False
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
        async with self._moved:
            self.ledger.acknowledged.append(Line(recipient.address, answer["message_id"], serial))
            self._moved.notify_all()
        return True


async def read_all(session: aiohttp.ClientSession, url: str, accounts: Iterable[Account]) -> list[Line]:
    """Everything that lies in these inboxes."""
    return [line for account in accounts for line in await _read(session, url, account)]


async def _read(session: aiohttp.ClientSession, url: str, account: Account) -> list[Line]:
    lines: list[Line] = []
    cursor = ""
    while True:
        place = f"{url}/v1/inbox/{account.address}?limit={PAGE}{cursor}"
        async with session.get(place, headers=account.headers) as response:
            assert response.status == 200, await response.text()
            page = await response.json()
        lines += [
            Line(account.address, message["message_id"], message["payload"]["serial"])
            for message in page["messages"]
        ]
        if not page["has_more"]:
            return lines
        cursor = f"&cursor={page['cursor']}"
