"""An attachment tells all that is needed to fetch and check it."""

from typing import Any

import pytest

from gateway.protocol.attachments import (
    ATTACHMENTS_MAX,
    MEMBERS,
    attachments_in,
    check_attachments,
    disposition,
    render_attachment,
    token_in,
    upload_url,
)
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.url import BadUrl, Url, parse_url
from tests.protocol.samples import ATTACHMENT, COMPLETE, MINIMAL, written

VALUES: dict[str, tuple[Any, ...]] = {
    "filename": (
        "",
        "a\nb",
        "a\r\nX: y",
        "a\0b",
        "x" * 256,
        7,
        "../up",
        "a/b",
        "/etc/passwd",
        "a\\b",
        "..",
        ".",
    ),
    "content_type": ("", "pdf", "a/b/c", "a/b\r\nx: y", "text/plain; é", "/", 7, "a/" + "b" * 200),
    "size": (-1, 1.5, 10.0, "10", True, 2**53),
    "hash": ("", "ab" * 32, "sha256:" + "a" * 63, "sha256:" + "g" * 64, "md5:" + "a" * 64, 7),
    "url": (
        *("", "http://a.test/", "ftp://a.test/", "//a.test/", "https://", "https:///x", "javascript:1", 7),
        *("https://u:p@a.test/", "https://a.test/a b", "https://a.test\\@b.test/", "https://a.test/\r\nx"),
        *("https://a.test/" + "x" * 2048, "https://2130706433/"),
    ),
}
BAD = [(name, value) for name, values in VALUES.items() for value in values]


def test_a_complete_attachment_passes_with_members_of_its_own() -> None:
    check_attachments([ATTACHMENT | {"title": "An offer"}, ATTACHMENT | {"size": 0}], "attachments")
    check_attachments([ATTACHMENT | {"content_type": "text/plain; charset=utf-8"}], "attachments")
    check_attachments([], "attachments")


@pytest.mark.parametrize("name", MEMBERS)
def test_every_member_is_required(name: str) -> None:
    for incomplete in (
        {key: ATTACHMENT[key] for key in ATTACHMENT if key != name},
        ATTACHMENT | {name: None},
    ):
        with pytest.raises(AMTPError) as refused:
            check_attachments([ATTACHMENT, incomplete], "attachments")
        assert refused.value.details == {"field": f"attachments[1].{name}"}


@pytest.mark.parametrize(("name", "value"), BAD, ids=lambda value: repr(value)[:30])
def test_a_bad_member_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(AMTPError) as refused:
        check_attachments([ATTACHMENT | {name: value}], "attachments")
    assert refused.value.code is Code.INVALID_MESSAGE_FORMAT
    assert refused.value.details == {"field": f"attachments[0].{name}"}


@pytest.mark.parametrize("value", [{}, "a.pdf", 1, True, [ATTACHMENT] * (ATTACHMENTS_MAX + 1)])
def test_attachments_are_a_list_of_bounded_length(value: object) -> None:
    with pytest.raises(AMTPError) as refused:
        check_attachments(value, "attachments")
    assert refused.value.details == {"field": "attachments"}


@pytest.mark.parametrize("value", [None, "a.pdf", 1, []])
def test_each_attachment_is_an_object(value: object) -> None:
    with pytest.raises(AMTPError) as refused:
        check_attachments([value], "attachments")
    assert refused.value.details == {"field": "attachments[0]"}


def test_what_is_read_of_an_attachment_says_the_same_again() -> None:
    assert [render_attachment(each) for each in attachments_in(written(COMPLETE))] == [ATTACHMENT]


@pytest.mark.parametrize("members", [{}, {"attachments": None}, {"attachments": ""}, {"attachments": []}])
def test_a_message_may_have_none(members: dict[str, Any]) -> None:
    assert attachments_in(written(MINIMAL | members)) == ()


TOKEN = "A" * 42 + "_"


def base_of(url: str) -> Url:
    base = parse_url(url)
    assert not isinstance(base, BadUrl)
    return base


@pytest.mark.parametrize("base", ["https://amtp.acme.test", "https://amtp.acme.test:8443/in"])
def test_the_url_of_an_upload_leads_back_to_it(base: str) -> None:
    assert token_in(upload_url(base_of(base), TOKEN), base_of(base)) == TOKEN
    assert (
        token_in(upload_url(base_of(base.replace("amtp.acme", "AMTP.Acme")), TOKEN), base_of(base)) == TOKEN
    )


@pytest.mark.parametrize(
    "url",
    [
        f"https://amtp.evil.test/v1/attachments/{TOKEN}",
        f"https://amtp.acme.test:444/v1/attachments/{TOKEN}",
        f"https://amtp.acme.test/v1/attachments/{TOKEN}x",
        f"https://amtp.acme.test/v1/attachments/{TOKEN}?x=1",
        f"https://amtp.acme.test/x/v1/attachments/{TOKEN}",
        f"https://amtp.acme.test/v1/attachments/../{TOKEN}",
        f"https://amtp.acme.test/{TOKEN}",
        "https://amtp.acme.test/v1/attachments/",
    ],
)
def test_other_urls_are_somebody_elses(url: str) -> None:
    assert token_in(url, base_of("https://amtp.acme.test")) is None


@pytest.mark.parametrize(
    ("filename", "header"),
    [
        ("offer.pdf", "attachment; filename=\"offer.pdf\"; filename*=UTF-8''offer.pdf"),
        (
            "größe €.txt",
            "attachment; filename=\"gr__e _.txt\"; filename*=UTF-8''gr%C3%B6%C3%9Fe%20%E2%82%AC.txt",
        ),
        ('a"; x="b', "attachment; filename=\"a__ x__b\"; filename*=UTF-8''a%22%3B%20x%3D%22b"),
        (
            "../a\\b\r\nX: y",
            "attachment; filename=\".._a_b__X_ y\"; filename*=UTF-8''..%2Fa%5Cb%0D%0AX%3A%20y",
        ),
    ],
)
def test_no_name_breaks_out_of_its_header(filename: str, header: str) -> None:
    assert disposition(filename) == header
