"""The detection of DNS outages: since when questions go unanswered."""

from datetime import datetime
from typing import Final

from gateway.journal.journal import Journal
from gateway.net.dns_answer import DnsAnswer, DnsFailure
from gateway.store.clock import Clock

UNANSWERED_MIN: Final = 2  # questions in a row; one may be the fault of a single name


class Outage:
    """The state of the name servers; journals when they stop answering, and when they answer again."""

    def __init__(self, clock: Clock, journal: Journal) -> None:
        self._clock = clock
        self._journal = journal
        self._unanswered = 0
        self._first: datetime | None = None
        self.since: datetime | None = None  # while it lasts
        self.reason = ""

    def heard(self, name: str, answer: DnsAnswer) -> None:
        """Notes the answer to a question."""
        if isinstance(answer, DnsFailure):
            self._first = self._first or self._clock.now()
            self._unanswered += 1
            self.reason = answer.reason
            if self._unanswered >= UNANSWERED_MIN:
                self.since = self._first
            self._journal.dns_failed(name, answer.reason, outage=self.since is not None)
            return
        if self.since is not None:
            self._journal.dns_back((self._clock.now() - self.since).total_seconds())
        self._unanswered, self._first, self.since = 0, None, None
