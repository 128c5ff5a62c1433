"""The demo proves what it says, and would notice if it were not so."""

import asyncio
import sys
from pathlib import Path

from examples.demo.traffic import Books

ROOT = Path(__file__).parent.parent


async def test_the_demo_proves_that_nothing_is_lost_and_nothing_comes_twice() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "examples.demo", "--messages", "40"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert b"kill -9: the gateway of south.test is gone." in output
    assert b"each of the 40 acknowledged messages lies in its inbox exactly once" in output


def books(*entries: tuple[int, str]) -> Books:
    """Two messages, both acknowledged for bob, and what was found."""
    found = Books(2)
    for number in (1, 2):
        found.acknowledge(number, "bob")
    found.entries = {f"e{place}": entry for place, entry in enumerate(entries)}
    return found


def test_each_message_once_is_no_fault() -> None:
    assert books((1, "bob"), (2, "bob")).faults() == []


def test_a_message_that_is_missing_is_a_fault() -> None:
    assert books((1, "bob")).faults() == ["2 to bob is missing"]


def test_a_message_that_came_twice_is_a_fault() -> None:
    assert books((1, "bob"), (2, "bob"), (2, "bob")).faults() == ["2 to bob came 2 times"]


def test_a_message_in_another_inbox_is_a_fault() -> None:
    assert books((1, "bob"), (2, "bob"), (2, "eve")).faults() == ["2 came to eve unasked"]


def test_a_message_that_nobody_acknowledged_is_a_fault() -> None:
    assert Books(1).faults() == ["1 messages were never acknowledged"]
