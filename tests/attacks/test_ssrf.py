"""Hosts that lead to the inside, however they are written (S4). A listener on loopback sees no connection."""

import io
from collections.abc import AsyncIterator
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.dns_server import DnsServer
from conformance.fake_peer import Authority
from gateway.journal.journal import Journal
from gateway.net.dns_answer import DnsAnswer, Records
from gateway.net.outbound import Kind, Outbound, OutboundError
from gateway.net.reachable import judge, judge_port
from gateway.protocol.discovery import Broken, Speaks
from gateway.route.decide import HostMemory, Memory
from gateway.route.directory import Directory
from gateway.route.dns import Dns, Nameserver
from gateway.route.outage import Outage
from gateway.store.clock import Clock
from tests.raw_server import RawServer, answer

# What a URL may say; PORT is the listener's.
WRITTEN = [
    "127.0.0.1", "127.0.0.1.", "127.1", "127.0.1", "127.255.255.254", "0", "0.0.0.0", "0.0.0.1",
    "2130706433", "0x7f000001", "0x7f.0.0.1", "0x7f.1", "0177.0.0.1", "017700000001", "0177.1",
    "127.0.0.0x1", "00127.0.0.1", "127.0.0.01", "127。0。0。1", "１２７.0.0.1", "①②⑦.0.0.1",
    "127%2e0%2e0%2e1", "%31%32%37.0.0.1", "localhost", "LOCALHOST", "localhost.", "a.localhost",
    "ℓocalhost", "loc\u00adalhost", "[::1]", "[0:0:0:0:0:0:0:1]", "[::]", "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]", "[::127.0.0.1]", "[::7f00:1]", "[::ffff:0:127.0.0.1]", "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2002:7f00:0001::1]",
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]", "[2001::1]", "[fe80::1]", "[fe80::1%25lo]", "[fe80::1%lo]",
    "[::1%25lo]", "[fec0::1]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]", "[100::1]", "[2001:db8::1]",
    "[3fff::1]", "[5f00::1]", "[4000::1]", "[::1", "::1", "10.0.0.1", "172.16.0.1", "172.31.255.255",
    "192.168.0.1", "100.64.0.1", "100.127.255.254", "169.254.169.254", "168.63.129.16", "192.0.0.1",
    "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "192.88.99.1", "224.0.0.1",
    "239.255.255.255", "240.0.0.1", "255.255.255.255", "user@127.0.0.1", "public.test@127.0.0.1",
    "127.0.0.1@public.test", "public.test:80@127.0.0.1", "127.0.0.1#@public.test",
    "127.0.0.1\\@public.test", "public.test\\.127.0.0.1", "127.0.0.1 ", " 127.0.0.1", "127.0.0.1\t",
    "127.0.0.1\r\n", "127.0.0.1\x00.public.test", "public.test\x00", "", ".", "..", "-", "*",
]  # fmt: skip

# Where a name may lead: the records of one host.
LEADING = {
    "loopback": {"A": ["127.0.0.1"]},
    "loopback-v6": {"AAAA": ["::1"]},
    "mapped": {"AAAA": ["::ffff:127.0.0.1"]},
    "nat64": {"AAAA": ["64:ff9b::7f00:1"]},
    "6to4": {"AAAA": ["2002:7f00:1::1"]},
    "teredo": {"AAAA": ["2001:0:4136:e378:8000:63bf:80ff:fffe"]},
    "private": {"A": ["10.1.2.3"]},
    "metadata": {"A": ["169.254.169.254"]},
    "unspecified": {"A": ["0.0.0.0"]},
    "one-of-two": {"A": ["9.9.9.9", "127.0.0.1"]},
    "one-of-a-hundred": {"A": [f"9.9.9.{number}" for number in range(100)] + ["127.0.0.1"]},
    "other-family": {"A": ["9.9.9.9"], "AAAA": ["::1"]},
    "alias": {"CNAME": ["loopback.evil.test."]},
    "far-alias": {"CNAME": ["inside.other.test."]},
    "alias-to-localhost": {"CNAME": ["localhost."]},
}


