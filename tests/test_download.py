"""Downloads by the one HTTP client: at the reader's pace, and not at any server's."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_network

import pytest

from conformance.fake_peer import Authority
from gateway.net.dns_answer import DnsAnswer, Records
from gateway.net.outbound import Kind, Outbound, OutboundError, Patience
from gateway.net.pace import Pace
from tests.raw_server import RawServer, Script, answer, read_request

HOST = "files.b.test"
RATE = 32_768
PATIENT = Patience(pause_seconds=5, pace=Pace(5, RATE))


async def resolve(_host: str) -> DnsAnswer:
    return Records(("127.0.0.1",), 60)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def outbound(authority: Authority) -> AsyncIterator[Outbound]:
    client = Outbound(
        resolve,
        authority.trusting_context(),
        agent="AMTP/1.0 (test)",
        allow=[ip_network("127.0.0.0/8")],
        connect_seconds=2,
    )
    yield client
    await client.close()


def serving(authority: Authority, script: bytes | Script) -> RawServer:
    return RawServer(script, authority.server_context(HOST))


async def download(
    outbound: Outbound, server: RawServer, times: Patience = PATIENT, bytes_max: int = 10**9
) -> bytes:
    url = f"https://{HOST}:{server.port}/file"
    async with outbound.download(url, {}, times=times, answer_bytes_max=bytes_max) as answered:
        return b"".join([chunk async for chunk in answered.chunks])


def gushing(pieces: Iterator[bytes], pause: asyncio.Event | None = None) -> Script:
    """A server that sends these pieces one by one, and then nothing until it is told."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        await (pause or asyncio.Event()).wait()

    return script


async def test_a_download_comes_whole_and_its_connection_serves_again(
    outbound: Outbound, authority: Authority
) -> None:
    async with serving(authority, answer(200, b"x" * 3_000_000)) as server:
        assert [len(await download(outbound, server)) for _ in range(2)] == [3_000_000] * 2
        assert server.accepted == 1
        assert server.requests[0].line == "GET /file HTTP/1.1"


async def test_a_server_that_falls_silent_is_given_up(outbound: Outbound, authority: Authority) -> None:
    async with serving(authority, gushing(iter([b"x" * 1000]))) as server:
        with pytest.raises(OutboundError) as error:
            await download(outbound, server, Patience(pause_seconds=0.1, pace=Pace(60, RATE)))
    assert error.value.kind is Kind.TIMEOUT


async def test_a_server_that_trickles_is_given_up_in_the_end(
    outbound: Outbound, authority: Authority
) -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=0.02)

    async with serving(authority, trickle) as server:
        with pytest.raises(OutboundError) as error:
            await download(outbound, server, Patience(pause_seconds=60, pace=Pace(0.2, RATE)))
    assert error.value.kind is Kind.TIMEOUT


async def test_a_slow_reader_does_not_use_up_the_patience_with_the_server(
    outbound: Outbound, authority: Authority
) -> None:
    times = Patience(pause_seconds=0.3, pace=Pace(0.3, RATE))
    async with serving(authority, answer(200, b"x" * 1_000_000)) as server:
        url = f"https://{HOST}:{server.port}/"
        async with outbound.download(url, {}, times=times, answer_bytes_max=10**9) as answered:
            size = 0
            async for chunk in answered.chunks:
                if not size:
                    await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=0.4)
                size += len(chunk)
    assert size == 1_000_000


async def test_no_more_is_read_than_was_asked_for(outbound: Outbound, authority: Authority) -> None:
    async with serving(authority, gushing(iter([b"x" * 1000] * 20))) as server:
        with pytest.raises(OutboundError) as error:
            await download(outbound, server, bytes_max=9999)
    assert error.value.kind is Kind.TOO_LARGE


async def test_a_download_is_never_plain(outbound: Outbound) -> None:
    async with RawServer(answer(200)) as server:
        with pytest.raises(OutboundError) as error:
            async with outbound.download(
                f"http://{HOST}:{server.port}/", {}, times=PATIENT, answer_bytes_max=9
            ):
                pass
        assert error.value.kind is Kind.REFUSED_ADDRESS
        assert server.accepted == 0


async def test_a_server_that_hangs_up_early_is_told_as_lost(outbound: Outbound, authority: Authority) -> None:
    over = asyncio.Event()
    over.set()
    async with serving(authority, gushing(iter([b"x" * 1000]), over)) as server:
        with pytest.raises(OutboundError) as error:
            await download(outbound, server)
    assert error.value.kind is Kind.LOST
