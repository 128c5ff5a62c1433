"""The journal: one function per event, which writes a log line with the message's id, and counts.

Nothing here sees a body or a secret, and nothing here fails: a message is never lost because of its log line.
Audit rows are written by the store, in the transaction of the change.
"""

import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TextIO
from uuid import UUID

from gateway.journal.failures import frames, reason
from gateway.journal.file_modes import exposure
from gateway.journal.log_writer import LogWriter
from gateway.journal.metrics import Metrics
from gateway.journal.seldom import Seldom
from gateway.protocol.errors import STATUS_OF, Code

LABELS_MAX = 1000  # routes times statuses and some codes; more could only come from strangers
_CODES = frozenset(map(str, STATUS_OF)) | frozenset(map(str, Code))
_WAYS = frozenset({"inbox", "webhook", "amtp", "smtp"})


class Settled(Protocol):
    """The outcome of one delivery attempt: exactly one of `status` (final) and `due` (retry), or an inbox."""

    @property
    def message(self) -> UUID: ...
    @property
    def recipient(self) -> str: ...
    @property
    def status(self) -> str | None: ...
    @property
    def due(self) -> datetime | None: ...
    @property
    def via(self) -> str | None: ...
    @property
    def attempts(self) -> int: ...
    @property
    def code(self) -> str | None: ...
    @property
    def error(self) -> str | None: ...
    @property
    def inside(self) -> str | None: ...


class Identified(Protocol):
    @property
    def message_id(self) -> str: ...


