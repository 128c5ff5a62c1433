"""The notifier: posts waiting notices to subscribers, each target at its own pace.

1. A target has a window of its own, and a breaker after failures in a row; a dead one delays no other.
2. Results are written together: those that come back while one batch is written are the next.
3. At a stop, attempts under way get a moment; those not back by then are released, and sent again
   under the same id.
"""

import asyncio
from collections import Counter
from contextlib import suppress
from uuid import UUID

from gateway.features.notifications import notices
from gateway.features.notifications.audience import Audience
from gateway.features.notifications.escalation import Ladder
from gateway.features.notifications.events import CHALLENGE
from gateway.features.notifications.notices import CLAIM_MAX, DueNotice, Tried
from gateway.features.notifications.target import GONE, TRY_SECONDS, Target
from gateway.flow.lanes import new_token
from gateway.journal.journal import Journal
from gateway.protocol.errors import AMTPError
from gateway.store.database import Database

AT_ONCE_MAX = CLAIM_MAX  # tries under way, all targets together
PER_TARGET_MAX = 16
CLAIMED_PER_TARGET = PER_TARGET_MAX // 2
LEASE_SECONDS = 3 * TRY_SECONDS
POLL_SECONDS = 1.0  # how long a notice of another process can stay unseen
STIRRED_SECONDS = 0.01  # after a notice was made here: its commit is on its way
PARTING_SECONDS = 2.0


class Notifier:
    def __init__(
        self, *, database: Database, audience: Audience, target: Target, ladder: Ladder, journal: Journal
    ) -> None:
        self._database = database
        self._audience = audience
        self._target = target
        self._ladder = ladder
        self._journal = journal
        self._active: Counter[UUID] = Counter()
        self._shaky: set[UUID] = set()  # tried one at a time, until it is known how that went
        self._tries: dict[asyncio.Task[None], DueNotice] = {}
        self._done: list[Tried] = []
        self._writing = asyncio.Lock()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Runs until `stop`, and ends when nothing is under way any more."""
        pause = POLL_SECONDS
        while not self._stopping.is_set():
            stirred = self._audience.stirred.is_set()
            self._audience.stirred.clear()
            pause = STIRRED_SECONDS if stirred else min(2 * pause, POLL_SECONDS)
            try:
                claimed = await self._claim()
            except AMTPError:  # the database is away: what waits goes on waiting
                claimed = 0
            except Exception as failure:  # noqa: BLE001 - a fault in one round must not end the telling
                self._journal.broke("the notifier", failure)
                claimed = 0
            await self._rest(0.0 if claimed else pause)
        await self._part()

    def stop(self) -> None:
        self._stopping.set()
        self._audience.stirred.set()

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._audience.stirred.wait()
        except TimeoutError:
            pass

    async def _claim(self) -> int:
        room = AT_ONCE_MAX - len(self._tries)
        if room <= 0:
            return 0
        busy = {
            target for target, count in self._active.items() if count > PER_TARGET_MAX - CLAIMED_PER_TARGET
        }
        claimed = await notices.claim(
            self._database,
            closed=busy | self._shaky,
            per_target=CLAIMED_PER_TARGET,
            limit=room,
            lease_seconds=LEASE_SECONDS,
            token=new_token(),
        )
        for due in claimed:
            self._active[due.subscription] += 1
            if due.shaky:
                self._shaky.add(due.subscription)
            task = asyncio.create_task(self._tell(due))
            self._tries[task] = due
            task.add_done_callback(self._over)
        return len(claimed)

    async def _tell(self, due: DueNotice) -> None:
        try:
            tried = await self._target.tell(due)
            self._done.append(tried)
            await self._write()
        except AMTPError:  # the database is away: the lease lapses, and it is told again under its id
            pass
        except Exception as failure:  # noqa: BLE001 - one notice must not stop the others
            self._journal.broke("a notice", failure)

    async def _write(self) -> None:
        """Writes all results gathered so far, those of other callers too."""
        async with self._writing:
            tries, self._done = self._done, []
            if not tries:
                return
            kept, closed = await notices.settle(self._database, tries)
        for tried in kept:
            self._journal.noticed(
                tried.due.event, str(tried.due.id), tried.told, tried.again, tried.error or ""
            )
        if any(tried.told and tried.due.event == CHALLENGE for tried in kept):
            await self._audience.look()
        for target in closed:
            self._journal.webhook_closed(str(target))
        for target in {tried.due.subscription for tried in kept if tried.status == GONE}:
            await self._ladder.disable(target)

    def _over(self, task: asyncio.Task[None]) -> None:
        due = self._tries.pop(task)
        self._active[due.subscription] -= 1
        if not self._active[due.subscription]:
            del self._active[due.subscription]
            self._shaky.discard(due.subscription)
        self._audience.stirred.set()  # there is room for more

    async def _part(self) -> None:
        under_way = dict(self._tries)
        if not under_way:
            return
        _, late = await asyncio.wait(under_way, timeout=PARTING_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        with suppress(AMTPError):  # the leases lapse by themselves
            await notices.hand_back(self._database, [under_way[task] for task in late])