class Forgetful:
    async def recall(self, domain: str) -> Memory | None:
        return None

    async def remember(self, memory: Memory) -> None:
        return

    async def recall_host(self, host: str) -> HostMemory | None:
        return None

    async def remember_host(self, memory: HostMemory) -> None:
        return


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def listener() -> AsyncIterator[RawServer]:
    """What must not be reached."""
    async with RawServer(answer(200, b"secret")) as running:
        yield running


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as running:
        for label, records in LEADING.items():
            for kind, values in records.items():
                running.add(f"{label}.evil.test", kind, *values, ttl=0)
        running.add("inside.other.test", "A", "127.0.0.1")
        running.add("localhost", "A", "127.0.0.1")
        yield running


@pytest.fixture
async def directory(dns: DnsServer, clock: Clock) -> AsyncIterator[Directory]:
    opened = Directory(
        Dns([Nameserver("127.0.0.1", dns.port)]), clock, Forgetful(), Outage(clock, Journal(io.StringIO()))
    )
    yield opened
    await opened.close()


@pytest.fixture
async def outbound(directory: Directory, authority: Authority) -> AsyncIterator[Outbound]:
    client = Outbound(directory.resolve_host, authority.trusting_context(), agent="test", connect_seconds=1)
    yield client
    await client.close()


async def refusal(outbound: Outbound, url: str) -> OutboundError:
    """Why nothing was asked there, by either way to ask."""
    with pytest.raises(OutboundError) as got:
        await outbound.get(url, {}, deadline_seconds=5, answer_bytes_max=1000, plain=True)
    with pytest.raises(OutboundError) as posted:
        await outbound.post(url, b"{}", {}, deadline_seconds=5, answer_bytes_max=1000, plain=True)
    assert got.value.kind is posted.value.kind
    assert not posted.value.sent
    return posted.value


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", WRITTEN)
async def test_no_way_to_write_the_inside_connects_to_it(
    outbound: Outbound, listener: RawServer, host: str, scheme: str
) -> None:
    error = await refusal(outbound, f"{scheme}://{host}:{listener.port}/")
    assert error.kind in (Kind.REFUSED_ADDRESS, Kind.RESOLVE)
    assert listener.accepted == 0


@pytest.mark.parametrize("host", LEADING)
async def test_no_name_that_leads_inside_is_followed(
    outbound: Outbound, listener: RawServer, host: str
) -> None:
    error = await refusal(outbound, f"http://{host}.evil.test:{listener.port}/")
    assert error.kind is Kind.REFUSED_ADDRESS
    assert listener.accepted == 0


async def test_the_listener_is_reached_where_its_network_is_allowed(
    directory: Directory, authority: Authority, listener: RawServer
) -> None:
    """The control: what the other tests prove is not that the listener is deaf."""
    allowed = Outbound(
        directory.resolve_host, authority.trusting_context(), agent="test", allow=[ip_network("127.0.0.1/32")]
    )
    for host in ("127.0.0.1", "loopback.evil.test"):
        url = f"http://{host}:{listener.port}/"
        response = await allowed.get(url, {}, deadline_seconds=5, answer_bytes_max=99, plain=True)
        assert response.body == b"secret"
    await allowed.close()
    assert listener.accepted == 2


@pytest.mark.parametrize(
    "host", ["[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::1]", "127.0.0.2", "mapped.evil.test"]
)
async def test_an_allowed_network_opens_no_other_way_to_it(
    directory: Directory, authority: Authority, listener: RawServer, host: str
) -> None:
    allowed = Outbound(
        directory.resolve_host, authority.trusting_context(), agent="test", allow=[ip_network("127.0.0.1/32")]
    )
    assert (await refusal(allowed, f"http://{host}:{listener.port}/")).kind is Kind.REFUSED_ADDRESS
    await allowed.close()
    assert listener.accepted == 0


async def test_a_name_that_changes_its_mind_between_check_and_connection_gains_nothing(
    authority: Authority, listener: RawServer
) -> None:
    """Rebinding: public when judged, inside ever after. There is no second look-up to answer."""
    asked = 0

    async def rebinding(host: str) -> DnsAnswer:
        nonlocal asked
        asked += 1
        return Records(("127.0.0.2",) if asked == 1 else ("127.0.0.1",), 0)

    outbound = Outbound(
        rebinding,
        authority.trusting_context(),
        agent="test",
        allow=[ip_network("127.0.0.2/32")],
        connect_seconds=1,
    )
    url = f"http://rebind.evil.test:{listener.port}/"
    with pytest.raises(OutboundError) as first:
        await outbound.get(url, {}, deadline_seconds=5, answer_bytes_max=99, plain=True)
    assert first.value.kind is Kind.CONNECT  # at the judged address, where nobody is
    assert asked == 1
    with pytest.raises(OutboundError) as second:
        await outbound.get(url, {}, deadline_seconds=5, answer_bytes_max=99, plain=True)
    assert second.value.kind is Kind.REFUSED_ADDRESS
    await outbound.close()
    assert listener.accepted == 0


