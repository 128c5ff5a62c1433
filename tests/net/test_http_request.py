"""The head of a request, byte for byte."""

import pytest

from gateway.net.http_request import BadHeader, render_head
from gateway.protocol.url import Url, parse_url


def target(text: str) -> Url:
    url = parse_url(text)
    assert isinstance(url, Url)
    return url


def test_a_post_tells_how_long_its_body_is() -> None:
    head = render_head("POST", target("https://gw.b.test:8443/v1/messages"), {"Via": "1.1 a.test"}, 12)
    assert head == (
        b"POST /v1/messages HTTP/1.1\r\nHost: gw.b.test:8443\r\nContent-Length: 12\r\nVia: 1.1 a.test\r\n\r\n"
    )


def test_a_get_has_no_body_to_tell_of() -> None:
    assert render_head("GET", target("https://b.test/x?y=1"), {}, 0) == (
        b"GET /x?y=1 HTTP/1.1\r\nHost: b.test\r\n\r\n"
    )


@pytest.mark.parametrize(("name", "value"), [("X-A", "1\r\nX-B: 2"), ("X A", "1"), ("", "1"), ("X-A", "ü")])
def test_a_header_that_could_be_read_as_something_else_is_not_written(name: str, value: str) -> None:
    with pytest.raises(BadHeader):
        render_head("GET", target("https://b.test/"), {name: value}, 0)
