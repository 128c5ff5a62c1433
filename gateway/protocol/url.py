"""The one parser for URLs that others give us: gateways, webhooks, attachments, key sets.

What is judged and what is connected to come from the same parse, so no two readers of one URL can disagree.
It is stricter than RFC 3986: anything that a second reader could take for another host is refused.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import idna

URL_CHARACTERS_MAX: Final = 2048  # what browsers and proxies agree on
PORT_OF: Final = {"https": 443, "http": 80}

_PARTS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(\?[^#]*)?")
_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*")
_QUERY = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class Url:
    scheme: str
    host: str  # lower-case A-labels without a trailing dot, or the literal without brackets
    port: int
    path: str = ""  # "" or "/…", as written
    query: str = ""  # without the question mark
    literal: IPv4Address | IPv6Address | None = None  # the address, when the host is one

    @property
    def authority(self) -> str:
        """Returns host and port as a Host header names them: no port where it is the scheme's default."""
        host = f"[{self.host}]" if isinstance(self.literal, IPv6Address) else self.host
        return host if self.port == PORT_OF[self.scheme] else f"{host}:{self.port}"

    @property
    def target(self) -> str:
        """Returns the request target: path and query."""
        return (self.path or "/") + (f"?{self.query}" if self.query else "")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}" + (f"?{self.query}" if self.query else "")


@dataclass(frozen=True, slots=True)
class BadUrl:
    reason: str


def parse_url(text: str, *, plain: bool = False) -> Url | BadUrl:
    """Returns an absolute https URL (http too where `plain`), without user info or fragment."""
    if len(text) > URL_CHARACTERS_MAX:
        return BadUrl(f"longer than {URL_CHARACTERS_MAX} characters")
    parts = _PARTS.fullmatch(text)
    if parts is None:
        return BadUrl("must be an absolute URL without a fragment, like https://host/path")
    scheme, authority, path, query = parts[1].lower(), parts[2], parts[3], (parts[4] or "?")[1:]
    if scheme != "https" and not (plain and scheme == "http"):
        return BadUrl("must begin with https://")
    if "@" in authority:
        return BadUrl("must not carry user information")
    if not _PATH.fullmatch(path) or not _QUERY.fullmatch(query):
        return BadUrl("path and query must be percent-encoded")
    if any(segment.replace("%2e", ".").replace("%2E", ".") in {".", ".."} for segment in path.split("/")):
        return BadUrl("path must not contain dot segments")
    return _with_authority(authority, scheme, path, query)


def _with_authority(authority: str, scheme: str, path: str, query: str) -> Url | BadUrl:
    host, colon, digits = authority.rpartition(":")
    if not colon or digits.endswith("]"):
        host, digits = authority, ""
    port = parse_port(digits) if digits else PORT_OF[scheme]
    if port is None:
        return BadUrl("port must be a number from 1 to 65535")
    if host.startswith("[") and host.endswith("]"):
        literal = _literal(host[1:-1], IPv6Address)
    else:
        literal = _literal(host, IPv4Address)
    if literal is not None:
        return Url(scheme, str(literal), port, path, query, literal)
    name = parse_host_name(host)
    if isinstance(name, BadUrl):
        return name
    return Url(scheme, name, port, path, query)


def parse_port(digits: str) -> int | None:
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 5):
        return None
    port = int(digits)
    return port if 1 <= port <= 65535 else None


def parse_host_name(host: str) -> str | BadUrl:
    """Returns a DNS name in lower-case A-labels; never one that an address parser could read as a number."""
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            return BadUrl("host is not a valid international domain name")
    name = host.lower().removesuffix(".")
    labels = name.split(".")
    if not name or len(name) > 253 or not all(map(_LABEL.fullmatch, labels)):
        return BadUrl("host is not a valid domain name")
    if _NUMBER.fullmatch(labels[-1]):
        return BadUrl("host looks like a number; write an address in four plain decimal parts")
    return name


def _literal(text: str, kind: type[IPv4Address] | type[IPv6Address]) -> IPv4Address | IPv6Address | None:
    if "%" in text:  # a zone names an interface of this machine
        return None
    try:
        return kind(text)
    except ValueError:
        return None