async def test_a_redirect_to_the_inside_is_not_followed(
    directory: Directory, authority: Authority, listener: RawServer
) -> None:
    allowed = Outbound(
        directory.resolve_host, authority.trusting_context(), agent="test", allow=[ip_network("127.0.0.1/32")]
    )
    for status in (301, 302, 303, 307, 308):
        moved = answer(status, Location=f"http://127.0.0.1:{listener.port}/", Refresh="0; url=/x")
        async with RawServer(moved) as outside:
            url = f"http://127.0.0.1:{outside.port}/"
            response = await allowed.get(url, {}, deadline_seconds=5, answer_bytes_max=99, plain=True)
            assert response.status == status
    await allowed.close()
    assert listener.accepted == 0


@pytest.mark.parametrize("port", [0, 1, 22, 25, 53, 110, 143, 389, 445, 465, 587, 993, 1023])
def test_ports_of_other_services_are_refused(port: int) -> None:
    assert judge_port(port) is not None


@pytest.mark.parametrize("port", [80, 443, 1024, 8443, 65535])
def test_ports_for_http_are_open(port: int) -> None:
    assert judge_port(port) is None


async def test_a_refused_port_is_not_even_looked_up(outbound: Outbound, dns: DnsServer) -> None:
    assert (await refusal(outbound, "https://loopback.evil.test:25/")).kind is Kind.REFUSED_ADDRESS
    assert dns.queries == []


@pytest.mark.parametrize("scheme", ["ftp", "file", "gopher", "javascript", "ws", "unix", "data", "http+unix"])
async def test_no_other_scheme_is_spoken(outbound: Outbound, listener: RawServer, scheme: str) -> None:
    await refusal(outbound, f"{scheme}://127.0.0.1:{listener.port}/")
    assert listener.accepted == 0


async def test_plain_http_is_refused_unless_the_caller_allows_it(outbound: Outbound) -> None:
    with pytest.raises(OutboundError) as error:
        await outbound.get("http://9.9.9.9/", {}, deadline_seconds=5, answer_bytes_max=99)
    assert error.value.kind is Kind.REFUSED_ADDRESS


@pytest.mark.parametrize("host", WRITTEN)
async def test_a_gateway_published_in_the_dns_leads_nowhere_inside(
    directory: Directory, outbound: Outbound, dns: DnsServer, listener: RawServer, host: str
) -> None:
    dns.txt("_amtp.evil.test", f"v=amtp1;gateway=https://{host}:{listener.port}")
    match await directory.lookup("evil.test"):
        case Speaks(capabilities):
            error = await refusal(outbound, capabilities.gateway_url + "/v1/messages")
            assert error.kind in (Kind.REFUSED_ADDRESS, Kind.RESOLVE)
        case other:
            assert isinstance(other, Broken)
    assert listener.accepted == 0


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1", "9.9.9.9", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.169.0.1",
        "223.255.255.254", "2606:4700::1111", "2a00:1450::1", "2001:4860:4860::8888",
    ],
)  # fmt: skip
def test_public_addresses_are_open(address: str) -> None:
    assert judge(ip_address(address)) is None


@given(st.ip_addresses())
def test_nothing_the_registries_call_special_is_open(address: object) -> None:
    ip = ip_address(str(address))
    if judge(ip) is None:
        assert ip.is_global
        assert not ip.is_multicast
        assert not ip.is_reserved
        assert not ip.is_loopback


@given(
    st.ip_addresses(v=4), st.sampled_from(["::ffff:0:0", "::ffff:0:0:0", "::", "64:ff9b::", "64:ff9b:1::"])
)
def test_no_address_hides_in_another(address: object, prefix: str) -> None:
    hidden = ip_address(int(ip_address(prefix)) + int(ip_address(str(address))))
    assert judge(ip_address(int(hidden).to_bytes(16, "big"))) is not None
