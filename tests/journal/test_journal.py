"""The journal: one safe line per event, and counts that are right with one process and with several."""

import asyncio
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from gateway.journal.failures import frames, reason
from gateway.journal.journal import LABELS_MAX, Journal
from gateway.journal.log_writer import FIELD_CHARACTERS_MAX, LINES_WAITING_MAX
from gateway.journal.metrics import forget_process
from gateway.journal.metrics_folder import prepare_multiprocess

ID = "0199aabb-0000-7000-8000-000000000001"
ROW = UUID(ID)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Book:
    """A journal and what it wrote."""

    def __init__(self, form: str = "json", level: str = "info") -> None:
        self.stream = io.StringIO()
        self.journal = Journal(self.stream, form=form, level=level)

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().split("\n")[:-1]

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    def count(self, sample: str) -> float:
        for line in self.journal.metrics.render().decode().splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        raise AssertionError(f"no sample {sample}")


def test_an_event_is_one_json_line_with_time_level_and_message_id() -> None:
    book = Book()
    book.journal.accepted(ID, "a@example.com", 2, 1024)
    (record,) = book.records
    assert datetime.fromisoformat(record.pop("time")).tzinfo is not None
    assert record == {
        "level": "info",
        "event": "accepted",
        "message_id": ID,
        "sender": "a@example.com",
        "recipients": 2,
        "bytes": 1024,
    }


def test_on_a_terminal_lines_are_for_people_and_elsewhere_for_machines() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        Journal(stream).accepted(ID, "a@example.com", 2, 1024)
    assert (
        f"accepted           message_id={ID} sender=a@example.com recipients=2 bytes=1024\n"
        in terminal.getvalue()
    )
    assert json.loads(pipe.getvalue())["message_id"] == ID


HOSTILE = 'a\r\n{"event":"forged"}\x1b[31m\x9b\x7f\u2028\u202e\x00\ud800 \U000e0001 é😀'


@pytest.mark.parametrize("form", ["json", "text"])
def test_what_strangers_send_stays_on_its_line_and_steers_no_terminal(form: str) -> None:
    book = Book(form)
    book.journal.refused("POLICY_DENIED", HOSTILE, sender=HOSTILE, request_id=HOSTILE)
    (line,) = book.lines
    assert line.isprintable()
    assert "é😀" in line
    line.encode()  # writable anywhere


def test_json_gives_hostile_text_back_as_it_came() -> None:
    book = Book()
    text = HOSTILE.replace("\ud800", "")
    book.journal.refused("POLICY_DENIED", text)
    assert book.records[0]["reason"] == text


def test_a_value_can_not_pass_for_another_field() -> None:
    book = Book("text")
    book.journal.refused("POLICY_DENIED", 'x" level=error', sender="a=b")
    assert book.lines[0].endswith(r'reason="x\" level=error" sender="a=b"')


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_field_is_cut_before_it_could_hold_a_body(form: str) -> None:
    book = Book(form)
    book.journal.refused("POLICY_DENIED", "x" * 1_000_000)
    assert len(book.lines[0]) < FIELD_CHARACTERS_MAX + 200


def test_less_than_the_level_is_not_written_but_counted() -> None:
    book = Book(level="warning")
    book.journal.accepted(ID, "a@example.com", 2, 1024)
    assert book.lines == []
    assert book.count("amtp_recipients_accepted_total") == 2
    book.journal.adopt("json", "debug")
    book.journal.fetched("a@example.com", 3)
    assert book.records[0]["event"] == "fetched"


async def test_lines_of_one_turn_of_the_loop_are_written_together() -> None:
    book = Book()
    for _ in range(3):
        book.journal.accepted(ID, "a@example.com", 1, 1)
    assert book.lines == []
    await asyncio.sleep(0)
    assert len(book.lines) == 3


async def test_a_burst_does_not_wait_for_the_loop() -> None:
    book = Book()
    for _ in range(LINES_WAITING_MAX + 1):
        book.journal.accepted(ID, "a@example.com", 1, 1)
    assert len(book.lines) == LINES_WAITING_MAX
    book.journal.stopped()
    assert len(book.lines) == LINES_WAITING_MAX + 2


def test_a_closed_log_harms_nobody() -> None:
    book = Book()
    book.stream.close()
    book.journal.accepted(ID, "a@example.com", 1, 1)
    assert book.count("amtp_messages_accepted_total") == 1


