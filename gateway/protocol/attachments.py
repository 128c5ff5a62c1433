"""Attachments of a message: references to files that live elsewhere, with what is needed to check them."""

import re
from collections.abc import Callable, Mapping

from gateway.protocol.fields import fault, line, matching
from gateway.protocol.url import BadUrl, parse_url

ATTACHMENTS_MAX = 100
FILENAME_CHARACTERS_MAX = 255
SIZE_BYTES_MAX = 2**53 - 1  # the largest integer that every JSON reader keeps exactly

_WORD = r"[0-9A-Za-z!#$%&'*+.^_`|~-]{1,127}"
_CONTENT_TYPE = re.compile(rf"{_WORD}/{_WORD}(?: ?;[ -~]{{1,255}})?")
_HASH = re.compile(r"sha256:[0-9A-Fa-f]{64}")


def _filename(value: object, field: str) -> None:
    line(value, field, FILENAME_CHARACTERS_MAX)


def _content_type(value: object, field: str) -> None:
    matching(_CONTENT_TYPE, value, field, "write a media type, such as application/pdf")


def _size(value: object, field: str) -> None:
    if type(value) is not int or not 0 <= value <= SIZE_BYTES_MAX:
        raise fault(field, "is not a size", "write the number of bytes as a whole number")


def _hash(value: object, field: str) -> None:
    matching(_HASH, value, field, "write sha256: and 64 hexadecimal digits")


def _url(value: object, field: str) -> None:
    url = parse_url(value) if isinstance(value, str) else BadUrl("is not text")
    if isinstance(url, BadUrl):
        raise fault(field, url.reason, "write an https URL, such as https://files.example.com/report.pdf")


MEMBERS: Mapping[str, Callable[[object, str], None]] = {
    "filename": _filename,
    "content_type": _content_type,
    "size": _size,
    "hash": _hash,
    "url": _url,
}


def check_attachments(value: object, field: str) -> None:
    """Every attachment is complete and well-formed; further members are its sender's own."""
    if not isinstance(value, list):
        raise fault(field, "is not a list", "write a list of objects")
    if len(value) > ATTACHMENTS_MAX:
        raise fault(field, "is too long", f"send at most {ATTACHMENTS_MAX}")
    for place, attachment in enumerate(value):
        if not isinstance(attachment, dict):
            raise fault(f"{field}[{place}]", "is not an object", f"write {', '.join(MEMBERS)}")
        for name, check in MEMBERS.items():
            check(attachment.get(name), f"{field}[{place}].{name}")
