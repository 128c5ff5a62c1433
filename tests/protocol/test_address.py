"""Two ways to write one address are one address, and what is not an address never becomes one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.address import RESERVED, parse_address, parse_domain
from gateway.protocol.errors import AMTPError, Code


@pytest.mark.parametrize(
    ("text", "local", "tag", "domain"),
    [
        ("a@b", "a", "", "b"),
        ("agent@localhost", "agent", "", "localhost"),
        ("Agent.Smith@EXAMPLE.com", "agent.smith", "", "example.com"),
        ("agent+Session-1@example.com", "agent", "Session-1", "example.com"),
        ("agent+a+b@example.com", "agent", "a+b", "example.com"),
        ("agent+a.b@example.com", "agent", "a.b", "example.com"),
        ("agent+@example.com", "agent", "", "example.com"),
        ("!#$%&'*/=?^_`{|}~-@example.com", "!#$%&'*/=?^_`{|}~-", "", "example.com"),
        ("x@bücher.example", "x", "", "xn--bcher-kva.example"),
        ("x@BÜCHER.example", "x", "", "xn--bcher-kva.example"),
        ("x@XN--BCHER-KVA.example", "x", "", "xn--bcher-kva.example"),
        ("x@faß.example", "x", "", "xn--fa-hia.example"),
        ("x@例え。test", "x", "", "xn--r8jz45g.test"),
        ("x@ｆｕｌｌ.test", "x", "", "full.test"),
        ("x@3com.test", "x", "", "3com.test"),
        ("a" * 64 + "@b.test", "a" * 64, "", "b.test"),
        ("x@" + "a" * 63 + ".test", "x", "", "a" * 63 + ".test"),
        ("x@" + "a." * 126 + "a", "x", "", "a." * 126 + "a"),
    ],
)
def test_an_address_is_read_into_the_form_it_is_compared_in(
    text: str, local: str, tag: str, domain: str
) -> None:
    address = parse_address(text, "sender")
    assert (address.local, address.tag, address.domain) == (local, tag, domain)
    assert address.name == f"{local}@{domain}"
    assert address.written == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "@", "a", "a@", "@b", "a@@b", "a@b@c", " a@b", "a@b ", "a b@c", "a@b c"),
        *(".a@b", "a.@b", "a..b@c", "+tag@b", "a.+tag@b", '"quoted"@b', "a(comment)@b", "<a@b>", "é@b"),
        *("a@b\n", "a\n@b", "a@b\r\nBcc: c@d", "a\0@b", "a@b\0", "a@b\t", "a\x7f@b", "a@\u2028b"),
        *("a@b.", "a@.b", "a@b..c", "a@-b", "a@b-", "a@b_c.test", "a@例え。", "a@b%2ec", "a@b:25", "a@b/c"),
        *(
            "a@1.2.3.4",
            "a@[1.2.3.4]",
            "a@[IPv6:::1]",
            "a@::1",
            "a@2130706433",
            "a@0x7f.1",
            "a@b.0X7F",
            "a@b.1",
        ),
        *("a@xn--a", "a@xn--zzzzzz.test", "a@☃.test", "a@a\u200db.test", "a@" + "é" * 60 + ".test"),
        *("a" * 65 + "@b", "a@" + "b" * 64 + ".test", "a@" + "b." * 127 + "b", "a@" + "é." * 2_000_000),
    ],
    ids=lambda text: repr(text)[:40],
)
def test_what_is_not_an_address_is_refused(text: str) -> None:
    with pytest.raises(AMTPError) as refused:
        parse_address(text, "recipients[2]", Code.INVALID_RECIPIENT)
    assert refused.value.code is Code.INVALID_RECIPIENT
    assert refused.value.details == {"field": "recipients[2]"}
    assert "local-part@domain" in refused.value.message


@pytest.mark.parametrize("value", [None, 1, True, [], {}, ["a@b"], b"a@b"])
def test_what_is_not_text_is_no_address_and_no_domain(value: object) -> None:
    for parse in (parse_address, parse_domain):
        with pytest.raises(AMTPError) as refused:
            parse(value, "sender")
        assert refused.value.code is Code.INVALID_MESSAGE_FORMAT


@given(st.text(max_size=30) | st.from_regex(r"\A.{1,8}@.{1,12}\Z"))
def test_any_text_is_an_address_or_an_error_and_an_address_names_itself(text: str) -> None:
    try:
        address = parse_address(text, "sender")
    except AMTPError:
        return
    again = parse_address(address.name, "sender")
    assert again.name == address.name
    assert address.name.isascii()
    assert address.name.isprintable()


def test_a_domain_is_lower_case_a_labels() -> None:
    assert parse_domain("Bücher.EXAMPLE", "domain") == "xn--bcher-kva.example"
    with pytest.raises(AMTPError) as refused:
        parse_domain("example.com.", "domain")
    assert refused.value.details == {"field": "domain"}


def test_the_reserved_names_are_written_as_they_are_compared() -> None:
    for local in RESERVED:
        assert parse_address(f"{local.upper()}@b.test", "local").local == local
