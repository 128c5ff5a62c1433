"""How long a request asks to wait."""

import pytest

from gateway.receive.waiting import WAIT_SECONDS_MAX, wait_seconds


@pytest.mark.parametrize(
    ("preferences", "seconds"),
    [
        ([], 0),
        (["wait=10"], 10),
        (["Wait = 10"], 10),
        (['wait="10"'], 10),
        (["wait=10; because=slow"], 10),
        (["respond-async, wait=10"], 10),
        (["respond-async", "wait=10"], 10),
        (["wait=5, wait=50"], 5),
        (["wait=3600"], WAIT_SECONDS_MAX),
        (["wait=0"], 0),
        (["wait=-1"], 0),
        (["wait=1.5"], 0),
        (["wait"], 0),
        (["wait=9999999999999999"], 0),
        (["awaits=5"], 0),
    ],
)
def test_a_preference_asks_for_whole_seconds_up_to_a_minute(preferences: list[str], seconds: int) -> None:
    assert wait_seconds(preferences) == seconds