@dataclass(frozen=True)
class Ending:
    message: UUID = ROW
    recipient: str = "b@example.com"
    status: str | None = None
    due: datetime | None = None
    via: str | None = None
    attempts: int = 1
    code: str | None = None
    error: str | None = None
    inside: str | None = None


@dataclass(frozen=True)
class Letter:
    message_id: str


def test_each_settlement_is_the_event_it_stands_for() -> None:
    book = Book()
    endings = [
        Ending(),
        Ending(status="delivered", via="amtp:mx.example"),
        Ending(due=NOW, code="RECIPIENT_UNAVAILABLE", error="connection refused"),
        Ending(status="failed", code="AGENT_UNKNOWN", error="nobody here"),
        Ending(status="expired"),
        Ending(message=UUID(int=0), status="cancelled"),
    ]
    book.journal.settled(endings, {UUID(ID): Letter("public-id")})
    assert [record["event"] for record in book.records] == [
        "delivered",
        "delivered",
        "deferred",
        "failed",
        "expired",
        "cancelled",
    ]
    assert [record["message_id"] for record in book.records] == ["public-id"] * 5 + [str(UUID(int=0))]
    assert book.records[2]["next_retry"] == "2026-01-02T03:04:05Z"
    assert book.records[3]["level"] == "warning"
    assert book.count('amtp_recipients_settled_total{status="delivered",via="inbox"}') == 1
    assert book.count('amtp_recipients_settled_total{status="delivered",via="amtp"}') == 1
    assert book.count('amtp_recipients_settled_total{status="failed",via="none"}') == 1
    assert book.count('amtp_deliveries_deferred_total{code="RECIPIENT_UNAVAILABLE"}') == 1


def test_every_other_event_has_its_line() -> None:
    book = Book(level="debug")
    journal = book.journal
    journal.started("1.0", ["127.0.0.1:8080"])
    journal.draining("SIGTERM")
    journal.config_reloaded(["log.level: in effect now"])
    journal.config_reloaded([])
    journal.config_kept(["amtp.yaml:1: bad"])
    journal.certificate_reloaded("tls.crt", NOW)
    journal.certificate_kept("tls.key: bad")
    journal.noted("warning", "mind this")
    journal.unstorable(ID, ValueError("geheim"))
    journal.repeated(ID, "a@example.com")
    journal.failed(ID, "b@example.com", "AGENT_UNKNOWN", "nobody", 1)
    journal.expired(ID, "b@example.com", 3)
    journal.cancelled(ID, "b@example.com", "a@example.com")
    journal.lease_lost(3)
    journal.courier_broke("x.example", ValueError("geheim"))
    journal.destination_failing("x.example", "refused")
    journal.destination_back("x.example")
    journal.fetched("b@example.com", 2)
    journal.acknowledged("b@example.com", [ID, "other"])
    journal.poisoned("b@example.com", ID, 10)
    journal.agent_changed("b@example.com", "registered", "admin")
    journal.stopped()
    assert [record["event"] for record in book.records] == [
        "started",
        "draining",
        "config_reloaded",
        "config_reloaded",
        "config_kept",
        "certificate_reloaded",
        "certificate_kept",
        "note",
        "unstorable",
        "repeated",
        "failed",
        "expired",
        "cancelled",
        "lease_lost",
        "fault",
        "destination_failing",
        "destination_back",
        "fetched",
        "acknowledged",
        "acknowledged",
        "poisoned",
        "agent_changed",
        "stopped",
    ]
    assert "geheim" not in book.stream.getvalue()
    assert book.count("amtp_leases_lost_total") == 3
    assert book.count("amtp_inbox_acknowledged_total") == 2


def test_a_lost_database_is_told_once_and_found_by_the_next_commit() -> None:
    book = Book()
    for _ in range(3):
        book.journal.database_lost(ConnectionRefusedError(111, "Connection refused"))
    assert book.count("amtp_database_up") == 0
    book.journal.batch_committed(7, 0.002)
    book.journal.batch_committed(1, 0.001)
    assert [record["event"] for record in book.records] == ["database_lost", "database_found"]
    assert "Connection refused" in book.records[0]["reason"]
    assert book.count("amtp_database_up") == 1
    assert book.count("amtp_batch_messages_sum") == 8
    assert book.count("amtp_batch_seconds_count") == 2


