"""Waits for the reply to a message, thousands at once: woken by the bell, looked up together.

1. A waiter gets an ear before it looks, so a reply committed in between is not missed.
2. Looks wanted at the same time are one statement, whether a ring or a poll caused them.
3. A reply is a message from a recipient that was asked, in reply to the message, to the sender's own agent. Mail for
   anybody else ends no wait. If the recipient's domain can prove itself, only a proven reply ends the wait; otherwise
   a proven one takes precedence.
4. While the database is away the wait goes on.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

import asyncpg

from gateway.protocol.errors import AMTPError
from gateway.protocol.status import LIVE, RecipientState, Status
from gateway.store.database import Database
from gateway.store.inbox.inbox import Item
from gateway.store.messages.messages import states
from gateway.store.wakeups.bell import Bell, Ear, hushed_at
from gateway.store.wakeups.topics import reply_topic

LOOKS_MAX = 250  # in one statement
CLOCKS_APART = timedelta(hours=1)  # how much earlier than its message a reply may say that it was written


@dataclass(frozen=True, slots=True)
class ReplyQuestion:
    """A message whose sender waits for the reply."""

    row: UUID
    message_id: str
    agent: int  # the sender's, and its name
    sender: str
    recipients: tuple[str, ...]  # names
    live: bool  # whether any of them was not delivered to yet


@dataclass(frozen=True, slots=True)
class Heard:
    """The reply, if there is one yet; the recipients' states only where they may have changed."""

    reply: Item | None = None
    states: Mapping[str, RecipientState] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Returns whether the wait is over: the reply is here, or no recipient is left that could reply."""
        if self.reply is not None:
            return True
        now = {state.status for state in self.states.values()}
        return bool(now) and now.isdisjoint({Status.DELIVERED, *LIVE})


class Permit(Protocol):
    """The right to wait for a reply."""

    def listening(self, ear: Ear, /) -> AbstractContextManager[None]:
        """Rings the ear when the permit may have ended."""

    async def ended(self) -> bool:
        """Returns whether it has ended; False where that can't be found out."""


class Replies:
    def __init__(
        self, database: Database, bell: Bell, provable: Callable[[], Awaitable[Collection[str]]]
    ) -> None:
        """Takes its collaborators; `provable` returns the domains elsewhere that can prove themselves."""
        self._database = database
        self._bell = bell
        self._provable = provable
        self._wanted: list[tuple[ReplyQuestion, asyncio.Future[Heard]]] = []
        self._arrived = asyncio.Event()
        self.waiting = 0  # how many wait now

    async def wait(
        self, asked: ReplyQuestion, seconds: float, ending: asyncio.Event, permit: "Permit | None" = None
    ) -> Heard:
        """Waits for the reply; returns what is known when it is there or can't come, at the timeout, or at `ending`.

        Whoever waits with a permit waits only while it holds.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        self.waiting += 1
        try:
            with ExitStack() as stack:
                ear = stack.enter_context(self._bell.ear(reply_topic(asked.message_id)))
                stack.enter_context(hushed_at(ending, ear))
                if permit is not None:
                    stack.enter_context(permit.listening(ear))
                while True:
                    heard = await self._look(asked)
                    left = deadline - loop.time()
                    if heard.over or left <= 0 or ending.is_set():
                        return heard
                    await ear.rung(left)
                    if permit is not None and await permit.ended():
                        return heard
        finally:
            self.waiting -= 1

    async def run(self) -> None:
        """Looks up replies for all waiters, until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._wanted:
                # The newest first: whom a reply woke does not stand behind all whom a poll woke.
                taken, self._wanted = self._wanted[-LOOKS_MAX:], self._wanted[:-LOOKS_MAX]
                for (_, future), heard in zip(taken, await self._news([a for a, _ in taken]), strict=True):
                    if not future.done():
                        future.set_result(heard)

    async def _look(self, asked: ReplyQuestion) -> Heard:
        future: asyncio.Future[Heard] = asyncio.get_running_loop().create_future()
        self._wanted.append((asked, future))
        self._arrived.set()
        return await future

    async def _news(self, asked: Sequence[ReplyQuestion]) -> list[Heard]:
        try:
            found = await self._replies(asked)
            live = {each.row for each in asked if each.live}
            known = await states(self._database, live) if live else {}
        except (AMTPError, asyncpg.PostgresError, ValueError):  # or a newer release's word in a state
            return [Heard()] * len(asked)
        return [Heard(found.get(place), known.get(each.row, {})) for place, each in enumerate(asked, 1)]

    async def _replies(self, asked: Sequence[ReplyQuestion]) -> dict[int, Item]:
        """Returns the first reply to each message that has one, by its place."""
        rows = await self._database.fetch(
            _FIND,
            [each.message_id for each in asked],
            [each.agent for each in asked],
            [each.sender for each in asked],
            [" ".join(each.recipients) for each in asked],
            _shortly_before(min(each.row for each in asked)),
            list(await self._provable()),
        )
        return {row["place"]: _item(row) for row in rows}


# Found by the index on in_reply_to, in the days since the oldest of the messages asked. What came for an agent lies in
# its inbox, or is on its way to its own URL.
_FIND = """
select asked.place, reply.*
from unnest($1::text[], $2::bigint[], $3::text[], $4::text[])
     with ordinality as asked (message_id, agent, sender, recipients, place)
cross join lateral (
    select m.id, m.body, came.address, m.accepted_at, came.delivered_at, m.expires_at, m.proven, m.automatic,
           came.unread, came.lapses, came.lease_until, coalesce(m.hops, '{}') as hops
    from messages m
    cross join lateral (
        select e.address, e.delivered_at, e.read_at is null as unread, e.lapses, e.lease_until
        from entries e where e.message = m.id and e.agent = asked.agent
        union all
        select d.address, null, true, 0, null
        from deliveries d
        where d.message = m.id and d.recipient = asked.sender and (d.attempts > 0 or d.due <= amtp_now())
        union all
        select s.address, s.settled_at, false, 0, null
        from settled s where s.message = m.id and s.recipient = asked.sender and s.status = 'delivered'
        limit 1
    ) came
    where m.in_reply_to = asked.message_id and m.id >= $5
      and m.sender = any (string_to_array(asked.recipients, ' '))
      and (m.proven or split_part(m.sender, '@', 2) <> all ($6::text[]))
      and (m.expires_at is null or m.expires_at > amtp_now())
    order by m.proven desc, m.id limit 1
) reply
"""


def _item(row: Any) -> Item:
    return Item(
        row=row["id"],
        body=row["body"],
        address=row["address"],
        accepted_at=row["accepted_at"],
        delivered_at=row["delivered_at"],
        expires_at=row["expires_at"],
        proven=row["proven"],
        automatic=row["automatic"],
        unread=row["unread"],
        lapses=row["lapses"],
        lease_until=row["lease_until"],
        hops=tuple(row["hops"]),
    )


def _shortly_before(row: UUID) -> UUID:
    """Returns a smaller id, by the time in it."""
    milliseconds = CLOCKS_APART // timedelta(milliseconds=1)
    return UUID(int=max(row.int - (milliseconds << 80), 0))
