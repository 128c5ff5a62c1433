"""Agents that write to each other and keep books: what was acknowledged, and what lies in which inbox."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from examples.demo.house import Broken, House

TRY_AGAIN_SECONDS = 0.2
PAGE_MESSAGES = 1000
FINAL_REFUSALS = range(400, 500)


@dataclass(frozen=True)
class Agent:
    address: str
    key: str
    house: House = field(repr=False)

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


@dataclass
class Books:
    """By message number: who acknowledged it for whom, and how often it was found in which inbox."""

    count: int
    acknowledged: dict[int, str] = field(default_factory=dict)  # number: recipient
    sent_again: int = 0
    entries: dict[str, tuple[int, str]] = field(default_factory=dict)  # entry: number, inbox
    half: asyncio.Event = field(default_factory=asyncio.Event)  # half of the messages are acknowledged

    def acknowledge(self, number: int, recipient: str) -> None:
        self.acknowledged[number] = recipient
        if len(self.acknowledged) * 2 >= self.count:
            self.half.set()

    def found(self) -> Counter[tuple[int, str]]:
        return Counter(self.entries.values())

    def faults(self) -> list[str]:
        """What contradicts that every acknowledged message arrived exactly once, and nothing else did."""
        found = self.found()
        wanted = set(self.acknowledged.items())
        faults = [f"{number} to {inbox} is missing" for number, inbox in sorted(wanted - set(found))]
        faults += [
            f"{number} to {inbox} came {times} times" for (number, inbox), times in found.items() if times > 1
        ]
        faults += [f"{number} came to {inbox} unasked" for number, inbox in sorted(set(found) - wanted)]
        if len(self.acknowledged) < self.count:
            faults.append(f"{self.count - len(self.acknowledged)} messages were never acknowledged")
        return faults

    def complete(self) -> bool:
        return len(self.acknowledged) == self.count and set(self.found()) >= set(self.acknowledged.items())

    def acknowledged_for(self, domain: str) -> int:
        return sum(recipient.endswith(f"@{domain}") for recipient in self.acknowledged.values())

    def arrived_at(self, domain: str) -> int:
        return len({number for number, inbox in self.entries.values() if inbox.endswith(f"@{domain}")})


async def send(sender: Agent, recipient: Agent, number: int, books: Books) -> None:
    """Sends one message, again and again under its key, until it is acknowledged."""
    message = {
        "sender": sender.address,
        "recipients": [recipient.address],
        "idempotency_key": f"demo-{number}",
        "subject": f"Message {number}",
        "payload": {"number": number},
    }
    while not await _acknowledged(sender, message):
        books.sent_again += 1
        await asyncio.sleep(TRY_AGAIN_SECONDS)
    books.acknowledge(number, recipient.address)


async def _acknowledged(sender: Agent, message: dict[str, Any]) -> bool:
    house = sender.house
    try:
        async with house.session.post(
            f"{house.url}/v1/messages", json=message, headers=sender.authorization
        ) as answer:
            if answer.status in FINAL_REFUSALS:
                raise Broken(f"{house.domain} refuses a message: {await answer.text()}")
            return answer.status == 202
    except (aiohttp.ClientError, TimeoutError):
        return False


async def watch(agent: Agent, books: Books) -> None:
    """Notes what comes into the agent's inbox, for ever, whether or not its gateway lives.

    An answer that broke off may have marked messages as read: so everything is looked at before going on.
    """
    while True:
        try:
            await count(agent, books)
            while True:
                for entry, number in (await _page(agent, "status=unread&wait=1"))[0]:
                    books.entries[entry] = (number, agent.address)
        except (aiohttp.ClientError, TimeoutError):
            await asyncio.sleep(TRY_AGAIN_SECONDS)


async def count(agent: Agent, books: Books) -> None:
    """Notes all that lies in the agent's inbox, page by page: this is the proof."""
    query = ""
    while True:
        found, cursor = await _page(agent, query)
        for entry, number in found:
            books.entries[entry] = (number, agent.address)
        if cursor is None:
            return
        query = f"cursor={cursor}"


async def _page(agent: Agent, query: str) -> tuple[list[tuple[str, int]], str | None]:
    """Entries with the number of their message, and where the next page begins."""
    house = agent.house
    async with house.session.get(
        f"{house.url}/v1/inbox/{agent.address}?limit={PAGE_MESSAGES}&{query}", headers=agent.authorization
    ) as answer:
        answer.raise_for_status()
        page = await answer.json()
    # A message of ours bears a number; anything else in an inbox, such as a report of failure, does not.
    found = [
        (message["gateway"]["entry"], message["payload"].get("number", -1)) for message in page["messages"]
    ]
    return found, page["cursor"] if page["has_more"] else None
