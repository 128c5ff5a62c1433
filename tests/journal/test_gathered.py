import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from gateway.journal.gathered import GatheredCounter, GatheredHistogram
from gateway.journal.journal import Journal
from gateway.journal.metrics import SECONDS, samples_of
from gateway.journal.metrics_folder import prepare_multiprocess

AMOUNTS = st.lists(st.sampled_from(SECONDS) | st.floats(0, 100, allow_subnormal=False), max_size=20)


@given(st.lists(AMOUNTS, max_size=3))
def test_gathered_amounts_stand_in_the_buckets_that_the_library_would_choose(
    handed_on: list[list[float]],
) -> None:
    registry, other = CollectorRegistry(), CollectorRegistry()
    plain = Histogram("took", "Time.", ["route"], registry=other, buckets=SECONDS).labels("GET /")
    whole = GatheredHistogram(
        Histogram("took", "Time.", ["route"], registry=registry, buckets=SECONDS), SECONDS
    )
    gathered = whole.labels("GET /")
    for amounts in handed_on:
        for amount in amounts:
            plain.observe(amount)
            gathered.observe(amount)
        whole.hand_on()
    assert _shown(registry) == pytest.approx(_shown(other))


def test_what_was_handed_on_is_not_handed_on_again() -> None:
    registry = CollectorRegistry()
    counter = GatheredCounter(Counter("requests", "Requests.", ["status"], registry=registry))
    counter.labels("202").inc(2)
    counter.labels("404").inc()
    counter.hand_on()
    counter.hand_on()
    counter.labels("202").inc()
    assert _shown(registry) == {'requests_total{status="202"}': 2, 'requests_total{status="404"}': 1}
    counter.hand_on()
    assert _shown(registry)['requests_total{status="202"}'] == 3


def _shown(registry: CollectorRegistry) -> dict[str, float]:
    lines = generate_latest(registry).decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line[0] != "#" and "_created" not in line)
    return {name: float(value) for name, value in pairs}


WORKER = """
import asyncio, io, os, sys
from pathlib import Path
from gateway.journal.journal import Journal
from gateway.journal.metrics import samples_of
journal = Journal(io.StringIO())
journal.accepted("id", "a@example.com", 2, 10)
journal.request("POST /v1/messages", 202, 0.003)

async def works():
    async with asyncio.timeout(30):
        handing_on = asyncio.create_task(journal.metrics.run())
        while ({}, 1) not in samples_of(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))["amtp_messages_accepted_total"]:
            await asyncio.sleep(0)
        handing_on.cancel()

if sys.argv[1] == "stops":
    journal.stopped()
else:
    asyncio.run(works())
"""


def test_a_process_that_stops_leaves_all_that_it_counted(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, "stops"]
    subprocess.run(command, env=os.environ | prepare_multiprocess(tmp_path), check=True)
    found = samples_of(tmp_path)
    assert found["amtp_messages_accepted_total"] == [({}, 1)]
    assert found["amtp_recipients_accepted_total"] == [({}, 2)]
    assert found["amtp_request_seconds_count"] == [({"route": "POST /v1/messages"}, 1)]


def test_others_see_what_a_process_counted_while_it_works(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, "works"]
    subprocess.run(command, env=os.environ | prepare_multiprocess(tmp_path), check=True)


def test_operators_read_what_was_counted_a_moment_ago() -> None:
    journal = Journal(io.StringIO())
    journal.accepted("id", "a@example.com", 2, 10)
    assert b"amtp_recipients_accepted_total 2.0" in journal.metrics.render()
