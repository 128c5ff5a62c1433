"""What a peer may answer to harm: bombs, floods, silence, nonsense, wrong certificates (S9, S12, S13)."""

import asyncio
import gzip
import ssl
import zlib
from collections.abc import AsyncIterator
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.fake_peer import Authority
from gateway.net.dns_answer import DnsAnswer, Records
from gateway.net.http_answer import AnswerHead, BadHead, parse_chunk_size, parse_head
from gateway.net.outbound import Kind, Outbound, OutboundError, Response
from tests.raw_server import RawServer, Script, answer, read_request

HOST = "gw.b.test"
BYTES_MAX = 100_000
SECRET = b'{"payload":"for nobody else"}'


async def here(host: str) -> DnsAnswer:
    return Records(("127.0.0.1",), 60)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def outbound(authority: Authority) -> AsyncIterator[Outbound]:
    client = Outbound(
        here, authority.trusting_context(), agent="test", allow=[ip_network("127.0.0.0/8")], connect_seconds=2
    )
    yield client
    await client.close()


async def post(outbound: Outbound, server: RawServer, scheme: str = "http", seconds: float = 5) -> Response:
    return await outbound.post(
        f"{scheme}://{HOST}:{server.port}/v1/messages",
        SECRET,
        {},
        deadline_seconds=seconds,
        answer_bytes_max=BYTES_MAX,
        plain=True,
    )


async def failure(
    outbound: Outbound, script: bytes | Script, seconds: float = 5, tls: ssl.SSLContext | None = None
) -> OutboundError:
    async with RawServer(script, tls) as server:
        with pytest.raises(OutboundError) as error:
            await post(outbound, server, "https" if tls else "http", seconds)
        if isinstance(script, bytes) and tls is None:
            assert (await _well(outbound)).status == 200  # one bad answer spoils no other
    return error.value


async def _well(outbound: Outbound) -> Response:
    async with RawServer(answer(200)) as server:
        return await post(outbound, server)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(b"\x00" * 50_000_000, mtime=0)),
        ("x-gzip", gzip.compress(b"{}", mtime=0)),
        ("deflate", zlib.compress(b"\x00" * 50_000_000)),
        ("br", b"\x00" * 100),
        ("zstd", b"\x28\xb5\x2f\xfd"),
        ("GZIP", gzip.compress(b"{}", mtime=0)),
        ("gzip, gzip", gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0)),
        ("identity, gzip", gzip.compress(b"{}", mtime=0)),
        ("nonsense", b"{}"),
    ],
)
async def test_a_compressed_answer_is_refused_unopened(outbound: Outbound, coding: str, body: bytes) -> None:
    error = await failure(outbound, answer(200, body, Content_Encoding=coding))
    assert error.kind is Kind.PROTOCOL
    assert error.sent


async def test_of_a_compressed_download_no_chunk_is_handed_out(outbound: Outbound) -> None:
    async with RawServer(answer(200, gzip.compress(b"{}", mtime=0), Content_Encoding="gzip")) as server:
        url = f"http://{HOST}:{server.port}/"
        async with outbound.stream(url, {}, deadline_seconds=5, answer_bytes_max=99, plain=True) as download:
            with pytest.raises(OutboundError):
                await anext(download.chunks)


async def test_an_identity_coding_is_no_coding(outbound: Outbound) -> None:
    async with RawServer(answer(200, b"{}", Content_Encoding="identity")) as server:
        assert (await post(outbound, server)).body == b"{}"


