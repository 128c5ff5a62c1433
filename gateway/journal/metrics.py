"""The counters, gauges and histograms of a gateway process, and how they are shown to Prometheus.

Labels come from small fixed sets: routes, statuses, codes. Values that strangers choose are never labels.
With several processes (see `metrics_folder`) every process shows the sum of all. Counts made for every
message are gathered first (see `gathered`), so those of other processes are at most a second old.
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from gateway.journal.gathered import HAND_ON_SECONDS, GatheredCounter, GatheredHistogram
from gateway.journal.metrics_folder import VARIABLE

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of a process; every Journal has its own, so that two gateways in a test don't mix."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._gathered: list[GatheredCounter | GatheredHistogram] = []
        if VARIABLE not in os.environ:
            ProcessCollector(registry=registry)

        def counter(name: str, doc: str, *labels: str) -> Counter:
            return Counter(f"amtp_{name}", doc, labels, registry=registry)

        def gathered(name: str, doc: str, *labels: str) -> GatheredCounter:
            self._gathered.append(each := GatheredCounter(counter(name, doc, *labels)))
            return each

        def gauge(name: str, doc: str, mode: str, *labels: str) -> Gauge:
            return Gauge(f"amtp_{name}", doc, labels, registry=registry, multiprocess_mode=mode)  # type: ignore[arg-type] # a Literal there

        def histogram(name: str, doc: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"amtp_{name}", doc, labels, registry=registry, buckets=buckets)

        self.messages = gathered("messages_accepted", "Messages committed and acknowledged.")
        self.recipients = gathered("recipients_accepted", "Their recipients.")
        self.message_bytes = gathered("message_bytes_accepted", "Their bytes.")
        self.refusals = counter("refusals", "Submissions refused, by code.", "code")
        self.connections_refused = counter(
            "connections_refused", "Connections refused, and idle ones closed for others, by cause.", "cause"
        )
        self.security = counter("security_events", "Keys, names and relays refused, by kind.", "kind")
        self.settled = gathered("recipients_settled", "Final outcomes of recipients.", "status", "via")
        self.deferrals = counter("deliveries_deferred", "Attempts that will be repeated, by code.", "code")
        self.leases_lost = counter("leases_lost", "Deliveries taken back from a worker that never finished.")
        self.fetched = gathered("inbox_fetched", "Inbox entries handed to agents.")
        self.acknowledged = gathered("inbox_acknowledged", "Inbox entries acknowledged.")
        self.poisoned = counter(
            "inbox_poisoned", "Inbox entries that became dead letters after too many leases."
        )
        self.notices = counter("notices", "Attempts to notify a webhook, and notices given up.", "result")
        self.webhook_steps = counter("webhook_steps", "Webhooks warned of or switched off.", "step")
        self.batch_messages = histogram("batch_messages", "Messages in one commit.", BATCH)
        self.batch_seconds = histogram("batch_seconds", "Duration of one commit.", SECONDS)
        self.requests = gathered("requests", "Requests answered.", "route", "status")
        request_seconds = histogram("request_seconds", "Duration of requests.", SECONDS, "route")
        self.request_seconds = GatheredHistogram(request_seconds, SECONDS)
        self._gathered.append(self.request_seconds)
        self.readers_lost = counter("readers_lost", "Child processes lost while parsing a large body.", "why")
        self.held = gauge("held", "How much of each limit shared among clients is in use.", "livesum", "what")
        self.readers_cut = counter("readers_cut", "Clients cut off because they read too slowly.", "reason")
        self.database_up = gauge("database_up", "1 while the database answers.", "livemin")
        self.database_losses = counter("database_losses", "Times the database stopped answering.")
        self.disk_free = gauge("disk_free_bytes", "Free on the disk of the data folder.", "livemostrecent")
        self.certificate_days = gauge(
            "certificate_days_left", "Days until the certificate in use ends.", "livemostrecent", "file"
        )
        self.dns_up = gauge("dns_up", "1 while the name servers answer.", "livemin")
        self.dns_failures = counter("dns_failures", "DNS queries that no name server answered.")
        self.heartbeat = gauge(
            "worker_heartbeat_seconds",
            "Time of the last heartbeat of a worker's event loop.",
            "livemostrecent",
            "worker",
        )
        self.loop_stall = gauge(
            "event_loop_stall_seconds",
            "Longest stall of the event loop within the last one to two minutes.",
            "livemax",
        )
        self.workers_replaced = counter("workers_replaced", "Workers that hung or died.", "how")
        self.faults = counter("faults", "Unexpected faults of the gateway itself.")
        self._measured(gauge)

    def _measured(self, gauge: Callable[..., Gauge]) -> None:
        """Makes the gauges for what housekeepers count in the database."""
        self.live = gauge("recipients_live", "Recipients without a final status.", "livemostrecent", "status")
        self.unproven = gauge("unproven_stored_bytes", "Mail of unproven senders.", "livemostrecent")
        self.oldest = gauge("queue_oldest_seconds", "Age of the oldest due delivery.", "livemostrecent")
        self.unaccounted = gauge(
            "recipients_unaccounted",
            "Accepted less final less live; anything but 0 is a lost message.",
            "livemostrecent",
        )
        self.entries_unaccounted = gauge(
            "entries_unaccounted",
            "Inbox entries added less removed less present; anything but 0 is a lost one.",
            "livemostrecent",
        )

    def hand_on(self) -> None:
        """Adds the gathered counts to the metrics that are shown."""
        for each in self._gathered:
            each.hand_on()

    async def run(self) -> None:
        """Hands gathered counts on each second, for other processes to show, until cancelled."""
        while True:
            await asyncio.sleep(HAND_ON_SECONDS)
            self.hand_on()

    def render(self) -> bytes:
        """Returns the exposition text, of all processes if there are several."""
        self.hand_on()
        if VARIABLE not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call] # registers itself
        return generate_latest(together)


def samples_of(folder: Path) -> Mapping[str, list[tuple[dict[str, str], float]]]:
    """Returns labels and values by name, of all processes that share this folder."""
    found: Mapping[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
    for metric in MultiProcessCollector(None, str(folder)).collect():  # type: ignore[no-untyped-call] # no registry
        for sample in metric.samples:
            found[sample.name].append((sample.labels, sample.value))
    return found


def forget_process(folder: Path, pid: int) -> None:
    """Removes the gauges of a worker process that ended; its counters stay."""
    mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
