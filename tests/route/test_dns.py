"""Questions to real name servers on loopback, well and badly behaved."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from conformance.dns_server import Behaviour, DnsServer
from gateway.net.dns_answer import Absent, DnsAnswer, DnsFailure, Records
from gateway.route.dns import Dns, Nameserver

NAME = "_amtp.b.test"


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    async with DnsServer() as running:
        yield running


def asking(*servers: DnsServer) -> Dns:
    nameservers = [Nameserver("127.0.0.1", each.port) for each in servers]
    return Dns(nameservers, tries_seconds=(0.3, 0.3), question_seconds=3)


def reason(answer: DnsAnswer) -> str:
    assert isinstance(answer, DnsFailure), answer
    return answer.reason


async def test_a_text_record_comes_with_its_ttl(server: DnsServer) -> None:
    server.txt(NAME, "v=amtp1", ttl=77)
    assert await asking(server).texts(NAME) == Records(("v=amtp1",), 77)


async def test_the_strings_of_one_record_are_joined_and_records_kept_apart(server: DnsServer) -> None:
    server.txt(NAME, "v=amtp1;gateway=https://gw.b.test", "v=spf1 -all", string_bytes=5)
    answer = await asking(server).texts(NAME)
    assert isinstance(answer, Records)
    assert set(answer.values) == {"v=amtp1;gateway=https://gw.b.test", "v=spf1 -all"}


async def test_bytes_that_are_no_text_are_replaced(server: DnsServer) -> None:
    server.txt(NAME, b"v=amtp1;x=\xff\x00")
    assert await asking(server).texts(NAME) == Records(("v=amtp1;x=�\x00",), 60)


async def test_no_such_name_is_absent_for_as_long_as_the_soa_says(server: DnsServer) -> None:
    server.soa_minimum = 33
    assert await asking(server).texts("_amtp.nowhere.test") == Absent(33)


async def test_no_such_data_is_absent_too(server: DnsServer) -> None:
    server.add("b.test", "A", "192.0.2.1")
    server.add(NAME, "A", "192.0.2.1")
    assert await asking(server).texts(NAME) == Absent(60)


async def test_a_denial_without_soa_is_absent_for_a_short_time(server: DnsServer) -> None:
    server.behave(NAME, Behaviour.NO_SOA)
    answer = await asking(server).texts(NAME)
    assert isinstance(answer, Absent)
    assert answer.ttl_seconds <= 300


async def test_a_name_that_can_not_be_written_is_absent(server: DnsServer) -> None:
    assert await asking(server).texts("_amtp." + "a" * 64 + ".test") == Absent(0)
    assert server.queries == []


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (Behaviour.SERVFAIL, "SERVFAIL"),
        (Behaviour.REFUSE, "REFUSED"),
        (Behaviour.TIMEOUT, "in time"),
        (Behaviour.TRUNCATE_ONLY, "in time"),
        (Behaviour.TRUNCATE_ALWAYS, "cut its answer"),
        (Behaviour.GARBAGE, "in time"),
        (Behaviour.WRONG_ID, "in time"),
        (Behaviour.REFERRAL, "name servers"),
    ],
)
async def test_a_server_that_does_not_help_is_trouble_and_never_absence(
    server: DnsServer, behaviour: Behaviour, words: str
) -> None:
    server.txt(NAME, "v=amtp1")
    server.behave(NAME, behaviour)
    assert words in reason(await asking(server).texts(NAME))


async def test_a_forged_answer_before_the_true_one_changes_nothing(server: DnsServer) -> None:
    server.txt(NAME, "v=amtp1")
    server.behave(NAME, Behaviour.SPOOF_FIRST)
    assert await asking(server).texts(NAME) == Records(("v=amtp1",), 60)


async def test_a_cut_answer_is_asked_for_again_over_tcp(server: DnsServer) -> None:
    server.txt(NAME, "v=amtp1")
    server.behave(NAME, Behaviour.TRUNCATE)
    assert await asking(server).texts(NAME) == Records(("v=amtp1",), 60)
    assert [query.transport for query in server.queries] == ["udp", "tcp"]


async def test_an_answer_larger_than_a_packet_arrives_whole(server: DnsServer) -> None:
    texts = [f"{number:04d}" + "x" * 200 for number in range(200)]
    server.txt(NAME, *texts)
    answer = await asking(server).texts(NAME)
    assert isinstance(answer, Records)
    assert sorted(answer.values) == texts


@pytest.mark.parametrize(
    "behaviour", [Behaviour.SERVFAIL, Behaviour.TIMEOUT, Behaviour.REFUSE, Behaviour.GARBAGE]
)
async def test_the_second_server_answers_where_the_first_does_not(behaviour: Behaviour) -> None:
    async with DnsServer() as bad, DnsServer() as good:
        bad.behave(NAME, behaviour)
        good.txt(NAME, "v=amtp1")
        assert await asking(bad, good).texts(NAME) == Records(("v=amtp1",), 60)


async def test_a_question_that_was_lost_is_asked_again(server: DnsServer) -> None:
    server.txt(NAME, "v=amtp1")
    server.behave(NAME, Behaviour.TIMEOUT)
    patient = Dns([Nameserver("127.0.0.1", server.port)], tries_seconds=(0.2, 10), question_seconds=20)
    question = asyncio.create_task(patient.texts(NAME))
    await server.asked.wait()
    server.behave(NAME, None)
    assert await question == Records(("v=amtp1",), 60)
    assert len(server.queries) == 2


async def test_a_slow_server_is_given_time_when_it_is_asked_again(server: DnsServer) -> None:
    server.txt(NAME, "v=amtp1")
    server.delays[NAME] = 0.5
    patient = Dns([Nameserver("127.0.0.1", server.port)], tries_seconds=(0.1, 10), question_seconds=20)
    assert await patient.texts(NAME) == Records(("v=amtp1",), 60)


async def test_the_word_of_a_server_that_answers_is_not_put_to_the_vote() -> None:
    async with DnsServer() as first, DnsServer() as second:
        second.txt(NAME, "v=amtp1")
        assert isinstance(await asking(first, second).texts(NAME), Absent)


async def test_nobody_at_the_port_is_trouble() -> None:
    async with DnsServer() as gone:
        pass
    assert reason(await asking(gone).texts(NAME))


async def test_aliases_are_followed_and_the_shortest_ttl_counts(server: DnsServer) -> None:
    server.add(NAME, "CNAME", "one.b.test.", ttl=500)
    server.add("one.b.test", "CNAME", "two.b.test.", ttl=7)
    server.txt("two.b.test", "v=amtp1", ttl=900)
    assert await asking(server).texts(NAME) == Records(("v=amtp1",), 7)


async def test_an_alias_into_another_zone_is_asked_for_again(server: DnsServer) -> None:
    server.add(NAME, "CNAME", "_amtp.hosting.test.", ttl=20)
    server.txt("_amtp.hosting.test", "v=amtp1", ttl=900)
    assert await asking(server).texts(NAME) == Records(("v=amtp1",), 20)


async def test_an_alias_to_nothing_is_absent(server: DnsServer) -> None:
    server.add(NAME, "CNAME", "gone.hosting.test.")
    assert isinstance(await asking(server).texts(NAME), Absent)


@pytest.mark.parametrize("target", [NAME, "other.b.test", "_amtp.c.test"])
async def test_aliases_in_a_circle_are_trouble(server: DnsServer, target: str) -> None:
    server.add(NAME, "CNAME", f"{target}.")
    if target != NAME:
        server.add(target, "CNAME", f"{NAME}.")
    assert reason(await asking(server).texts(NAME))
    assert len(server.queries) < 20


async def test_aliases_without_end_are_trouble(server: DnsServer) -> None:
    for number in range(30):
        server.add(f"n.z{number}.test", "CNAME", f"n.z{number + 1}.test.")
    server.txt("n.z30.test", "v=amtp1")
    assert "too far" in reason(await asking(server).texts("n.z0.test"))


async def test_a_slow_server_does_not_hold_a_question_beyond_its_time(server: DnsServer) -> None:
    for number in range(30):
        server.add(f"n.z{number}.test", "CNAME", f"n.z{number + 1}.test.")
        server.delays[f"n.z{number}.test"] = 0.1
    slow = Dns([Nameserver("127.0.0.1", server.port)], tries_seconds=(0.3, 0.3), question_seconds=0.4)
    assert "within 0.4 s" in reason(await slow.texts("n.z0.test"))


async def test_a_host_has_the_addresses_of_both_families_v4_first(server: DnsServer) -> None:
    server.add("gw.b.test", "AAAA", "2001:db8::1")
    server.add("gw.b.test", "A", "192.0.2.1", ttl=9)
    assert await asking(server).addresses("gw.b.test") == Records(("192.0.2.1", "2001:db8::1"), 9)


async def test_a_host_of_one_family_is_enough(server: DnsServer) -> None:
    server.add("gw.b.test", "AAAA", "2001:db8::1")
    assert await asking(server).addresses("gw.b.test") == Records(("2001:db8::1",), 60)


async def test_a_host_without_addresses_is_absent(server: DnsServer) -> None:
    server.txt("gw.b.test", "no address")
    assert isinstance(await asking(server).addresses("gw.b.test"), Absent)


async def test_localhost_is_never_asked_for(server: DnsServer) -> None:
    for host in ("localhost", "a.localhost"):
        assert await asking(server).addresses(host) == Records(("127.0.0.1", "::1"), 60)
    assert server.queries == []
