"""An attachment tells all that is needed to fetch and check it."""

from typing import Any

import pytest

from gateway.protocol.attachments import ATTACHMENTS_MAX, MEMBERS, check_attachments
from gateway.protocol.errors import AMTPError, Code
from tests.protocol.samples import ATTACHMENT

VALUES: dict[str, tuple[Any, ...]] = {
    "filename": ("", "a\nb", "a\0b", "x" * 256, 7),
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
