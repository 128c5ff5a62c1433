"""Whatever holds the event loop is seen by operators: in a gauge, and in the log where people would notice it too."""

import asyncio
import io
import re
import time

from gateway.journal.journal import Journal
from gateway.journal.stalls import LOOK_SECONDS, WINDOW_SECONDS, Stalls
from tests.world import World


def shown(metrics: str) -> float:
    found = re.search(r"^amtp_event_loop_stall_seconds (\S+)$", metrics, re.MULTILINE)
    assert found is not None
    return float(found[1])


def stalls() -> tuple[Stalls, Journal, io.StringIO]:
    log = io.StringIO()
    journal = Journal(log, form="text")
    return Stalls(journal), journal, log


def test_the_longest_of_this_window_and_the_one_before_is_shown() -> None:
    watched, journal, _ = stalls()
    seen = []
    for came, late in ((0, 0.0), (1, 0.2), (2, 0.1), (61, 0.05), (62, 0.06), (122, 0.01), (183, 0.0)):
        watched.saw(came - late, came)
        seen.append(round(shown(journal.metrics.render().decode()), 3))
    assert seen == [0.0, 0.2, 0.2, 0.2, 0.2, 0.06, 0.01]
    assert WINDOW_SECONDS == 60


def test_a_stall_of_a_second_is_a_line_and_many_of_them_are_one_a_minute() -> None:
    watched, journal, log = stalls()
    for late in (0.9, 1.5, 1.7, 2.0):
        watched.saw(10.0 - late, 10.0)
    journal.flush()
    assert log.getvalue().count("loop_stalled") == 1
    assert "1.5" in log.getvalue()


async def test_metrics_tell_of_what_held_the_loop(world: World) -> None:
    async with world.gateway() as gateway:
        await asyncio.sleep(LOOK_SECONDS)
        time.sleep(1.2)  # noqa: ASYNC251 - a stall is what this is about
        while shown((await gateway.call("GET", "/metrics", key=gateway.admin_key)).text) < 1.1:
            await asyncio.sleep(LOOK_SECONDS)
    assert "loop_stalled" in gateway.log.getvalue()
