"""The queue against its model, briefly."""

from hypothesis import HealthCheck, settings

from tests.conftest import Server
from tests.faults.queue_machine import play

BRIEFLY = settings(
    max_examples=10, stateful_step_count=30, suppress_health_check=list(HealthCheck), print_blob=False
)


def test_the_queue_keeps_its_law_whatever_is_done_to_it(server: Server) -> None:
    play(server, BRIEFLY)
