"""The straight way: a message committed for an inbox that only one stream reads goes to that stream from memory.

1. An entry is promised to the stream before the commit, which writes it as read, as a look would have done.
2. A promise can't be kept if the stream ended or the commit is in doubt: its entry is unread again, and rings. The
   promises of a process that died are open entries, like all that it handed out: a stream that reconnects begins
   with everything open.
3. Few and small messages are promised at a time; the stream finds all others by a look.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import asyncpg

from gateway.protocol.errors import AMTPError
from gateway.store.admitted import Admitted, Entry, Place
from gateway.store.database import Database
from gateway.store.inbox.inbox import Item
from gateway.store.wakeups.bell import Bell, Ear
from gateway.store.wakeups.topics import Topic, notice_of, reply_topics, topics_of

PROMISED_MAX = 64  # to one stream, and not handed out yet
BODY_BYTES_MAX = 16_384
GIVEN_BACK_AT_ONCE = 1000
AGAIN_SECONDS = 1.0


class Hand(Ear):
    """The ear of a stream, which also takes what was committed."""

    __slots__ = ("_items", "_willing", "caught_up", "closed", "promised")

    def __init__(self, willing: Callable[[], bool]) -> None:
        super().__init__()
        self._items: list[Item] = []
        self._willing = willing
        self.caught_up = False  # its stream handed out all that was there
        self.closed = False
        self.promised = 0

    def takes(self) -> bool:
        """Returns whether one more entry may be promised."""
        return self.caught_up and self.promised < PROMISED_MAX and self._willing()

    def give(self, item: Item) -> None:
        self._items.append(item)
        self._wake()

    def take(self) -> list[Item]:
        """Returns the items given since the last call."""
        items, self._items = self._items, []
        self.promised -= len(items)
        return items

    def _has_news(self) -> bool:
        return bool(self._items) or super()._has_news()


class Straight:
    def __init__(self, database: Database, bell: Bell) -> None:
        self._database = database
        self._bell = bell
        self._owed: list[Place] = []  # what is to be given back
        self._owing = asyncio.Event()

    @contextmanager
    def hand(self, agent: int, willing: Callable[[], bool]) -> Iterator[Hand]:
        """Yields a hand for a stream of this inbox, registered while the block runs."""
        hand = Hand(willing)
        with self._bell.listening(agent, hand):
            try:
                yield hand
            finally:
                hand.closed = True
                self.give_back((item.row, agent) for item in hand.take())

    def promise(self, admitted: Iterable[Admitted]) -> "Promises":
        """Promises to streams what they can take of a batch about to be committed."""
        made: dict[Place, Hand] = {}
        for each in admitted:
            if len(each.message.body) > BODY_BYTES_MAX:
                continue
            for entry in each.entries:
                hand = self._bell.only(entry.agent)
                if isinstance(hand, Hand) and not entry.receipt and hand.takes():
                    hand.promised += 1
                    made[each.message.row, entry.agent] = hand
        return Promises(made, self.give_back)

    def give_back(self, places: Iterable[Place]) -> None:
        self._owed += places
        self._owing.set()

    async def run(self) -> None:
        """Gives back broken promises' entries, until cancelled."""
        while True:
            await self._owing.wait()
            self._owing.clear()
            while owed := self._owed[:GIVEN_BACK_AT_ONCE]:
                try:
                    await _give_back(self._database, owed)
                except (AMTPError, asyncpg.PostgresError):
                    await asyncio.sleep(AGAIN_SECONDS)
                else:
                    del self._owed[: len(owed)]
                    self._bell.ring({agent for _, agent in owed})


class Promises:
    """The promised entries of one batch."""

    def __init__(
        self,
        made: dict[Place, Hand] | None = None,
        give_back: Callable[[Iterable[Place]], None] = lambda _: None,
    ) -> None:
        self._made = made or {}
        self._give_back = give_back

    @property
    def places(self) -> Collection[Place]:
        """Returns the promised entries."""
        return self._made

    def keep(self, committed: Sequence[Admitted], at: datetime | None) -> set[Topic]:
        """Hands over the promised entries that were committed; returns the topics that are left to ring.

        Breaks the promises where the commit's time is not known.
        """
        if not self._made:
            return topics_of(committed)
        topics, broken = set[Topic](), list[Place]()
        for each in committed:
            topics.update(reply_topics(each.message))
            for entry in each.entries:
                place = each.message.row, entry.agent
                hand = self._made.pop(place, None)
                if hand is None:
                    topics.add(entry.agent)
                elif at is None or hand.closed:
                    hand.promised -= 1
                    broken.append(place)
                else:
                    hand.give(_item(each, entry, at))
        if broken:
            self._give_back(broken)
        self.withdraw()  # what repeats an older one
        return topics

    def break_off(self) -> None:
        """Breaks the promises of a batch whose commit is in doubt."""
        if self._made:
            self._give_back(list(self._made))
            self.withdraw()

    def withdraw(self) -> None:
        """Withdraws the promises of a batch that was not committed."""
        for hand in self._made.values():
            hand.promised -= 1
        self._made = {}


def _item(admitted: Admitted, entry: Entry, at: datetime) -> Item:
    """Returns the item that a query would have found."""
    return Item(
        row=admitted.message.row,
        body=admitted.message.body,
        address=entry.address,
        accepted_at=at,
        delivered_at=None,
        expires_at=admitted.message.expires_at,
        proven=admitted.proven,
        automatic=admitted.automatic,
        unread=True,
        lapses=0,
        lease_until=None,
        hops=admitted.hops,
    )


async def _give_back(database: Database, owed: Sequence[Place]) -> None:
    rows, agents = map(list, zip(*owed, strict=True))
    await database.execute(_GIVE_BACK, rows, agents, notice_of(set(agents)))


# As with every mark, what another statement holds is skipped: it is being acknowledged, or handed out.
_GIVE_BACK = """
with back as materialized (
    select e.message, e.agent
    from unnest($1::uuid[], $2::bigint[]) as u (message, agent), lateral (
        select message, agent from entries
        where message = u.message and agent = u.agent and acknowledged_at is null and dead_at is null
              and lease_until is null
        for no key update skip locked
    ) e
), unread as (
    update entries e set read_at = null from back where e.message = back.message and e.agent = back.agent
)
select pg_notify('amtp_inbox', $3)
"""
