"""Long-lived requests: their authorization is checked again when the keys of their agent change."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from gateway.admit.remembered import DirectoryWatch
from gateway.store.wakeups.bell import Ear


class HeldOpen:
    """The waiting requests by agent. A change of an agent wakes its requests, which then check their authorization."""

    def __init__(self, watch: DirectoryWatch) -> None:
        self._ears: dict[str, set[Ear]] = {}
        watch.follow(self._changed)

    @contextmanager
    def listening(self, names: Collection[str], ear: Ear) -> Iterator[None]:
        """Rings this ear when one of the names changes, for as long as the block lasts."""
        for name in names:
            self._ears.setdefault(name, set()).add(ear)
        try:
            yield
        finally:
            for name in names:
                self._ears[name].discard(ear)
                if not self._ears[name]:
                    del self._ears[name]

    def _changed(self, _version: int, changes: Sequence[tuple[int, str]] | None) -> None:
        names = list(self._ears) if changes is None else [name for _, name in changes]
        for name in names:
            for ear in self._ears.get(name, ()):
                ear.ring()
