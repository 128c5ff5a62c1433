"""Runtime: the collaborators that almost every part of a gateway uses, passed on as one."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gateway.journal.journal import Journal
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.row_ids import Mint
from gateway.store.wakeups.topics import Topic


@dataclass(frozen=True, slots=True)
class Runtime:
    database: Database
    clock: Clock
    row_ids: Mint
    journal: Journal
    ring: Callable[[Iterable[Topic]], None]  # wakes those who wait for what was committed
