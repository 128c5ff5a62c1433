"""Counts made for every message: gathered in plain Python, added to prometheus-client each second.

A metric of prometheus-client takes a lock each time and, with several processes, writes to a file. Gathered metrics are
counted by the event loop's thread alone. A process that is killed loses counts not yet handed on, those of a second at
most. `Metrics.hand_on` is called each second, before metrics are shown, and when a process stops.
"""

from bisect import bisect_left
from typing import Any

from prometheus_client import Counter, Histogram

HAND_ON_SECONDS = 1.0


class GatheredCounter:
    """A counter, with its children by labels."""

    __slots__ = ("_counter", "_gathered", "_labelled")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._gathered = 0.0
        self._labelled: dict[tuple[str, ...], GatheredCounter] = {}

    def labels(self, *labels: str) -> "GatheredCounter":
        """Returns the child of these labels, always the same one."""
        child = self._labelled.get(labels)
        if child is None:
            child = self._labelled[labels] = GatheredCounter(self._counter.labels(*labels))
        return child

    def inc(self, amount: float = 1) -> None:
        """Counts up."""
        self._gathered += amount

    def hand_on(self) -> None:
        """Adds the gathered count to the counter that is shown."""
        if self._gathered:
            amount, self._gathered = self._gathered, 0.0
            self._counter.inc(amount)
        for child in self._labelled.values():
            child.hand_on()


class GatheredHistogram:
    """A histogram, with its children by labels."""

    __slots__ = ("_bounds", "_counts", "_histogram", "_labelled", "_sum")

    def __init__(self, histogram: Histogram, bounds: tuple[float, ...]) -> None:
        self._histogram = histogram
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)  # the last counts amounts above all bounds
        self._sum = 0.0
        self._labelled: dict[tuple[str, ...], GatheredHistogram] = {}

    def labels(self, *labels: str) -> "GatheredHistogram":
        """Returns the child of these labels, always the same one."""
        child = self._labelled.get(labels)
        if child is None:
            child = GatheredHistogram(self._histogram.labels(*labels), self._bounds)
            self._labelled[labels] = child
        return child

    def observe(self, amount: float) -> None:
        """Counts an amount in its bucket."""
        self._counts[bisect_left(self._bounds, amount)] += 1
        self._sum += amount

    def hand_on(self) -> None:
        """Adds the gathered counts to the histogram that is shown."""
        counts = self._counts
        if any(counts):
            amount, self._sum = self._sum, 0.0
            self._counts = [0] * len(counts)
            shown: Any = self._histogram  # which has no public way to add several at once
            shown._sum.inc(amount)
            for bucket, count in zip(shown._buckets, counts, strict=True):
                if count:
                    bucket.inc(count)
        for child in self._labelled.values():
            child.hand_on()