class DatabaseError(Exception):
    def __init__(self, sqlstate: str, text: str) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (DatabaseError("53100", "disk full"), "DatabaseError 53100: disk full"),
        (DatabaseError("22021", "invalid byte in 'geheim'"), "DatabaseError 22021"),
        (ValueError("invalid input 'geheim'"), "ValueError"),
        (TimeoutError(), "TimeoutError"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
    ],
)
def test_a_reason_tells_what_failed_and_quotes_no_data(failure: Exception, told: str) -> None:
    assert reason(failure) == told


def test_an_unexpected_fault_tells_where_it_happened_without_its_values() -> None:
    book = Book()
    try:
        int("geheim")
    except ValueError as failure:
        book.journal.broke("the test", failure)
        place = frames(failure)
    (record,) = book.records
    assert record["kind"] == "ValueError"
    assert record["at"] == place
    assert place.endswith("test_an_unexpected_fault_tells_where_it_happened_without_its_values")
    assert "geheim" not in book.stream.getvalue()


def test_labels_stay_bounded_whatever_strangers_send() -> None:
    book = Book(level="error")
    for number in range(LABELS_MAX + 500):
        book.journal.refused(f"CODE_{number}", "x")
        book.journal.request(f"GET /{number}", 404, 0.001)
    assert book.count('amtp_refusals_total{code="other"}') == LABELS_MAX + 500
    assert len(book.journal.metrics.render().splitlines()) < 30 * LABELS_MAX
    assert book.count('amtp_requests_total{route="other",status="other"}') >= 500


def test_requests_are_counted_and_timed_by_route() -> None:
    book = Book()
    book.journal.request("POST /v1/messages", 202, 0.003)
    assert book.lines == []
    assert book.count('amtp_requests_total{route="POST /v1/messages",status="202"}') == 1
    assert book.count('amtp_request_seconds_bucket{le="0.005",route="POST /v1/messages"}') == 1


def test_what_the_housekeeper_measured_is_shown() -> None:
    book = Book()
    book.journal.measured({"queued": 5, "held": 1}, 12.5, 0)
    assert book.count('amtp_recipients_live{status="queued"}') == 5
    assert book.count("amtp_queue_oldest_seconds") == 12.5
    assert book.count("amtp_recipients_unaccounted") == 0
    book.journal.entries_measured(3)
    assert book.count("amtp_entries_unaccounted") == 3


def test_two_journals_in_one_process_count_apart() -> None:
    one, other = Book(), Book()
    one.journal.accepted(ID, "a@example.com", 1, 1)
    assert other.count("amtp_messages_accepted_total") == 0


WORKER = """
import io, os, sys
from gateway.journal.journal import Journal
journal = Journal(io.StringIO())
for _ in range(int(sys.argv[1])):
    journal.accepted("id", "a@example.com", 2, 10)
    journal.batch_committed(1, 0.001)
if len(sys.argv) > 2:
    journal.database_lost(OSError())
print(os.getpid(), journal.metrics.render().decode())
"""


def _work(environ: dict[str, str], *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-c", WORKER, *arguments]
    done = subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, check=True)
    pid, _, text = done.stdout.partition(" ")
    return int(pid), text


def test_several_processes_show_the_sum_of_all_and_the_dead_keep_their_counts(tmp_path: Path) -> None:
    environ = prepare_multiprocess(tmp_path / "metrics")
    pid, _ = _work(environ, "3", "loses its database")
    _, text = _work(environ, "4")
    assert "amtp_messages_accepted_total 7.0" in text
    assert "amtp_recipients_accepted_total 14.0" in text
    assert "amtp_batch_messages_count 7.0" in text
    assert "amtp_database_up 0.0" in text
    forget_process(tmp_path / "metrics", pid)
    _, text = _work(environ, "1")
    assert "amtp_messages_accepted_total 8.0" in text
    assert "amtp_database_up 1.0" in text


def test_a_new_start_counts_from_nothing(tmp_path: Path) -> None:
    _work(prepare_multiprocess(tmp_path), "3")
    _, text = _work(prepare_multiprocess(tmp_path), "1")
    assert "amtp_messages_accepted_total 1.0" in text