async def test_an_answer_that_says_it_is_too_large_is_not_read(outbound: Outbound) -> None:
    async def boast(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\nx")
        await reader.read()

    assert (await failure(outbound, boast)).kind is Kind.TOO_LARGE


@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked\r\n", b"X-Length: none\r\n"])
async def test_an_answer_without_end_is_left_at_the_limit(outbound: Outbound, framing: bytes) -> None:
    written = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n")
        while True:
            writer.write(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
            written += 10_000
            await writer.drain()

    assert (await failure(outbound, flood)).kind is Kind.TOO_LARGE
    assert written < 20_000_000  # buffers on the way, not the flood


async def test_exactly_the_limit_is_taken(outbound: Outbound) -> None:
    async with RawServer(answer(200, b"x" * BYTES_MAX)) as server:
        assert len((await post(outbound, server)).body) == BYTES_MAX


async def _nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _half_a_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    await reader.read()


async def _only_promises(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    await reader.read()


@pytest.mark.parametrize("script", [_nothing, _half_a_body, _only_promises])
async def test_a_slow_answer_ends_at_the_deadline(outbound: Outbound, script: Script) -> None:
    error = await failure(outbound, script, seconds=0.3)
    assert error.kind is Kind.TIMEOUT
    assert error.sent


async def test_a_head_in_drops_ends_at_the_deadline(outbound: Outbound) -> None:
    async def drops(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(1000):
            writer.write(b"X: %d\r\n" % number)
            try:
                async with asyncio.timeout(0.05):
                    await reader.read(1)
                    return
            except TimeoutError:
                continue

    assert (await failure(outbound, drops, seconds=0.4)).kind is Kind.TIMEOUT


async def test_a_peer_that_takes_nothing_ends_at_the_deadline(outbound: Outbound) -> None:
    held = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await held.wait()

    async with RawServer(deaf) as server:
        with pytest.raises(OutboundError) as error:
            await outbound.post(
                f"http://{HOST}:{server.port}/",
                b"x" * 50_000_000,
                {},
                deadline_seconds=0.4,
                answer_bytes_max=9,
                plain=True,
            )
        held.set()
    assert error.value.kind is Kind.TIMEOUT


async def test_a_tls_door_that_never_shakes_hands_is_given_up(outbound: Outbound) -> None:
    async with RawServer(_nothing) as server:
        with pytest.raises(OutboundError) as error:
            await post(outbound, server, "https", seconds=10)
        assert error.value.kind is Kind.CONNECT
        assert not error.value.sent


NONSENSE = [
    b"\x15\x03\x01\x00\x02\x02\x50" * 10 + b"\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    b"220 mail ESMTP\r\n\r\n",
    b"HTTP/2 200\r\n\r\n",
    b"HTTP/1.2 200 OK\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n",
    b"HTTP/1.1 600 OK\r\n\r\n",
    b"http/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1  200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 0\n\n\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\r\n\tb\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\rY: b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0x1\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\nxx",
    b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 5000 + b"\r\na\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"Content-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
    b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nnot HTTP any more\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("reply", NONSENSE, ids=lambda reply: str(reply[:60]))
async def test_nonsense_is_no_answer(outbound: Outbound, reply: bytes) -> None:
    error = await failure(outbound, reply)
    assert error.kind is Kind.PROTOCOL
    assert error.sent
    assert error.message.isprintable()
    assert len(error.message) < 300


@given(st.binary(max_size=200))
def test_any_head_is_judged_without_an_exception(raw: bytes) -> None:
    assert isinstance(parse_head(raw), AnswerHead | BadHead)
    assert isinstance(parse_head(b"HTTP/1.1 200 OK\r\n" + raw), AnswerHead | BadHead)
    size = parse_chunk_size(raw)
    assert size is None or size >= 0


def _old(authority: Authority) -> ssl.SSLContext:
    context = authority.server_context(HOST)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@pytest.mark.parametrize(
    "fault", ["wrong host", "expired", "unknown authority", "TLS 1.2", "address instead of name"]
)
async def test_nothing_is_sent_to_who_does_not_prove_the_name(
    outbound: Outbound, authority: Authority, fault: str
) -> None:
    contexts = {
        "wrong host": lambda: authority.server_context("gw.c.test"),
        "expired": lambda: authority.server_context(HOST, expired=True),
        "unknown authority": lambda: Authority().server_context(HOST),
        "TLS 1.2": lambda: _old(authority),
        "address instead of name": lambda: authority.server_context("127.0.0.1"),
    }
    heard = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(1000):
            heard.extend(piece)

    async with RawServer(listen, contexts[fault]()) as server:
        with pytest.raises(OutboundError) as error:
            await post(outbound, server, "https")
        async with asyncio.timeout(5):
            await server.finished.wait()
    assert error.value.kind is Kind.TLS
    assert not error.value.sent
    assert bytes(heard) == b""


async def test_the_same_request_is_heard_by_who_proves_the_name(
    outbound: Outbound, authority: Authority
) -> None:
    """The control of the test above."""
    async with RawServer(answer(202), authority.server_context(HOST)) as server:
        assert (await post(outbound, server, "https")).status == 202
        assert server.requests[0].body == SECRET


async def test_plain_http_at_a_tls_port_is_no_peer(outbound: Outbound) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(answer(400, b"plain HTTP here"))

    async with RawServer(plain) as server:
        with pytest.raises(OutboundError) as error:
            await post(outbound, server, "https")
    assert error.value.kind is Kind.TLS
    assert not error.value.sent
