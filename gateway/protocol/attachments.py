"""Attachments of a message: references to files that live elsewhere, with what is needed to check them."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from gateway.protocol.fields import fault, line, matching
from gateway.protocol.members import members_of
from gateway.protocol.names import Names
from gateway.protocol.url import BadUrl, Url, parse_url

ATTACHMENTS_MAX = 100
FILENAME_CHARACTERS_MAX = 255
SIZE_BYTES_MAX = 2**53 - 1  # the largest integer that every JSON reader keeps exactly

_WORD = r"[0-9A-Za-z!#$%&'*+.^_`|~-]{1,127}"
_CONTENT_TYPE = re.compile(rf"{_WORD}/{_WORD}(?: ?;[ -~]{{1,255}})?")
_HASH = re.compile(r"sha256:[0-9A-Fa-f]{64}")
_FOLDER = re.compile(r"[/\\]|\A\.\.?\Z")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")  # 256 random bits
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._ -]")

UPLOADS = "/v1/attachments/"  # where a gateway serves what was uploaded to it


@dataclass(frozen=True, slots=True)
class Attachment:
    filename: str
    content_type: str
    size: int
    digest: bytes  # SHA-256
    url: str

    @property
    def media_type(self) -> str:
        return media_type_of(self.content_type)


def check_filename(value: object, field: str) -> str:
    """Checks that the name can't lead out of the folder in which somebody saves the file."""
    name = line(value, field, FILENAME_CHARACTERS_MAX)
    if _FOLDER.search(name):
        raise fault(field, "leads to another folder", "write a name without / and \\")
    return name


def check_content_type(value: object, field: str) -> str:
    return matching(_CONTENT_TYPE, value, field, "write a media type, such as application/pdf")


def _size(value: object, field: str) -> None:
    if type(value) is not int or not 0 <= value <= SIZE_BYTES_MAX:
        raise fault(field, "is not a size", "write the number of bytes as a whole number")


def _hash(value: object, field: str) -> None:
    matching(_HASH, value, field, "write sha256: and 64 hexadecimal digits")


def _url(value: object, field: str) -> None:
    url = parse_url(value) if isinstance(value, str) else BadUrl("is not text")
    if isinstance(url, BadUrl):
        raise fault(field, url.reason, "write an https URL, such as https://files.example.com/report.pdf")


MEMBERS: Mapping[str, Callable[[object, str], object]] = {
    "filename": check_filename,
    "content_type": check_content_type,
    "size": _size,
    "hash": _hash,
    "url": _url,
}
_NAMES = Names(MEMBERS)


def check_attachments(value: object, field: str) -> None:
    """Checks that every attachment is complete and well-formed; unknown members may have any value."""
    if not isinstance(value, list):
        raise fault(field, "is not a list", "write a list of objects")
    if len(value) > ATTACHMENTS_MAX:
        raise fault(field, "is too long", f"send at most {ATTACHMENTS_MAX}")
    for place, attachment in enumerate(value):
        if not isinstance(attachment, dict):
            raise fault(f"{field}[{place}]", "is not an object", f"write {', '.join(MEMBERS)}")
        if not attachment.keys() <= MEMBERS.keys():
            _NAMES.unknown(attachment, f"{field}[{place}].")
        for name, check in MEMBERS.items():
            check(attachment.get(name), f"{field}[{place}].{name}")


def attachments_of(checked: Iterable[Mapping[str, Any]]) -> tuple[Attachment, ...]:
    return tuple(
        Attachment(
            each["filename"],
            each["content_type"],
            each["size"],
            bytes.fromhex(each["hash"].removeprefix("sha256:")),
            each["url"],
        )
        for each in checked
    )


def attachments_in(body: bytes) -> tuple[Attachment, ...]:
    """Returns the attachments of a stored message, which was checked when it came."""
    raw = members_of(body).get("attachments")
    return attachments_of((msgspec.json.decode(raw) if raw else None) or ())


def render_attachment(attachment: Attachment) -> dict[str, Any]:
    return {
        "filename": attachment.filename,
        "content_type": attachment.content_type,
        "size": attachment.size,
        "hash": f"sha256:{attachment.digest.hex()}",
        "url": attachment.url,
    }


def media_type_of(content_type: str) -> str:
    """Returns the media type without parameters, for comparison."""
    return content_type.partition(";")[0].strip().lower()


def upload_url(base: Url, token: str) -> str:
    return f"{base}{UPLOADS}{token}"


def token_in(url: str, base: Url) -> str | None:
    """Returns the token of an upload to the gateway at `base`; None where the URL leads elsewhere."""
    parsed = parse_url(url)
    if isinstance(parsed, BadUrl) or (parsed.host, parsed.port) != (base.host, base.port):
        return None
    prefix = base.path + UPLOADS
    token = parsed.path.removeprefix(prefix)
    return token if parsed.path.startswith(prefix) and is_token(token) and not parsed.query else None


def is_token(text: str) -> bool:
    return _TOKEN.fullmatch(text) is not None


def disposition(filename: str) -> str:
    """Returns the header that makes a browser save the file and not display it, with its name in both encodings."""
    plain = _NOT_PLAIN.sub("_", filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