class Journal:
    """The journal of a process. It writes to stderr, unless a stream is given."""

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        form: str = "auto",
        level: str = "info",
        metrics: Metrics | None = None,
    ) -> None:
        self.metrics = metrics or Metrics()
        self._log = LogWriter(stream or sys.stderr, form, level)
        self._seldom = Seldom()
        self._labelled: dict[tuple[Any, ...], Any] = {}
        self._answered: dict[tuple[str, int], tuple[Any, Any]] = {}
        self._database_up, self._disk_full = True, False
        self._doubts: Sequence[str] = ()
        self.metrics.database_up.set(1)
        self._dns_up = True
        self.metrics.dns_up.set(1)

    # The gateway itself

    def started(self, version: str, listening: Sequence[str]) -> None:
        self._log.write("info", "started", {"version": version, "listening": " ".join(listening)})

    def stopped(self) -> None:
        self._log.write("info", "stopped", {})
        self.flush()

    def draining(self, reason: str) -> None:
        self._log.write("info", "draining", {"reason": reason})

    def beat(self) -> None:
        """Records a heartbeat of this worker's event loop."""
        self._label(self.metrics.heartbeat, str(os.getpid())).set(time.time())

    def loop_held(self, seconds: float) -> None:
        """Records the longest recent stall of the event loop."""
        self.metrics.loop_stall.set(seconds)

    def loop_stalled(self, seconds: float) -> None:
        """Logs a long stall of the event loop, once a minute at most."""
        untold = self._seldom.due("loop_stalled")
        if untold is not None:
            self._log.write("warning", "loop_stalled", {"seconds": round(seconds, 3), "untold": untold})

    def worker_silent(self, worker: int, seconds: float) -> None:
        """Logs that a worker is killed because its event loop hangs."""
        self._log.write("error", "worker_silent", {"worker": worker, "seconds": seconds})

    def worker_replaced(self, how: str) -> None:
        self._label(self.metrics.workers_replaced, how).inc()

    def config_reloaded(self, changes: Sequence[str]) -> None:
        for change in changes or ("nothing changed",):
            self._log.write("info", "config_reloaded", {"change": change})

    def config_kept(self, faults: Sequence[str]) -> None:
        """Logs the faults of a new configuration; the old one stays in use."""
        for fault in faults:
            self._log.write("error", "config_kept", {"fault": fault})

    def certificate_reloaded(self, file: str, expires_at: datetime) -> None:
        self._log.write("info", "certificate_reloaded", {"file": file, "expires_at": expires_at})

    def certificate_kept(self, fault: str) -> None:
        self._log.write("error", "certificate_kept", {"fault": fault})

    def key_files(self, paths: Iterable[Path | None]) -> None:
        """Logs a warning for key files that others may read."""
        for path in paths:
            if path and (text := exposure(path)):
                self._log.write("warning", "key_file_exposed", {"reason": f"{text}; chmod 600 {path}"})

    def certificate_judged(self, file: str, days_left: float, doubts: Sequence[str]) -> None:
        """Logs each problem of the certificate when it begins; `days_left` is negative after its end."""
        self._label(self.metrics.certificate_days, file).set(days_left)
        for doubt in doubts:
            if doubt not in self._doubts:
                self._log.write("warning", "certificate_doubtful", {"file": file, "reason": doubt})
        self._doubts = doubts

    def disk_measured(self, free_bytes: int, free_bytes_min: int) -> None:
        self.metrics.disk_free.set(free_bytes)
        if (full := free_bytes < free_bytes_min) != self._disk_full:
            self._disk_full = full
            fields = {"free_bytes": free_bytes, "needed_bytes": free_bytes_min}
            self._log.write(*(("error", "disk_nearly_full") if full else ("info", "disk_has_room")), fields)

    def noted(self, level: str, text: str) -> None:
        """Logs a text for which there is no event."""
        self._log.write(level, "note", {"text": text})

    def broke(self, where: str, failure: BaseException) -> None:
        """Logs an unexpected fault and where it happened, without values."""
        self.metrics.faults.inc()
        self._log.write(
            "error", "fault", {"where": where, "kind": type(failure).__name__, "at": frames(failure)}
        )

    # The database

    @property
    def database_up(self) -> bool:
        return self._database_up

    def database_lost(self, failure: BaseException) -> None:
        if self._database_up:
            self._database_up = False
            self.metrics.database_up.set(0)
            self.metrics.database_losses.inc()
            self._log.write("error", "database_lost", {"reason": reason(failure)})

    def database_found(self) -> None:
        if not self._database_up:
            self._database_up = True
            self.metrics.database_up.set(1)
            self._log.write("info", "database_found", {})

    def batch_committed(self, messages: int, seconds: float) -> None:
        self.metrics.batch_messages.observe(messages)
        self.metrics.batch_seconds.observe(seconds)
        if not self._database_up:
            self.database_found()

    def unstorable(self, message_id: str, failure: BaseException) -> None:
        """Logs that the database refuses this message, though it takes others."""
        self.metrics.faults.inc()
        self._log.write("error", "unstorable", {"message_id": message_id, "reason": reason(failure)})

    def measured(self, live: Mapping[str, int], oldest_seconds: float, unaccounted: int) -> None:
        """Records what the housekeeper counted in the database."""
        for status, count in live.items():
            self._label(self.metrics.live, status).set(count)
        self.metrics.oldest.set(oldest_seconds)
        self.metrics.unaccounted.set(unaccounted)

    def entries_measured(self, unaccounted: int) -> None:
        self.metrics.entries_unaccounted.set(unaccounted)

    def measured_unproven(self, stored_bytes: int) -> None:
        """Records the bytes stored of unproven senders' unacknowledged mail."""
        self.metrics.unproven.set(stored_bytes)

    # Messages before the acknowledgement

    def accepted(self, message_id: str, sender: str, recipients: int, size_bytes: int) -> None:
        metrics = self.metrics
        metrics.messages.inc()
        metrics.recipients.inc(recipients)
        metrics.message_bytes.inc(size_bytes)
        fields = {"message_id": message_id, "sender": sender, "recipients": recipients, "bytes": size_bytes}
        self._log.write("info", "accepted", fields)

    def repeated(self, message_id: str, sender: str) -> None:
        self._log.write("info", "repeated", {"message_id": message_id, "sender": sender})

    def refused(self, code: str, text: str, sender: str = "", request_id: str = "") -> None:
        self._label(self.metrics.refusals, _bounded(code, _CODES)).inc()
        fields = {"code": code, "reason": text, "sender": sender, "request_id": request_id}
        self._log.write("info", "refused", {name: value for name, value in fields.items() if value})

    def security(self, kind: str, client: str, **about: str) -> None:
        """Logs a refused key, name or relay: one line a minute for each client, with the number left out."""
        self._label(self.metrics.security, kind).inc()
        untold = self._seldom.due(f"{kind} {client}")
        if untold is not None:
            fields = {"kind": kind, "client": client, **about, "untold": untold or ""}
            known = {name: value for name, value in fields.items() if value}
            self._log.write("warning", "security", known)

    def reader_lost(self, why: str) -> None:
        """Logs the loss of a child process that parsed a large body: too_slow, silent or died."""
        self._label(self.metrics.readers_lost, why).inc()
        self._log.write("error", "reader_lost", {"why": why})

    def connection_refused(self, cause: str, client: str) -> None:
        """Logs a refused connection: one line a minute for each cause, with the number left out."""
        self._label(self.metrics.connections_refused, cause).inc()
        untold = self._seldom.due(f"connection refused: {cause}")
        if untold is not None:
            known = {"cause": cause, "client": client, "untold": untold}
            self._log.write("warning", "connection_refused", known)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Counts a request. `route` is the template of the routing table, never the path a stranger sent."""
        answered = self._answered.get((route, status))
        if answered is None:
            label, metrics = self._label, self.metrics
            answered = label(metrics.requests, route, str(status)), label(metrics.request_seconds, route)
            if len(self._answered) < LABELS_MAX:
                self._answered[route, status] = answered
        count, duration = answered
        count.inc()
        duration.observe(seconds)

    def reader_cut(self, reason_: str) -> None:
        """Counts a client that was cut off because it read too slowly."""
        self._label(self.metrics.readers_cut, reason_).inc()

    def held(self, amounts: Mapping[str, int]) -> None:
        """Records how much of each limit is in use now."""
        for what, amount in amounts.items():
            self._label(self.metrics.held, what).set(amount)

    # Deliveries after it

    def settled(self, settlements: Iterable[Settled], messages: Mapping[UUID, Identified]) -> None:
        """Logs each settlement that took effect, as its event."""
        for one in settlements:
            known = messages.get(one.message)
            message_id = known.message_id if known else str(one.message)
            code, error = one.code or "", one.inside or one.error or ""
            if one.due is not None:
                self.deferred(message_id, one.recipient, code, error, one.attempts, one.due)
            elif one.status is None or one.status == "delivered":
                self.delivered(message_id, one.recipient, one.via or "inbox")
            else:
                self.ended(one.status, message_id, one.recipient, code, error, one.attempts)

    def delivered(self, message_id: str, recipient: str, via: str) -> None:
        self._label(self.metrics.settled, "delivered", _bounded(via.partition(":")[0], _WAYS)).inc()
        self._log.write("info", "delivered", {"message_id": message_id, "recipient": recipient, "via": via})

    def deferred(
        self, message_id: str, recipient: str, code: str, text: str, attempts: int, next_retry: datetime
    ) -> None:
        self._label(self.metrics.deferrals, _bounded(code, _CODES)).inc()
        fields = {"message_id": message_id, "recipient": recipient, "code": code, "reason": text}
        self._log.write("info", "deferred", {**fields, "attempts": attempts, "next_retry": next_retry})

    def ended(
        self, status: str, message_id: str, recipient: str, code: str, text: str, attempts: int
    ) -> None:
        """Logs a final status other than delivered: failed, expired or cancelled."""
        self._label(self.metrics.settled, status, "none").inc()
        fields = {"message_id": message_id, "recipient": recipient, "code": code, "reason": text}
        level = "warning" if status == "failed" else "info"
        self._log.write(level, status, {**fields, "attempts": attempts})

    def failed(self, message_id: str, recipient: str, code: str, text: str, attempts: int) -> None:
        self.ended("failed", message_id, recipient, code, text, attempts)

    def expired(self, message_id: str, recipient: str, attempts: int) -> None:
        self.ended("expired", message_id, recipient, "", "its time is over", attempts)

    def cancelled(self, message_id: str, recipient: str, by: str) -> None:
        self.ended("cancelled", message_id, recipient, "", f"by {by}", 0)

    def lease_lost(self, deliveries: int) -> None:
        self.metrics.leases_lost.inc(deliveries)
        self._log.write("warning", "lease_lost", {"deliveries": deliveries})

    def courier_broke(self, destination: str, failure: BaseException) -> None:
        self.broke(f"delivery to {destination}", failure)

    def destination_failing(self, destination: str, reason_: str) -> None:
        self._log.write("warning", "destination_failing", {"destination": destination, "reason": reason_})

    def destination_back(self, destination: str) -> None:
        self._log.write("info", "destination_back", {"destination": destination})

    def dns_failed(self, name: str, reason_: str, *, outage: bool) -> None:
        """Counts a DNS query that no name server answered; logs an outage after several in a row."""
        self.metrics.dns_failures.inc()
        if outage and self._dns_up:
            self._dns_up = False
            self.metrics.dns_up.set(0)
            if self._seldom.due("dns") is not None:
                self._log.write("error", "dns_lost", {"name": name, "reason": reason_})

    def dns_back(self, seconds: float) -> None:
        """Logs that the name servers answer again, after this many seconds."""
        self._dns_up = True
        self.metrics.dns_up.set(1)
        if self._seldom.due("dns again") is not None:
            self._log.write("info", "dns_found", {"seconds": round(seconds, 1)})

    # Inboxes

    def fetched(self, agent: str, entries: int) -> None:
        self.metrics.fetched.inc(entries)
        self._log.write("debug", "fetched", {"agent": agent, "entries": entries})

    def acknowledged(self, agent: str, message_ids: Sequence[str]) -> None:
        self.metrics.acknowledged.inc(len(message_ids))
        for message_id in message_ids:
            self._log.write("info", "acknowledged", {"message_id": message_id, "agent": agent})

    def poisoned(self, agent: str, message_id: str, lapses: int) -> None:
        self.metrics.poisoned.inc()
        self._log.write("error", "poisoned", {"message_id": message_id, "agent": agent, "lapses": lapses})

    def agent_changed(self, agent: str, change: str, by: str) -> None:
        self._log.write("info", "agent_changed", {"agent": agent, "change": change, "by": by})

    # Notifications

    def noticed(self, event: str, notice: str, told: bool, again: datetime | None, fault: str) -> None:
        """Logs the result of one attempt to notify one subscriber."""
        result = "told" if told else "later" if again is not None else "given_up"
        self._label(self.metrics.notices, result).inc()
        fields = {"event_type": event, "event_id": notice, "reason": fault}
        known = {name: value for name, value in fields.items() if value}
        self._log.write("debug" if told else "info", f"notice_{result}", known)

    def notices_given_up(self, notices: int) -> None:
        """Logs notices given up because they expired or too many waited."""
        if notices:
            self._label(self.metrics.notices, "given_up").inc(notices)
            self._log.write("warning", "notices_given_up", {"notices": notices})

    def webhook_closed(self, subscription: str) -> None:
        self._log.write("info", "webhook_closed", {"webhook_id": subscription})

    def webhook_failed(self, subscription: str, step: str, fault: str) -> None:
        self._label(self.metrics.webhook_steps, step).inc()
        self._log.write("warning", step.replace(".", "_"), {"webhook_id": subscription, "reason": fault})

    # The record itself

    def adopt(self, form: str, level: str) -> None:
        """Applies another form and level, after a reload."""
        self._log.adopt(form, level)

    def flush(self) -> None:
        """Writes buffered lines and gathered counts."""
        self._log.flush()
        self.metrics.hand_on()

    def _label(self, metric: Any, *labels: str) -> Any:
        # prometheus-client looks a label up under a lock, which costs more than the count itself.
        key = (metric, *labels)
        child = self._labelled.get(key)
        if child is None and len(self._labelled) >= LABELS_MAX:
            return metric.labels(*["other"] * len(labels))
        if child is None:
            child = self._labelled[key] = metric.labels(*labels)
        return child


def _bounded(label: str, known: frozenset[str]) -> str:
    return label if label in known else "other"
