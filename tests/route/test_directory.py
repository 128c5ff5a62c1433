"""What the directory keeps, forgets and believes, with real packets and a clock turned by hand."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from conformance.dns_server import Behaviour, DnsServer
from gateway.journal.journal import Journal
from gateway.net.dns_answer import Absent, DnsAnswer, DnsFailure, Records
from gateway.protocol.discovery import Broken, Capabilities, Silent, Speaks, parse_gateway
from gateway.protocol.url import Url
from gateway.route import directory as directory_module
from gateway.route.decide import HostMemory, Lookup, Memory, Temporary
from gateway.route.directory import Directory
from gateway.route.dns import Dns, Nameserver
from gateway.route.outage import Outage
from gateway.store.clock import Clock

NAME = "_amtp.b.test"
RECORD = "v=amtp1;gateway=https://gw.b.test"


@dataclass
class Notebook:
    """Memories in a dictionary, as the store keeps them in a table."""

    memories: dict[str, Memory] = field(default_factory=dict)
    hosts: dict[str, HostMemory] = field(default_factory=dict)
    writes: int = 0

    async def recall(self, domain: str) -> Memory | None:
        return self.memories.get(domain)

    async def remember(self, memory: Memory) -> None:
        self.memories[memory.domain] = memory
        self.writes += 1

    async def recall_host(self, host: str) -> HostMemory | None:
        return self.hosts.get(host)

    async def remember_host(self, memory: HostMemory) -> None:
        self.hosts[memory.host] = memory


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    async with DnsServer() as running:
        yield running


@pytest.fixture
def notebook() -> Notebook:
    return Notebook()


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def journal(log: io.StringIO) -> Journal:
    return Journal(log, form="text")


Open = Callable[..., Directory]


@pytest.fixture
async def opened(
    server: DnsServer, notebook: Notebook, clock: Clock, journal: Journal
) -> AsyncIterator[Open]:
    """Opens directories; each has its own cache and they share the notebook, like a restarted gateway."""
    directories: list[Directory] = []

    def build(
        peers: dict[str, Capabilities] | None = None,
        plain_domains: frozenset[str] = frozenset(),
        entries_max: int = 100,
        question_seconds: float = 3,
    ) -> Directory:
        tries = (0.3, 0.3) if question_seconds < 60 else (question_seconds,)
        server_ = Nameserver("127.0.0.1", server.port)
        dns = Dns([server_], tries_seconds=tries, question_seconds=question_seconds)
        outage = Outage(clock, journal)
        directory = Directory(
            dns, clock, notebook, outage, peers=peers, plain_domains=plain_domains, entries_max=entries_max
        )
        directories.append(directory)
        return directory

    yield build
    for directory in directories:
        await directory.close()


@pytest.fixture
def directory(opened: Open) -> Directory:
    return opened()


def addresses_of(answer: DnsAnswer) -> tuple[str, ...]:
    assert isinstance(answer, Records), answer
    return answer.values


def gateway_of(lookup: Lookup) -> str:
    assert isinstance(lookup, Speaks), lookup
    return lookup.capabilities.gateway_url


async def test_an_answer_is_kept_for_its_ttl_and_then_asked_again(
    directory: Directory, server: DnsServer, clock: Clock
) -> None:
    server.txt(NAME, RECORD, ttl=100)
    assert gateway_of(await directory.lookup("b.test")) == "https://gw.b.test"
    server.txt(NAME, "v=amtp1;gateway=https://new.b.test", ttl=100)
    clock.offset += timedelta(seconds=98)
    assert gateway_of(await directory.lookup("b.test")) == "https://gw.b.test"
    assert server.count(NAME) == 1
    clock.offset += timedelta(seconds=3)
    assert gateway_of(await directory.lookup("b.test")) == "https://new.b.test"


async def test_ttl_0_is_kept_for_a_second(directory: Directory, server: DnsServer, clock: Clock) -> None:
    server.txt(NAME, RECORD, ttl=0)
    await directory.lookup("b.test")
    known = directory.known("b.test")
    assert known is not None
    assert known.asked_at is not None
    assert known.good_until == known.asked_at + timedelta(seconds=1)
    clock.offset += timedelta(seconds=1)
    await directory.lookup("b.test")
    assert server.count(NAME) == 2


async def test_a_ttl_of_years_is_kept_for_a_day(
    directory: Directory, server: DnsServer, clock: Clock
) -> None:
    server.txt(NAME, RECORD, ttl=2**31 - 1)
    await directory.lookup("b.test")
    clock.offset += timedelta(days=1)
    await directory.lookup("b.test")
    assert server.count(NAME) == 2


async def test_silence_is_kept_for_five_minutes_at_most(
    directory: Directory, server: DnsServer, clock: Clock
) -> None:
    server.soa_minimum = 86_400
    assert await directory.lookup("b.test") == Silent()
    server.txt(NAME, RECORD)
    clock.offset += timedelta(seconds=298)
    assert await directory.lookup("b.test") == Silent()
    clock.offset += timedelta(seconds=3)
    assert gateway_of(await directory.lookup("b.test")) == "https://gw.b.test"


async def test_a_thousand_who_ask_at_once_cause_one_query(directory: Directory, server: DnsServer) -> None:
    server.txt(NAME, RECORD)
    answers = await asyncio.gather(*(directory.lookup("b.test") for _ in range(1000)))
    assert set(map(gateway_of, answers)) == {"https://gw.b.test"}
    assert server.count(NAME) == 1


async def test_who_stops_waiting_does_not_stop_the_question_for_others(
    directory: Directory, server: DnsServer
) -> None:
    server.txt(NAME, RECORD)
    server.gates[NAME] = asyncio.Event()
    impatient = asyncio.create_task(directory.lookup("b.test"))
    patient = asyncio.create_task(directory.lookup("b.test"))
    await server.asked.wait()
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    server.gates[NAME].set()
    assert gateway_of(await patient) == "https://gw.b.test"


async def test_the_cache_is_bounded_and_loses_what_was_used_least_recently(
    opened: Open, server: DnsServer
) -> None:
    directory = opened(entries_max=2)
    for domain in ("a.test", "b.test", "a.test", "c.test"):
        await directory.lookup(domain)
    assert directory.known("a.test") is not None
    assert directory.known("b.test") is None


@pytest.mark.parametrize(
    "behaviour", [Behaviour.SERVFAIL, Behaviour.TIMEOUT, Behaviour.TRUNCATE_ONLY, Behaviour.REFUSE]
)
async def test_a_stale_answer_serves_through_dns_trouble_for_seven_days(
    directory: Directory, server: DnsServer, clock: Clock, behaviour: Behaviour
) -> None:
    server.txt(NAME, RECORD)
    await directory.lookup("b.test")
    server.behave(NAME, behaviour)
    clock.offset += timedelta(days=6, hours=23)
    stale = await directory.lookup("b.test")
    assert gateway_of(stale) == "https://gw.b.test"
    known = directory.known("b.test")
    assert known is not None
    assert known.stale
    clock.offset += timedelta(hours=2)
    assert isinstance(await directory.lookup("b.test"), Temporary)


async def test_a_stale_answer_serves_after_a_restart(opened: Open, server: DnsServer, clock: Clock) -> None:
    server.txt(NAME, RECORD)
    await opened().lookup("b.test")
    server.down = True
    clock.offset += timedelta(days=2)
    assert gateway_of(await opened().lookup("b.test")) == "https://gw.b.test"


async def test_trouble_with_a_stranger_is_temporary_and_heard_of_again_soon(
    directory: Directory, server: DnsServer, clock: Clock
) -> None:
    server.behave(NAME, Behaviour.SERVFAIL)
    first = await directory.lookup("b.test")
    assert isinstance(first, Temporary)
    assert "SERVFAIL" in first.reason
    asked = server.count(NAME)
    await directory.lookup("b.test")
    assert server.count(NAME) == asked
    server.behave(NAME, None)
    server.txt(NAME, RECORD)
    clock.offset += timedelta(seconds=6)
    assert gateway_of(await directory.lookup("b.test")) == "https://gw.b.test"


async def test_a_silent_domain_in_trouble_is_temporary_not_silent(
    directory: Directory, server: DnsServer, clock: Clock
) -> None:
    assert await directory.lookup("b.test") == Silent()
    server.behave(NAME, Behaviour.SERVFAIL)
    clock.offset += timedelta(hours=1)
    assert isinstance(await directory.lookup("b.test"), Temporary)


async def test_a_broken_record_is_broken_and_followed_when_mended(
    directory: Directory, server: DnsServer, clock: Clock
) -> None:
    server.txt(NAME, "v=amtp1;gateway=oops", ttl=86_400)
    assert isinstance(await directory.lookup("b.test"), Broken)
    server.txt(NAME, RECORD)
    clock.offset += timedelta(minutes=5)
    assert gateway_of(await directory.lookup("b.test")) == "https://gw.b.test"


async def test_who_spoke_lately_is_not_believed_silent_for_a_day(
    directory: Directory, server: DnsServer, clock: Clock
) -> None:
    server.txt(NAME, RECORD)
    await directory.lookup("b.test")
    server.remove(NAME)
    clock.offset += timedelta(days=10)
    first = await directory.lookup("b.test")
    assert isinstance(first, Temporary)
    assert "spoke AMTP" in first.reason
    clock.offset += timedelta(hours=23)
    assert isinstance(await directory.lookup("b.test"), Temporary)
    clock.offset += timedelta(hours=2)
    assert await directory.lookup("b.test") == Silent()


async def test_the_day_of_silence_is_counted_across_restarts(
    opened: Open, server: DnsServer, clock: Clock
) -> None:
    server.txt(NAME, RECORD)
    await opened().lookup("b.test")
    server.remove(NAME)
    clock.offset += timedelta(hours=1)
    assert isinstance(await opened().lookup("b.test"), Temporary)
    clock.offset += timedelta(hours=23, minutes=59)
    assert isinstance(await opened().lookup("b.test"), Temporary)
    clock.offset += timedelta(minutes=2)
    assert await opened().lookup("b.test") == Silent()


async def test_who_spoke_a_month_ago_is_believed_silent_at_once(
    directory: Directory, server: DnsServer, clock: Clock
) -> None:
    server.txt(NAME, RECORD)
    await directory.lookup("b.test")
    server.remove(NAME)
    clock.offset += timedelta(days=31)
    assert await directory.lookup("b.test") == Silent()


async def test_who_speaks_again_is_heard_and_its_silence_forgotten(
    directory: Directory, server: DnsServer, clock: Clock, notebook: Notebook
) -> None:
    server.txt(NAME, RECORD)
    await directory.lookup("b.test")
    server.remove(NAME)
    clock.offset += timedelta(hours=1)
    assert isinstance(await directory.lookup("b.test"), Temporary)
    server.txt(NAME, RECORD)
    clock.offset += timedelta(hours=1)
    assert gateway_of(await directory.lookup("b.test")) == "https://gw.b.test"
    assert notebook.memories["b.test"].silent_since is None


async def test_an_answer_taken_back_does_not_serve_as_stale(
    directory: Directory, server: DnsServer, clock: Clock
) -> None:
    server.txt(NAME, RECORD)
    await directory.lookup("b.test")
    server.remove(NAME)
    clock.offset += timedelta(hours=1)
    await directory.lookup("b.test")
    server.down = True
    clock.offset += timedelta(hours=1)
    assert isinstance(await directory.lookup("b.test"), Temporary)


async def test_the_memory_is_written_when_something_changed_and_else_once_an_hour(
    directory: Directory, server: DnsServer, clock: Clock, notebook: Notebook
) -> None:
    server.txt(NAME, RECORD, ttl=60)
    for _ in range(30):
        await directory.lookup("b.test")
        clock.offset += timedelta(minutes=2)
    assert server.count(NAME) == 30
    assert notebook.writes <= 2
    server.txt(NAME, "v=amtp1;gateway=https://new.b.test")
    await directory.lookup("b.test")
    assert "new.b.test" in notebook.memories["b.test"].record


async def test_silent_strangers_leave_no_memory(directory: Directory, notebook: Notebook) -> None:
    await directory.lookup("b.test")
    assert notebook.memories == {}


async def test_a_clock_set_back_makes_the_directory_ask_again(
    directory: Directory, server: DnsServer, clock: Clock
) -> None:
    server.txt(NAME, RECORD, ttl=60)
    await directory.lookup("b.test")
    clock.offset -= timedelta(days=400)
    assert gateway_of(await directory.lookup("b.test")) == "https://gw.b.test"
    assert server.count(NAME) == 2


async def test_a_configured_peer_is_never_asked_for(opened: Open, server: DnsServer) -> None:
    url = parse_gateway("http://127.0.0.1:8080", plain=True)
    assert isinstance(url, Url)
    directory = opened(peers={"b.test": Capabilities(url)})
    server.txt(NAME, RECORD)
    assert gateway_of(await directory.lookup("b.test")) == "http://127.0.0.1:8080"
    known = directory.known("b.test")
    assert known is not None
    assert known.asked_at is None
    assert server.queries == []


async def test_plain_http_is_taken_only_from_the_very_domain_configured(
    opened: Open, server: DnsServer
) -> None:
    directory = opened(plain_domains=frozenset({"b.test"}))
    for domain in ("b.test", "c.test"):
        server.txt(f"_amtp.{domain}", "v=amtp1;gateway=http://gw.test:8080")
    assert gateway_of(await directory.lookup("b.test")) == "http://gw.test:8080"
    assert isinstance(await directory.lookup("c.test"), Broken)


async def test_the_addresses_of_a_host_are_kept_for_a_minute_at_most(
    directory: Directory, server: DnsServer, clock: Clock
) -> None:
    server.add("gw.b.test", "A", "192.0.2.1", ttl=86_400)
    assert await directory.resolve_host("gw.b.test") == Records(("192.0.2.1",), 86_400)
    server.add("gw.b.test", "A", "192.0.2.2", ttl=86_400)
    await directory.resolve_host("gw.b.test")
    assert server.count("gw.b.test", "A") == 1
    clock.offset += timedelta(seconds=61)
    assert await directory.resolve_host("gw.b.test") == Records(("192.0.2.2",), 86_400)


@pytest.mark.parametrize("restarted", [False, True])
async def test_the_addresses_of_a_host_outlive_an_outage_of_the_dns_for_a_week(
    opened: Open, server: DnsServer, clock: Clock, restarted: bool
) -> None:
    server.add("gw.b.test", "A", "192.0.2.1", ttl=60)
    directory = opened()
    found = addresses_of(await directory.resolve_host("gw.b.test"))
    server.behave("gw.b.test", Behaviour.SERVFAIL)
    for _ in range(7):
        clock.offset += timedelta(hours=23, minutes=59)
        directory = opened() if restarted else directory
        assert addresses_of(await directory.resolve_host("gw.b.test")) == found == ("192.0.2.1",)
    clock.offset += timedelta(minutes=10)
    assert isinstance(await directory.resolve_host("gw.b.test"), DnsFailure)
    server.behave("gw.b.test", None)
    clock.offset += timedelta(seconds=6)
    assert addresses_of(await directory.resolve_host("gw.b.test")) == found


@pytest.mark.parametrize("restarted", [False, True])
async def test_addresses_taken_back_do_not_serve_as_stale(
    opened: Open, server: DnsServer, clock: Clock, restarted: bool
) -> None:
    server.add("gw.b.test", "A", "192.0.2.1", ttl=60)
    directory = opened()
    await directory.resolve_host("gw.b.test")
    server.remove("gw.b.test")
    clock.offset += timedelta(seconds=61)
    assert isinstance(await directory.resolve_host("gw.b.test"), Absent)
    server.behave("gw.b.test", Behaviour.SERVFAIL)
    clock.offset += timedelta(seconds=61)
    directory = opened() if restarted else directory
    assert isinstance(await directory.resolve_host("gw.b.test"), DnsFailure)


async def test_a_host_that_never_was_leaves_no_memory(directory: Directory, notebook: Notebook) -> None:
    await directory.resolve_host("gw.b.test")
    assert notebook.hosts == {}


async def until(look: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not look():
            await asyncio.sleep(0.01)


async def test_a_name_server_that_hangs_is_not_waited_for_where_the_last_answer_can_serve(
    opened: Open, server: DnsServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_module, "PATIENCE_SECONDS", 0.05)
    directory = opened(question_seconds=60)
    server.txt(NAME, RECORD, ttl=60)
    server.add("gw.b.test", "A", "192.0.2.1", ttl=60)
    assert gateway_of(await directory.lookup("b.test")) == "https://gw.b.test"
    await directory.resolve_host("gw.b.test")
    hung = server.gates[NAME] = server.gates["gw.b.test"] = asyncio.Event()
    clock.offset += timedelta(seconds=61)
    server.txt(NAME, "v=amtp1;gateway=https://new.b.test", ttl=60)
    assert gateway_of(await directory.lookup("b.test")) == "https://gw.b.test"
    assert addresses_of(await directory.resolve_host("gw.b.test")) == ("192.0.2.1",)
    count = server.count(NAME)
    clock.offset += timedelta(seconds=59)
    await directory.lookup("b.test")
    assert server.count(NAME) == count  # what serves, serves for a minute
    monkeypatch.setattr(directory_module, "PATIENCE_SECONDS", 3600.0)
    clock.offset += timedelta(seconds=2)
    assert gateway_of(await directory.lookup("b.test")) == "https://gw.b.test"  # and nobody waits again
    hung.set()
    await until(lambda: (known := directory.known("b.test")) is not None and not known.stale)
    assert gateway_of(await directory.lookup("b.test")) == "https://new.b.test"


def lasts(directory: Directory) -> bool:
    """Whether the DNS is out of order as far as it knows."""
    return directory.outage.since is not None


async def test_an_outage_of_the_dns_is_told_once_when_it_begins_and_once_when_it_ends(
    opened: Open, server: DnsServer, clock: Clock, journal: Journal, log: io.StringIO
) -> None:
    directory = opened()
    server.txt(NAME, RECORD)
    await directory.lookup("b.test")
    server.down = True
    assert isinstance(await directory.lookup("c0.test"), Temporary)
    assert not lasts(directory)  # it may be the fault of that name
    for n in range(1, 5):
        await directory.lookup(f"c{n}.test")
    assert lasts(directory)
    assert "amtp_dns_up 0.0" in journal.metrics.render().decode()
    server.down = False
    for n in range(5, 8):
        await directory.lookup(f"c{n}.test")
    assert not lasts(directory)
    journal.flush()
    assert [log.getvalue().count(event) for event in ("dns_lost", "dns_found")] == [1, 1]
    assert "amtp_dns_up 1.0" in journal.metrics.render().decode()
