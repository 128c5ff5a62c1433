"""The queue against its model, at length."""

import pytest
from hypothesis import HealthCheck, settings

from tests.conftest import Server
from tests.faults.queue_machine import play

AT_LENGTH = settings(
    max_examples=200,
    stateful_step_count=80,
    derandomize=False,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.timeout(3600)
def test_the_queue_keeps_its_law_whatever_is_done_to_it(server: Server) -> None:
    play(server, AT_LENGTH)
