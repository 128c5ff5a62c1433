"""A message as an event of a stream says the same as its bytes, and is hardly longer."""

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.receive.inbox_items import LINES_MAX, render_event, render_item
from gateway.store.inbox.inbox import Item

BODY = b'{"sender":"a@a.test","recipients":["b@b.test"],"payload":%b}'
MORE_MAX = 8 * LINES_MAX  # a `data: ` for each line, and what surrounds the event


def item(body: bytes) -> Item:
    return Item(
        row=UUID("019cada0-0000-7000-8000-000000000001"),
        body=body,
        address="b@b.test",
        proven=True,
        automatic=False,
        hops=(),
        accepted_at=datetime(2026, 3, 1, tzinfo=UTC),
        delivered_at=None,
        expires_at=None,
        unread=True,
        lapses=0,
        lease_until=None,
    )


def data_of(event: bytes) -> bytes:
    """The data of the one event in these bytes, by the grammar of event streams: CR, LF and CRLF end a line."""
    lines = event.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    assert lines[-2:] == [b"", b""], "an empty line ends it"
    assert b"" not in lines[:-2], "and nothing before does"
    return b"\n".join(line.removeprefix(b"data: ") for line in lines if line.startswith(b"data:"))


HOSTILE = {
    "newlines": b"\n" * 1_000_000 + b"1",
    "carriage returns": b"\r" * 1_000_000 + b"1",
    "both": b"\r\n" * 500_000 + b"1",
    "a newline after each number": b"[" + b"1,\n" * 300_000 + b"1]",
    "a newline around each number": b"[" + b"\r1\n,\r" * 200_000 + b"1]",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_line_breaks_do_not_swell_an_event(name: str) -> None:
    body = BODY % HOSTILE[name]
    event = render_event(item(body), "b@b.test")
    assert len(event) <= len(render_item(item(body), "b@b.test")) + MORE_MAX
    assert json.loads(data_of(event)) == json.loads(render_item(item(body), "b@b.test"))


def test_a_message_written_over_lines_keeps_its_bytes() -> None:
    body = json.dumps({"sender": "a@a.test", "payload": {"text": "a\nb", "list": [1, 2]}}, indent=2).encode()
    assert data_of(render_event(item(body), "b@b.test")) == render_item(item(body), "b@b.test")


def test_a_run_of_line_breaks_is_one_new_line() -> None:
    event = render_event(item(BODY % b"[1,\r\n\r\n\n\n2]"), "b@b.test")
    assert event.count(b"\ndata: ") == 2


@given(st.lists(st.sampled_from([b" ", b"\n", b"\r", b"\t"]), max_size=6).map(b"".join), st.integers(0, 3))
def test_whatever_white_space_there_is_the_event_says_the_same(white: bytes, count: int) -> None:
    payload = b"[" + white + (b'"a\\n\\r",' + white) * count + b"null" + white + b"]" + white
    body = BODY % payload
    assert json.loads(data_of(render_event(item(body), "b@b.test"))) == json.loads(
        render_item(item(body), "b@b.test")
    )
