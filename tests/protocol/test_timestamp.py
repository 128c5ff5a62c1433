"""Times are read as RFC 3339 and nothing else, and written back in UTC."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.errors import AMTPError
from gateway.protocol.timestamp import parse_timestamp, render_timestamp


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-03-01T12:00:00Z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01T12:00:00.5Z", datetime(2026, 3, 1, 12, 0, 0, 500_000, UTC)),
        ("2026-03-01T12:00:00.123456789Z", datetime(2026, 3, 1, 12, 0, 0, 123_456, UTC)),
        ("2026-03-01T13:30:00+01:30", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01T12:00:00-00:00", datetime(2026, 3, 1, 12, tzinfo=UTC)),
    ],
)
def test_a_point_in_time_is_read(text: str, moment: datetime) -> None:
    assert parse_timestamp(text, "timestamp") == moment
    assert parse_timestamp(text, "timestamp").tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "2026-03-01", "2026-03-01T12:00:00", "2026-03-01 12:00:00Z", "20260301T120000Z"),
        *("2026-13-01T12:00:00Z", "2026-02-30T12:00:00Z", "2026-03-01T24:00:00Z", "2026-03-01T12:00:60Z"),
        *("2026-03-01T12:00:00+24:00", "2026-03-01T12:00:00+00:60", "2026-03-01T12:00:00.Z"),
        *(
            "2026-03-01T12:00:00Z\n",
            "２026-03-01T12:00:00Z",
            "0001-01-01T00:00:00+01:00",
            "2026-W10-1T12:00:00Z",
        ),
        "2026-03-01T12:00:00." + "1" * 100 + "Z",
    ],
)
def test_what_is_not_rfc_3339_is_refused(text: str) -> None:
    with pytest.raises(AMTPError) as refused:
        parse_timestamp(text, "headers.expires-at")
    assert refused.value.details == {"field": "headers.expires-at"}


@pytest.mark.parametrize("value", [None, 1_772_366_400, True, ["2026-03-01T12:00:00Z"]])
def test_what_is_not_text_is_no_point_in_time(value: object) -> None:
    with pytest.raises(AMTPError):
        parse_timestamp(value, "timestamp")


@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1), timezones=st.just(UTC)))
def test_what_is_rendered_is_read_back_to_the_millisecond(moment: datetime) -> None:
    text = render_timestamp(moment)
    assert text.endswith("Z")
    assert timedelta(0) <= moment - parse_timestamp(text, "timestamp") < timedelta(milliseconds=1)


def test_other_zones_are_rendered_in_utc() -> None:
    moment = datetime(2026, 3, 1, 1, 0, tzinfo=timezone(timedelta(hours=2)))
    assert render_timestamp(moment) == "2026-02-28T23:00:00.000Z"
