"""What is read as plain is read as the parser would read it; all else is the parser's."""

import asyncio
from typing import Any

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_parser import HttpRequestParser
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.fast_heads import HEAD_BYTES_MAX, HEADERS_KNOWN_MAX, PlainHeads, PlainReader
from gateway.http.framing import Head
from gateway.http.limits import Manners
from tests.attacks.test_desync import LAST, REFUSED, SMUGGLED

MANNERS = Manners()
POST = b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nX-Word: one two\r\n\r\nbody"
GET = b"GET /v1/inbox/a@b?wait=3 HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"
CHUNKED = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"

ODD_LENGTHS = [
    *(b"", b" 4", b"4 ", b"+4", b"-4", b"4a", b"0x4", b"4_0", b"4,4", b"4\t", b"4\n", b"4\r", b"\xb2"),
    *(b"0000000004", b"4\r\n 4", b"4\r\n\r\n", b"5\r\nContent-Length: 4", b"4\r\nTransfer-Encoding: chunked"),
]

METHODS = st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"get"])
TARGETS = st.sampled_from(
    [b"/", b"/v1/messages", b"/a?b=c%20d", b"*", b"/\x7f", b"//x", b"/a#b", b"http://a/"]
)
KEYS = (b"Authorization", b"authorization", b"X-API-Key", b"x-api-key", b"X-Admin-Key")
NAMES = st.sampled_from(
    [b"X-Word", b"Accept", b"x", b"Via", b"Expect", b"TE", b"X\xe9", b"Host", b"content-length", *KEYS]
)
VALUES = st.sampled_from(
    [b"a", b"a b", b"", b" a", b"a ", b"a\tb", b"\xc3\xa9", b"keep-alive", b"close", b"0", b"5", b"+1"]
)
FIELDS = st.tuples(NAMES, st.sampled_from([b": ", b":", b" : "]), VALUES)
ENDS = st.sampled_from([b"\r\n"] * 150 + [b"\n", b"\r", b"\r\n ", b"\r\n\r\n"])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Mostly plain, with what is not so here and there."""
    body = draw(st.binary(max_size=20))
    fields = [(b"Host", b": ", b"a"), *draw(st.lists(FIELDS, max_size=3))]
    if draw(st.booleans()):
        name = draw(st.sampled_from([b"Content-Length", b"content-length", b"CONTENT-LENGTH"]))
        fields.insert(draw(st.integers(0, len(fields))), (name, b": ", b"%d" % len(body)))
    elif draw(st.booleans()):
        body = b""
    version = draw(st.sampled_from([b"HTTP/1.1"] * 9 + [b"HTTP/1.0"]))
    head = b" ".join([draw(METHODS), draw(TARGETS), version])
    lines = [head, *(name + colon + value for name, colon, value in fields), b""]
    return b"".join(line + draw(ENDS) for line in lines) + body


async def as_the_parser_reads(data: bytes) -> list[tuple[Any, bytes, bool]]:
    """Each message, its body, and whether that is whole."""
    loop = asyncio.get_running_loop()
    parser = HttpRequestParser(
        BaseProtocol(loop), loop, 65_536, max_line_size=8190, max_headers=100, max_field_size=8190
    )
    messages, _, _ = parser.feed_data(data)
    return [
        (message, payload.read_nowait() if payload.total_bytes else b"", payload.is_eof())
        for message, payload in messages
    ]


@given(requests())
def test_a_plain_request_is_what_the_parser_reads(data: bytes) -> None:
    taken = PlainReader(PlainHeads(MANNERS)).take(data, idle=True)
    if taken is None:
        return
    head, body = taken
    ((message, parsed, whole),) = asyncio.run(as_the_parser_reads(data))
    assert whole
    assert (message.method, message.path, parsed) == (
        head.method,
        head.path + (head.query and "?" + head.query),
        body,
    )
    assert not any((message.should_close, message.upgrade, message.chunked, message.compression))
    lengths = message.headers.getall("Content-Length", [])
    assert [int(length) for length in lengths] in ([], [len(body)])
    said = {
        name.lower(): value for name, value in message.headers.items() if name.lower() != "content-length"
    }
    key = {head.key[0].lower(): head.key[1]} if head.key else {}
    assert said == {name.lower(): value for name, value in head.headers.items()} | key
    assert len(message.headers) == len(head.headers) + len(key) + len(lengths)


def test_what_most_clients_send_is_plain() -> None:
    found = [take(each) for each in (POST, GET)]
    assert [(head.method, head.path, head.query, body) for head, body in found] == [
        ("POST", "/v1/messages", "", b"body"),
        ("GET", "/v1/inbox/a@b", "wait=3", b""),
    ]
    assert found[0][0].headers.getall("X-Word") == ["one two"]
    assert "Content-Length" not in found[0][0].headers


def take(data: bytes) -> Any:
    return PlainReader(PlainHeads(MANNERS)).take(data, idle=True)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_no_attack_is_plain_not_even_the_beginning_of_one(name: str) -> None:
    data = REFUSED[name]
    for end in range(len(data) + 1):
        reader = PlainReader(PlainHeads(MANNERS))
        assert reader.take(data[:end], idle=True) is None
        assert reader.take(data[end:] or SMUGGLED, idle=True) is None
        assert reader.take(SMUGGLED, idle=True) is None


@pytest.mark.parametrize("name", sorted(LAST))
def test_a_last_request_is_not_plain(name: str) -> None:
    assert take(LAST[name]) is None


@pytest.mark.parametrize("cut", [1, POST.index(b"body"), len(POST) - 1])
def test_behind_a_body_in_pieces_requests_are_plain_again(cut: int) -> None:
    reader = PlainReader(PlainHeads(MANNERS))
    assert reader.take(POST[:cut], idle=True) is None
    assert reader.take(POST[cut:], idle=False) is None
    whole_head = cut > POST.index(b"\r\n\r\n")
    assert (reader.take(GET, idle=True) is not None) == whole_head


@pytest.mark.parametrize("odd", [CHUNKED, POST + GET, POST[:-1] + b"", b"\r\n" + GET])
def test_where_the_parser_stands_is_never_guessed(odd: bytes) -> None:
    reader = PlainReader(PlainHeads(MANNERS))
    assert reader.take(odd, idle=True) is None
    assert reader.take(GET, idle=True) is None
    assert reader.take(GET, idle=True) is None


def test_what_comes_while_another_is_in_work_queues_with_the_parser() -> None:
    reader = PlainReader(PlainHeads(MANNERS))
    assert reader.take(POST, idle=False) is None
    assert reader.take(POST, idle=True) is not None


def poll(agent: int) -> bytes:
    return GET[:-2].replace(b"a@b", b"a%d@b" % agent) + b"Authorization: Bearer secret-%d\r\n\r\n" % agent


def read(heads: PlainHeads, data: bytes) -> Head:
    found = heads.read(data)
    assert found is not None
    return found.head


def test_a_length_is_read_each_time() -> None:
    heads = PlainHeads(MANNERS)
    found = [heads.read(POST.replace(b": 4", b": %d" % length)) for length in (4, 12)]
    assert [plain.end - plain.begin for plain in filter(None, found)] == [4, 12]


def test_a_head_that_is_repeated_on_a_connection_is_read_with_its_own_length() -> None:
    reader = PlainReader(PlainHeads(MANNERS))
    for body in (b"body", b"", b"x" * 100, b"body"):
        data = POST[:-4].replace(b": 4", b": %d" % len(body)) + body
        assert reader.take(data, idle=True) == take(data)
        assert reader.take(GET, idle=True) == take(GET)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_no_attack_is_plain_behind_a_request_that_is(name: str) -> None:
    data = REFUSED[name]
    for end in range(len(data) + 1):
        for usual in (POST, GET):
            reader = PlainReader(PlainHeads(MANNERS))
            assert reader.take(usual, idle=True) is not None
            assert reader.take(data[:end], idle=True) is None
            assert reader.take(data[end:] or SMUGGLED, idle=True) is None


@pytest.mark.parametrize(
    ("told", "rest"),
    [
        *((told, b"X-Word: one two") for told in ODD_LENGTHS),
        (b"4", b"Transfer-Encoding: chunked"),
        (b"4", b"X-Word: one two\r\nTE: trailers"),
        (b"4", b"Upgrade: abcdef"),  # as long as what stood there before
        (b"4", b"X-Word :one two"),
    ],
)
def test_what_came_before_makes_nothing_plain_that_is_not(told: bytes, rest: bytes) -> None:
    reader = PlainReader(PlainHeads(MANNERS))
    assert reader.take(POST, idle=True) is not None
    data = POST.replace(b": 4\r\n", b": " + told + b"\r\n").replace(b"X-Word: one two", rest)
    assert reader.take(data, idle=True) is None


@given(requests(), requests())
def test_what_came_before_changes_nothing_of_how_a_request_is_read(before: bytes, after: bytes) -> None:
    reader = PlainReader(PlainHeads(MANNERS))
    if reader.take(before, idle=True) is not None:
        assert reader.take(after, idle=True) == take(after)


def test_a_crowd_of_agents_shares_what_is_remembered_and_no_key_is() -> None:
    heads = PlainHeads(MANNERS)
    crowd = [read(heads, poll(agent)) for agent in range(3)]
    assert [(head.path, head.key) for head in crowd] == [
        (f"/v1/inbox/a{agent}@b", ("Authorization", f"Bearer secret-{agent}")) for agent in range(3)
    ]
    assert len({id(head.headers) for head in crowd}) == 1
    assert "Authorization" not in crowd[0].headers


@pytest.mark.parametrize(
    "line", [b"X-Admin-Key: k", b"AUTHORIZATION: k", b"X-API-Key: k\r\nAuthorization: k"]
)
def test_a_key_that_stands_elsewhere_is_left_to_the_parser(line: bytes) -> None:
    assert take(GET[:-2] + line + b"\r\n\r\n") is None


def test_headers_in_use_are_remembered_and_those_of_long_ago_forgotten() -> None:
    heads = PlainHeads(MANNERS)
    used, unused = read(heads, POST), read(heads, GET)
    for count in range(HEADERS_KNOWN_MAX):
        heads.read(GET.replace(b"Host: a", b"Host: a%d" % count))
        assert read(heads, POST).headers is used.headers
    assert read(heads, GET).headers is not unused.headers


def test_a_head_beyond_a_limit_is_not_plain() -> None:
    assert take(GET[:-2] + b"X: " + b"x" * (HEAD_BYTES_MAX - len(GET)) + b"\r\n\r\n") is None
    assert take(GET[:-2] + b"".join(b"X%d: x\r\n" % count for count in range(99)) + b"\r\n") is None
    assert take(GET[:-2] + b"".join(b"X%d: x\r\n" % count for count in range(98)) + b"\r\n") is not None
