"""What a target's answer means, and when it is tried again."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from gateway.features.notifications.notices import DueNotice
from gateway.features.notifications.target import TargetAnswer, verdict_on

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


def due(
    event: str = "message.failed", *, attempts: int = 1, left: timedelta = timedelta(days=3)
) -> DueNotice:
    return DueNotice(
        id=UUID(int=1),
        subscription=UUID(int=2),
        event=event,
        body=b"{}",
        until=NOW + left,
        token=1,
        attempts=attempts,
        url="https://hooks.test/",
        challenge="abc",
        secrets=(),
        shaky=False,
    )


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_any_2xx_has_taken_an_event_whatever_else_it_says(status: int) -> None:
    tried = verdict_on(due(), TargetAnswer(status, b"no idea"), NOW, 0.5, 12)
    assert (tried.told, tried.error, tried.again, tried.milliseconds) == (True, None, None, 12)


@pytest.mark.parametrize(
    "heard", [TargetAnswer(s) for s in (301, 400, 401, 404, 500, 503)] + [TargetAnswer(fault="Nobody.")]
)
def test_all_else_is_tried_again_later_and_later(heard: TargetAnswer) -> None:
    first = verdict_on(due(attempts=1), heard, NOW, 0.5, 0)
    tenth = verdict_on(due(attempts=10), heard, NOW, 0.5, 0)
    assert not first.told
    assert first.error
    assert first.again == NOW + timedelta(seconds=1)
    assert tenth.again == NOW + timedelta(seconds=512)


def test_a_target_may_say_when_to_come_back() -> None:
    tried = verdict_on(due(), TargetAnswer(503, retry_after_seconds=90), NOW, 0.5, 0)
    assert tried.again == NOW + timedelta(seconds=90)


def test_it_is_given_up_when_gone_or_when_its_time_is_over() -> None:
    assert verdict_on(due(), TargetAnswer(410), NOW, 0.5, 0).again is None
    assert verdict_on(due(left=timedelta(seconds=1)), TargetAnswer(500), NOW, 0.5, 0).again is None


def test_a_challenge_must_be_repeated() -> None:
    assert verdict_on(due("challenge"), TargetAnswer(200, b'{"challenge": "abc"}'), NOW, 0.5, 0).told
    tried = verdict_on(due("challenge"), TargetAnswer(200, b"{}"), NOW, 0.5, 0)
    assert (tried.told, tried.status) == (False, 200)
    assert "challenge" in (tried.error or "")
