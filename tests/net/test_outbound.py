"""The one HTTP client: what it sends, what it takes, and what it keeps."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from conformance.fake_peer import Authority
from gateway.net.dns_answer import Absent, DnsAnswer, DnsFailure, Records
from gateway.net.outbound import Kind, Outbound, OutboundError, Response
from gateway.net.tls import client_context
from tests.raw_server import RawServer, answer, read_request

LOOPBACK = ip_network("127.0.0.0/8")
HOST = "gw.b.test"


class Names:
    """Where names lead; what is not listed leads to this machine."""

    def __init__(self) -> None:
        self.answers: dict[str, DnsAnswer] = {}
        self.asked: list[str] = []

    async def resolve(self, host: str) -> DnsAnswer:
        self.asked.append(host)
        return self.answers.get(host, Records(("127.0.0.1",), 60))


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
async def outbound(authority: Authority, names: Names) -> AsyncIterator[Outbound]:
    client = Outbound(
        names.resolve,
        authority.trusting_context(),
        agent="AMTP/1.0 (test)",
        allow=[LOOPBACK],
        connect_seconds=2,
    )
    yield client
    await client.close()


async def post(
    outbound: Outbound,
    url: str,
    body: bytes = b"{}",
    headers: dict[str, str] | None = None,
    seconds: float = 5,
    bytes_max: int = 10_000,
    tls: ssl.SSLContext | None = None,
) -> Response:
    return await outbound.post(
        url, body, headers or {}, deadline_seconds=seconds, answer_bytes_max=bytes_max, tls=tls, plain=True
    )


async def test_a_request_arrives_whole_with_its_host_and_our_name(outbound: Outbound) -> None:
    async with RawServer(answer(202, b"taken", X_Thing="yes")) as server:
        url = f"http://{HOST}:{server.port}/v1/messages?a=b%20c"
        response = await post(outbound, url, b'{"x":1}', {"X-AMTP-Version": "1.0"})
        (request,) = server.requests
    assert (response.status, response.body, response.headers["x-thing"]) == (202, b"taken", "yes")
    assert request.line == "POST /v1/messages?a=b%20c HTTP/1.1"
    assert request.body == b'{"x":1}'
    assert request.headers["host"] == f"{HOST}:{server.port}"
    assert request.headers["user-agent"] == "AMTP/1.0 (test)"
    assert request.headers["x-amtp-version"] == "1.0"
    assert request.headers["accept-encoding"] == "identity"
    assert "cookie" not in request.headers


async def test_a_get_sends_no_body(outbound: Outbound) -> None:
    async with RawServer(answer(200, b"here")) as server:
        url = f"http://{HOST}:{server.port}"
        response = await outbound.get(url, {}, deadline_seconds=5, answer_bytes_max=10, plain=True)
        assert server.requests[0].line == "GET / HTTP/1.1"
    assert response.body == b"here"


async def test_the_certificate_is_judged_by_the_name_and_the_connection_goes_to_the_address(
    outbound: Outbound, authority: Authority
) -> None:
    shown: list[str | None] = []
    context = authority.server_context(HOST)
    context.sni_callback = lambda _connection, name, _context: shown.append(name)
    async with RawServer(answer(200), context) as server:
        assert (await post(outbound, f"https://{HOST}:{server.port}/")).status == 200
    assert shown == [HOST]


async def test_a_destination_may_have_a_ca_and_a_certificate_of_its_own(
    outbound: Outbound, tmp_path: Path
) -> None:
    private = Authority()
    context = private.server_context(HOST)
    context.verify_mode = ssl.CERT_REQUIRED
    async with RawServer(answer(200), context) as server:
        url = f"https://{HOST}:{server.port}/"
        with pytest.raises(OutboundError) as unknown:
            await post(outbound, url)
        with pytest.raises(OutboundError) as nameless:
            await post(outbound, url, tls=client_context(private.write_ca(tmp_path)))
        assert unknown.value.kind is Kind.TLS
        assert nameless.value.kind in (Kind.TLS, Kind.LOST)  # not every server says why it hangs up
        assert server.requests == []
        ours = client_context(private.write_ca(tmp_path), *private.write_pair(tmp_path, "client.test"))
        assert (await post(outbound, url, tls=ours)).status == 200


async def test_a_look_at_a_server_shows_its_certificate_and_sends_nothing(
    outbound: Outbound, authority: Authority
) -> None:
    async with RawServer(answer(200), authority.server_context(HOST)) as server:
        greeting = await outbound.greet(f"https://{HOST}:{server.port}/", deadline_seconds=5)
        assert server.requests == []
    assert (greeting.version, greeting.fault) == ("TLSv1.3", None)
    assert greeting.certificate is not None


@pytest.mark.parametrize("fault", ["wrong host", "old TLS"])
async def test_a_look_at_a_bad_server_shows_it_and_what_is_wrong(
    outbound: Outbound, authority: Authority, fault: str
) -> None:
    context = authority.server_context("gw.c.test" if fault == "wrong host" else HOST)
    if fault == "old TLS":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with RawServer(answer(200), context) as server:
        greeting = await outbound.greet(f"https://{HOST}:{server.port}/", deadline_seconds=5)
        assert server.requests == []
    assert greeting.fault
    assert greeting.version == ("TLSv1.3" if fault == "wrong host" else "TLSv1.2")
    assert greeting.certificate is not None


async def test_requests_to_one_destination_share_a_connection(outbound: Outbound) -> None:
    async with RawServer(answer(200, b"x")) as server:
        for _ in range(5):
            await post(outbound, f"http://{HOST}:{server.port}/")
        assert server.accepted == 1
        assert len(server.requests) == 5


async def test_requests_at_once_have_a_connection_each_and_all_are_kept(outbound: Outbound) -> None:
    async with RawServer(answer(200, b"x")) as server:
        for _ in range(2):
            await asyncio.gather(*(post(outbound, f"http://{HOST}:{server.port}/") for _ in range(8)))
        assert server.accepted == 8


async def test_of_too_many_kept_connections_the_least_recently_used_makes_room(
    authority: Authority, names: Names
) -> None:
    client = Outbound(names.resolve, authority.trusting_context(), agent="test", allow=[LOOPBACK], kept_max=3)
    async with RawServer(answer(200, b"x")) as server:
        for name in ("a", "b", "c", "a", "d", "a", "c", "d"):
            await post(client, f"http://{name}.test:{server.port}/")
        assert server.accepted == 4
        await post(client, f"http://b.test:{server.port}/")  # that was the one
        assert server.accepted == 5
    await client.close()


async def test_other_tls_settings_never_share_a_connection(outbound: Outbound, authority: Authority) -> None:
    async with RawServer(answer(200, b"x"), authority.server_context(HOST)) as server:
        url = f"https://{HOST}:{server.port}/"
        await post(outbound, url)
        await post(outbound, url, tls=authority.trusting_context())
        assert server.accepted == 2


async def test_other_names_at_one_address_never_share_a_connection(outbound: Outbound) -> None:
    async with RawServer(answer(200, b"x")) as server:
        await post(outbound, f"http://a.test:{server.port}/")
        await post(outbound, f"http://b.test:{server.port}/")
        assert server.accepted == 2


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx",
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
    ],
)
async def test_a_connection_is_not_used_again_where_the_answer_says_so(
    outbound: Outbound, reply: bytes
) -> None:
    async with RawServer(reply) as server:
        for _ in range(2):
            assert (await post(outbound, f"http://{HOST}:{server.port}/")).body == b"x"
        assert server.accepted == 2


async def test_bytes_nobody_asked_for_are_never_taken_for_the_next_answer(outbound: Outbound) -> None:
    forged = answer(200, b"forged")
    async with RawServer(answer(200, b"true") + forged) as server:
        for _ in range(3):
            assert (await post(outbound, f"http://{HOST}:{server.port}/")).body == b"true"
        assert server.accepted == 3


async def test_a_connection_closed_while_idle_is_noticed(outbound: Outbound) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer(200, b"x"))

    async with RawServer(once) as server:
        for _ in range(3):
            server.finished.clear()
            assert (await post(outbound, f"http://{HOST}:{server.port}/")).status == 200
            await server.finished.wait()
            await asyncio.sleep(0)  # the loop reads the end of the stream
        assert server.accepted == 3


@pytest.mark.parametrize(
    ("reply", "body"),
    [
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
            b"abc0123456789",
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + answer(201, b"ok"), b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    ],
)
async def test_every_way_to_tell_the_length_is_understood(
    outbound: Outbound, reply: bytes, body: bytes
) -> None:
    async with RawServer(reply) as server:
        for _ in range(2):
            assert (await post(outbound, f"http://{HOST}:{server.port}/")).body == body
        assert server.accepted == 1


async def test_without_a_length_the_body_ends_with_the_connection(outbound: Outbound) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    async with RawServer(endless) as server:
        assert (await post(outbound, f"http://{HOST}:{server.port}/")).body == b"all of it"


async def test_an_answer_in_single_bytes_is_the_same_answer(outbound: Outbound) -> None:
    async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        reply = (
            b"HTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwhat\r\n1\r\n!\r\n0\r\n\r\n"
        )
        for byte in reply:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)

    async with RawServer(dribble) as server:
        response = await post(outbound, f"http://{HOST}:{server.port}/")
    assert (response.body, response.headers["x-a"]) == (b"what!", "b")


async def test_repeated_headers_are_joined(outbound: Outbound) -> None:
    async with RawServer(
        b"HTTP/1.1 200 OK\r\nVia: 1.1 a\r\nvia: 1.1 b\r\nContent-Length: 0\r\n\r\n"
    ) as server:
        response = await post(outbound, f"http://{HOST}:{server.port}/")
    assert response.headers["via"] == "1.1 a, 1.1 b"


async def test_a_large_body_arrives_whole(outbound: Outbound, authority: Authority) -> None:
    body = bytes(range(256)) * 40_000
    async with RawServer(answer(202), authority.server_context(HOST)) as server:
        await post(outbound, f"https://{HOST}:{server.port}/", body, seconds=30)
        assert server.requests[0].body == body


async def test_an_answer_before_the_body_was_heard_is_read(outbound: Outbound) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(413, b"too large"))
        await writer.drain()
        await reader.read()  # until the client leaves

    async with RawServer(refuse) as server:
        response = await post(outbound, f"http://{HOST}:{server.port}/", b"x" * 50_000_000)
    assert (response.status, response.body) == (413, b"too large")


async def test_a_download_comes_in_pieces_and_no_faster_than_it_is_read(outbound: Outbound) -> None:
    written = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 400000000\r\n\r\n")
        for _ in range(4000):
            writer.write(b"x" * 100_000)
            written += 100_000
            await writer.drain()

    async with RawServer(endless) as server:
        url = f"http://{HOST}:{server.port}/"
        async with outbound.stream(
            url, {}, deadline_seconds=30, answer_bytes_max=400_000_000, plain=True
        ) as download:
            read = 0
            async for chunk in download.chunks:
                read += len(chunk)
                if read > 10_000_000:
                    break
        assert written < 60_000_000


async def test_a_download_left_early_does_not_spoil_the_next_request(outbound: Outbound) -> None:
    async with RawServer(answer(200, b"x" * 5000)) as server:
        url = f"http://{HOST}:{server.port}/"
        async with outbound.stream(
            url, {}, deadline_seconds=5, answer_bytes_max=9000, plain=True
        ) as download:
            assert download.status == 200
        assert len((await post(outbound, url)).body) == 5000
        assert server.accepted == 2


async def test_trouble_of_whoever_reads_a_download_stays_theirs(outbound: Outbound) -> None:
    async with RawServer(answer(200, b"x")) as server:
        url = f"http://{HOST}:{server.port}/"
        for trouble in (FileNotFoundError("disk"), TimeoutError("theirs"), ValueError("else")):
            with pytest.raises(type(trouble)):
                async with outbound.stream(url, {}, deadline_seconds=5, answer_bytes_max=9, plain=True):
                    raise trouble


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_and_is_not_followed(outbound: Outbound, status: int) -> None:
    async with RawServer(answer(200)) as inside:
        moved = answer(status, Location=f"http://127.0.0.1:{inside.port}/secret")
        async with RawServer(moved) as server:
            assert (await post(outbound, f"http://{HOST}:{server.port}/")).status == status
        assert inside.accepted == 0


@pytest.mark.parametrize(
    ("found", "words"),
    [(Absent(60), "no address"), (DnsFailure("SERVFAIL"), "SERVFAIL")],
)
async def test_a_host_that_can_not_be_found_is_told_apart(
    outbound: Outbound, names: Names, found: DnsAnswer, words: str
) -> None:
    names.answers[HOST] = found
    with pytest.raises(OutboundError, match=words) as error:
        await post(outbound, f"https://{HOST}/")
    assert error.value.kind is Kind.RESOLVE
    assert not error.value.sent


async def test_nobody_at_the_door_is_a_failed_connection(outbound: Outbound) -> None:
    async with RawServer() as gone:
        pass
    with pytest.raises(OutboundError) as error:
        await post(outbound, f"http://{HOST}:{gone.port}/")
    assert error.value.kind is Kind.CONNECT
    assert not error.value.sent


async def test_a_dead_address_does_not_hide_a_living_one(outbound: Outbound, names: Names) -> None:
    names.answers[HOST] = Records(("127.0.0.2", "127.0.0.1"), 60)
    async with RawServer(answer(200, b"x")) as server:
        assert (await post(outbound, f"http://{HOST}:{server.port}/")).body == b"x"


@pytest.mark.parametrize("when", ["before the head", "within the head", "within the body", "within a chunk"])
async def test_a_connection_that_ends_too_early_is_lost_and_may_have_been_heard(
    outbound: Outbound, when: str
) -> None:
    beginnings = {
        "before the head": b"",
        "within the head": b"HTTP/1.1 200 OK\r\nContent-Le",
        "within the body": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        "within a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
    }

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(beginnings[when])

    async with RawServer(cut) as server:
        with pytest.raises(OutboundError) as error:
            await post(outbound, f"http://{HOST}:{server.port}/")
    assert error.value.kind is Kind.LOST
    assert error.value.sent


@pytest.mark.parametrize("name", ["X-A\r\nX-B", "X A", "", "X-ü"])
async def test_a_header_that_could_be_two_is_never_sent(outbound: Outbound, name: str) -> None:
    async with RawServer(answer(200)) as server:
        with pytest.raises(OutboundError):
            await post(outbound, f"http://{HOST}:{server.port}/", headers={name: "x"})
        assert server.requests == []


@pytest.mark.parametrize("value", ["x\r\nX-B: y", "x\n", "\x00", "ü\u2028", "x\r"])
async def test_a_value_that_could_be_a_header_is_never_sent(outbound: Outbound, value: str) -> None:
    async with RawServer(answer(200)) as server:
        with pytest.raises(OutboundError):
            await post(outbound, f"http://{HOST}:{server.port}/", headers={"X-A": value})
        assert server.requests == []


@pytest.mark.parametrize("variable", ["http_proxy", "HTTPS_PROXY", "ALL_PROXY"])
async def test_the_environment_proxies_nothing(
    outbound: Outbound, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    async with RawServer(answer(200, b"direct")) as server, RawServer(answer(200, b"proxied")) as proxy:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
        assert (await post(outbound, f"http://{HOST}:{server.port}/")).body == b"direct"
        assert proxy.accepted == 0


async def test_cookies_are_not_kept(outbound: Outbound) -> None:
    async with RawServer(answer(200, Set_Cookie="a=b; Path=/")) as server:
        for _ in range(2):
            await post(outbound, f"http://{HOST}:{server.port}/")
        assert all("cookie" not in request.headers for request in server.requests)


async def test_closing_leaves_no_connection_open(authority: Authority, names: Names) -> None:
    outbound = Outbound(names.resolve, authority.trusting_context(), agent="test", allow=[LOOPBACK])
    async with RawServer(answer(200, b"x"), authority.server_context(HOST)) as server:
        await post(outbound, f"https://{HOST}:{server.port}/")
        assert not server.finished.is_set()
        await outbound.close()
        async with asyncio.timeout(5):
            await server.finished.wait()
