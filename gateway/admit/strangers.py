"""The limits shared by all unproven senders: a rate, storage, and a share of each inbox.

1. Agents, and peers that prove who they are, never meet these limits.
2. The rate is counted in memory; each process of a gateway has its part of it.
3. Storage is counted in memory too, and read from the database every few seconds while such mail comes: agents
   acknowledge, and other processes store.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic

from gateway.config.sections import LimitSettings
from gateway.journal.journal import Journal
from gateway.protocol.errors import AMTPError, Code
from gateway.store.admitted import Entry, Queued, weight_of
from gateway.store.agents.agents import Resident

BURST_SECONDS = 60  # a minute's worth may come at once
ROOM_RETRY_SECONDS = 60
COUNT_REST = 20  # times as long as a count took is waited before the next

Kept = Mapping[
    int | str, int
]  # bytes by agent: its number for what lies in its inbox, its name for what is queued


class Strangers:
    """The common budget of all unproven senders."""

    def __init__(
        self,
        limits: LimitSettings,
        journal: Journal,
        count: Callable[[], Awaitable[Kept]],
        disk_free_bytes: Callable[[], int | None],
        *,
        processes: int = 1,
        seconds: Callable[[], float] = monotonic,
    ) -> None:
        """Takes the limits; `count` reads what is stored; `disk_free_bytes` is None if the database has its own disk."""
        self._journal = journal
        self._count = count
        self._disk_free_bytes = disk_free_bytes
        self._processes = processes
        self._seconds = seconds
        self._kept: Counter[int | str] = Counter()
        self._lately: Counter[int | str] = Counter()  # since the last count began
        self._stored_bytes = 0
        self._came = True  # unproven mail, since the last count; without any, none is needed
        self._rests_until = 0.0
        self._filled_at = seconds()
        self.adopt(limits)
        self._messages, self._bytes = self._messages_max, self._bytes_max

    def adopt(self, limits: LimitSettings) -> None:
        """Applies other limits from now on."""
        self._limits = limits
        self._messages_max = limits.unproven_messages_per_second * BURST_SECONDS / self._processes
        self._bytes_max = limits.unproven_bytes_per_second * BURST_SECONDS / self._processes

    def arrive(self, size_bytes: int, client: str) -> None:
        """Admits a message of this size; raises where unproven mail comes too fast or its storage is full."""
        self._came = True
        self._fill()
        if self._messages < 1 or self._bytes <= 0:
            raise self._too_fast(client)
        if self._stored_bytes >= self._limits.unproven_stored_bytes:
            raise self._no_room("unproven_room", client)
        free = self._disk_free_bytes()
        if free is not None and free < self._limits.unproven_disk_free_bytes:
            raise self._no_room("unproven_disk", client)
        self._messages -= 1
        self._bytes -= size_bytes

    def check_inbox(self, resident: Resident) -> None:
        """Raises where an agent has as much unproven mail as one inbox may hold."""
        kept = self._kept[resident.id] + self._kept[resident.name]
        if kept >= self._limits.unproven_inbox_bytes:
            self._journal.security("unproven_inbox", "", agent=resident.name)
            raise AMTPError(
                Code.QUEUE_FULL,
                f"The inbox of {resident.name} holds as much mail of unproven senders as it may; try again later.",
                retry_after=ROOM_RETRY_SECONDS,
            )

    def keep(self, entries: list[Entry], queued: list[Queued], body_bytes: int) -> None:
        """Counts what is about to be stored."""
        places: list[int | str] = [entry.agent for entry in entries]
        places += [delivery.recipient for delivery in queued]
        weight = weight_of(body_bytes, len(places))
        for place in places:
            self._kept[place] += weight
            self._lately[place] += weight
            self._stored_bytes += weight

    async def look(self) -> None:
        """Reads the amount really stored, if unproven mail came since the last time."""
        started = self._seconds()
        if not self._came or started < self._rests_until:
            return
        self._came, self._lately = False, Counter()
        found = Counter(await self._count())
        self._kept = found + self._lately
        self._stored_bytes = self._kept.total()
        self._journal.measured_unproven(self._stored_bytes)
        now = self._seconds()
        self._rests_until = now + COUNT_REST * (now - started)

    def _fill(self) -> None:
        now = self._seconds()
        part, self._filled_at = (now - self._filled_at) / BURST_SECONDS, now
        self._messages = min(self._messages_max, self._messages + part * self._messages_max)
        self._bytes = min(self._bytes_max, self._bytes + part * self._bytes_max)

    def _too_fast(self, client: str) -> AMTPError:
        self._journal.security("unproven_pace", client)
        return AMTPError(
            Code.RATE_LIMIT_EXCEEDED,
            "Unproven senders together send faster than is taken here; slow down, or agree on a key.",
            retry_after=self._seconds_to_wait(),
        )

    def _seconds_to_wait(self) -> int:
        """Returns the seconds until a message fits again."""
        messages = (1 - self._messages) / self._messages_max
        size = -self._bytes / self._bytes_max
        return max(1, int(BURST_SECONDS * max(messages, size)) + 1)

    def _no_room(self, kind: str, client: str) -> AMTPError:
        self._journal.security(kind, client)
        return AMTPError(
            Code.QUEUE_FULL,
            "All the room for mail of unproven senders is taken; try again later, or agree on a key.",
            retry_after=ROOM_RETRY_SECONDS,
        )
