"""Query parameters and headers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.answers import Answer, answer_json
from gateway.http.request import Request, parse_query
from gateway.http.routing import Route
from gateway.protocol.errors import AMTPError, Code
from tests.receive.doorway import doorway, get


@pytest.mark.parametrize(
    ("raw", "query"),
    [
        ("", {}),
        ("&&", {}),
        ("a", {"a": ""}),
        ("a=", {"a": ""}),
        ("a=1&b=2", {"a": "1", "b": "2"}),
        ("a=b=c", {"a": "b=c"}),
        ("a=1+2", {"a": "1+2"}),
        ("a=1%2B2%20", {"a": "1+2 "}),
        ("a=%C3%A9", {"a": "é"}),
        ("a=%", {"a": "%"}),
    ],
)
def test_parameters_are_decoded_and_a_plus_means_itself(raw: str, query: dict[str, str]) -> None:
    assert parse_query(raw) == query


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ("since=1&since=2", "query parameter since must be given once"),
        ("since=%FF", "query parameter since must be UTF-8"),
        ("since=%00", "query parameter since must not hold control characters"),
        ("%0a=1", "query parameter must not hold control characters"),
        ("<b>=1&<b>=2", "query parameter must be given once"),
    ],
)
def test_a_bad_parameter_is_named_where_its_name_is_harmless(raw: str, named: str) -> None:
    with pytest.raises(AMTPError, match=named) as caught:
        parse_query(raw)
    assert caught.value.code is Code.INVALID_MESSAGE_FORMAT


@given(st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E)))
def test_any_query_is_parsed_or_refused(raw: str) -> None:
    try:
        query = parse_query(raw)
    except AMTPError:
        return
    assert all(text.isprintable() or ord(max(text)) > 0x7F for text in [*query, *query.values()])


@pytest.mark.parametrize("name", ["Authorization", "authorization"])
async def test_a_key_is_found_by_whatever_case_its_header_is_asked_for(name: str) -> None:
    async def show(request: Request) -> Answer:
        return answer_json([request.header_values(name), request.header(name), request.header("X-API-Key")])

    async with doorway([Route("GET", "/show", show)]) as opened:
        wire = await opened.wire()
        for line in (f"{name}: k", f"{name.upper()}: k", f"{name}: other"):
            reply = await wire.ask(get("/show", line))
            key = line.partition(": ")[2]
            assert reply.json == [[key], key, None]
