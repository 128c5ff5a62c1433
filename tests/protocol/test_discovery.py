"""What a domain's `_amtp` records mean, the hostile ones too (PROTOCOL section 2)."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.discovery import (
    SIZE_BYTES_DEFAULT,
    Broken,
    Capabilities,
    Silent,
    Speaks,
    choose,
    parse_gateway,
    parse_record,
    render_record,
)
from gateway.protocol.url import BadUrl, Url, parse_url

GOOD = "v=amtp1;gateway=https://amtp.example.com:443;auth=cert,oauth;max-size=50000000"


def spoken(*records: str, plain: bool = False) -> Speaks:
    result = choose(records, plain=plain)
    assert isinstance(result, Speaks), result
    return result


def broken(*records: str) -> str:
    result = choose(records)
    assert isinstance(result, Broken), result
    return result.reason


def test_the_record_of_the_draft_is_read() -> None:
    capabilities = spoken(GOOD).capabilities
    assert capabilities.gateway_url == "https://amtp.example.com"
    assert capabilities.gateway.port == 443
    assert capabilities.auth == ("cert", "oauth")
    assert capabilities.max_size == 50_000_000
    assert capabilities.features == frozenset()


def test_version_and_gateway_are_enough() -> None:
    assert spoken("v=amtp1;gateway=https://a.test").capabilities.max_size == SIZE_BYTES_DEFAULT


@pytest.mark.parametrize(
    "record",
    [
        "gateway=https://a.test/in;features=batch,signed;v=amtp1",
        " V = amtp1 ; Gateway = https://A.test/in/ ; Features = Batch , SIGNED ;",
        "v=AMTP1;;gateway=https://a.test:443/in;features=signed,batch,batch;x=y;flag;=z",
    ],
)
def test_order_blanks_case_and_unknown_keys_do_not_matter(record: str) -> None:
    capabilities = spoken(record).capabilities
    assert capabilities.gateway_url == "https://a.test/in"
    assert capabilities.features == {"batch", "signed"}


def test_a_value_may_contain_equals_signs() -> None:
    assert spoken("v=amtp1;gateway=https://a.test/x=y").capabilities.gateway.path == "/x=y"


@pytest.mark.parametrize(
    "records", [[], ["v=spf1 -all"], ["v=amtp2;gateway=https://a.test"], ["", ";;", "amtp1"]]
)
def test_other_records_are_silence(records: list[str]) -> None:
    assert choose(records) == Silent()


def test_of_several_gateways_the_first_by_url_is_taken_with_a_warning() -> None:
    b, a = "v=amtp1;gateway=https://b.test", "v=amtp1;gateway=https://a.test"
    for records in ([a, b], [b, a], [b, a, b]):
        result = spoken(*records)
        assert result.capabilities.gateway_url == "https://a.test"
        assert "2 records" in result.warnings[0]
        assert "https://a.test" in result.warnings[0]


def test_the_same_record_twice_is_one() -> None:
    assert spoken(GOOD, GOOD).warnings == ()


def test_a_good_record_beside_a_broken_one_serves_with_a_warning() -> None:
    result = spoken("v=amtp1;gateway=ftp://a.test", GOOD)
    assert result.capabilities.gateway_url == "https://amtp.example.com"
    assert "broken" in result.warnings[0]


def test_a_broken_record_is_never_silence_even_beside_foreign_ones() -> None:
    assert "gateway=" in broken("v=amtp1", "v=spf1 -all")


@pytest.mark.parametrize(
    "gateway",
    [
        "", "amtp.example.com", "//a.test", "https://", "https:///v1", "http://a.test", "ftp://a.test",
        "javascript:x", "https://user@a.test", "https://user:pass@a.test", "https://a.test@b.test",
        "https://@a.test", "https://a.test?x=1", "https://a.test?", "https://a.test#x",
        "https://a.test#", "https://a.test/#", "https://a.test:0", "https://a.test:65536",
        "https://a.test:443x", "https://a.test:-1", "https://a.test:٤٤٣", "https://a..test",
        "https://.test", "https://-a.test", "https://a-.test", "https://a b.test", "https://a\tb.test",
        "https://a.test\\@b.test", "https://a.test\\b", "https://a.test/a b", "https://a.test/\r\nX: y",
        "https://a\x00.test", "https://a.test/%", "https://a.test/%zz", "https://a.test/../x",
        "https://a.test/%2e%2E/x", "https://a.test/./", "https://2130706433", "https://0x7f000001",
        "https://0177.0.0.1", "https://127.1", "https://127.0.0.1.", "https://1.2.3.4.5",
        "https://256.0.0.1", "https://[::1", "https://::1", "https://[::1]x", "https://[fe80::1%25eth0]",
        "https://[fe80::1%eth0]", "https://[v1.x]", "https://[127.0.0.1]", "https://a.0x1",
        "https://\u2488\u2489.test", "https://" + "a" * 64 + ".test", "https://" + "a." * 127 + "test",
        "https://a.test/" + "x" * 3000, "https://xn--\u00fc.test", "https://a%2etest", "https://*.test",
    ],
)  # fmt: skip
def test_a_gateway_that_could_mean_something_else_breaks_the_record(gateway: str) -> None:
    assert "gateway=" in broken(f"v=amtp1;gateway={gateway}")


@pytest.mark.parametrize(
    "rest",
    [
        "max-size=0", "max-size=-1", "max-size=10MB", "max-size=1e6", "max-size=0x10", "max-size=٣",
        "max-size=" + "9" * 5000, "gateway=https://b.test", "v=amtp1", "v=amtp2", "max-size=5;MAX-SIZE=6",
        "features=batch;features=signed", "auth=cert;auth=oauth", "pad=" + "x" * 5000,
    ],
)  # fmt: skip
def test_what_can_not_be_understood_for_sure_breaks_the_record(rest: str) -> None:
    assert broken(f"v=amtp1;gateway=https://a.test;{rest}")


def test_a_record_that_is_too_long_is_broken_even_where_its_rest_would_be_read() -> None:
    assert "longer" in broken(GOOD + ";" + "x" * 100_000)


def test_plain_http_is_taken_only_where_it_is_allowed() -> None:
    record = "v=amtp1;gateway=http://127.0.0.1:8080"
    assert isinstance(choose([record]), Broken)
    assert spoken(record, plain=True).capabilities.gateway_url == "http://127.0.0.1:8080"


def test_unreadable_features_are_dropped_and_counted() -> None:
    result = spoken("v=amtp1;gateway=https://a.test;features=batch,\r\nX-Evil: 1,<b>,signed")
    assert result.capabilities.features == {"batch", "signed"}
    assert result.warnings == ("2 unreadable entries in features= were ignored",)


def test_no_list_grows_without_bound() -> None:
    many = ",".join(f"f{number}" for number in range(600))
    capabilities = spoken(f"v=amtp1;gateway=https://a.test;features={many}").capabilities
    assert len(capabilities.features) == 32


def test_international_hosts_become_a_labels() -> None:
    assert (
        spoken("v=amtp1;gateway=https://Bücher.example").capabilities.gateway.host == "xn--bcher-kva.example"
    )


def test_nothing_a_stranger_wrote_reaches_a_reason_unread() -> None:
    reason = broken("v=amtp1;gateway=https://a.test/\r\nSet-Cookie: x=y")
    assert reason.isprintable()
    assert "Cookie" not in reason


def test_a_path_is_kept_without_its_last_slash() -> None:
    url = parse_gateway("https://a.test:8443/amtp/in//")
    assert isinstance(url, Url)
    assert str(url) == "https://a.test:8443/amtp/in"


def test_an_address_in_brackets_is_written_back_in_brackets() -> None:
    url = parse_url("https://[2001:DB8::1]:8443/x?y=1")
    assert isinstance(url, Url)
    assert (url.host, url.authority, url.target) == ("2001:db8::1", "[2001:db8::1]:8443", "/x?y=1")


hosts = st.from_regex(r"[a-z][a-z0-9]{0,8}(\.[a-z][a-z0-9]{0,8}){1,3}", fullmatch=True)
tokens = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,12}", fullmatch=True)
capabilities_of_anyone = st.builds(
    Capabilities,
    gateway=st.builds(
        Url,
        scheme=st.just("https"),
        host=hosts,
        port=st.integers(1, 65535),
        path=st.sampled_from(["", "/amtp", "/a/b-c", "/%C3%BC"]),
    ),
    auth=st.lists(tokens, max_size=5, unique=True).map(tuple),
    max_size=st.integers(1, 10**14),
    features=st.frozensets(tokens, max_size=5),
)


@given(capabilities_of_anyone)
def test_what_is_rendered_is_read_back_unchanged(capabilities: Capabilities) -> None:
    assert parse_record(render_record(capabilities)) == Speaks(capabilities)


@given(st.lists(st.text(max_size=80), max_size=5))
def test_any_text_is_judged_without_an_exception(records: list[str]) -> None:
    assert isinstance(choose(records), Speaks | Silent | Broken)


@given(st.text(alphabet=string.printable + "üß。\u200b\x00", max_size=60))
def test_a_gateway_is_one_unambiguous_host_or_broken(text: str) -> None:
    for url in (parse_gateway(text), parse_gateway(f"https://{text}"), parse_url(f"https://h.test/{text}")):
        if isinstance(url, BadUrl):
            continue
        assert parse_url(str(url)) == url
        assert str(url).isascii()
        assert str(url).isprintable()
        assert "@" not in url.authority
        assert " " not in str(url)


@given(
    st.permutations(
        ["v=amtp1;gateway=https://a.test", "v=amtp1;gateway=https://b.test", "v=amtp1;x", "v=spf1"]
    )
)
def test_the_order_of_records_changes_nothing(records: list[str]) -> None:
    assert choose(records) == choose(sorted(records))
