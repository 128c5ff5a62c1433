"""Discovery: the TXT record `_amtp.<domain>`, by which a domain names its gateway.

`v=amtp1;gateway=https://amtp.example.com;auth=cert,oauth;max-size=50000000;features=batch`

Strings of one record arrive joined. Keys are case-insensitive, in any order, and unknown ones are ignored.
A domain Speaks AMTP, is Silent about it, or is Broken: its record says v=amtp1 but can't be used.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gateway.protocol.url import BadUrl, Url, parse_url

VERSION: Final = "amtp1"
SIZE_BYTES_DEFAULT: Final = 10_485_760
RECORD_CHARACTERS_MAX: Final = 4096  # a record is a few dozen; more is an attack or an accident
TOKENS_MAX: Final = 32  # entries of auth= and features= that are kept

_TOKEN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SIZE = re.compile(r"[0-9]{1,15}")  # up to a petabyte; more is a mistake
_TOKENS_DEFAULT: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """A gateway's URL and abilities, from its record."""

    gateway: Url
    auth: tuple[str, ...] = ()
    max_size: int = SIZE_BYTES_DEFAULT
    features: frozenset[str] = _TOKENS_DEFAULT

    @property
    def gateway_url(self) -> str:
        return str(self.gateway)


@dataclass(frozen=True, slots=True)
class Speaks:
    capabilities: Capabilities
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Silent:
    """The lack of any record with v=amtp1: the domain has no AMTP gateway."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A record with v=amtp1 that can't be used: a temporary failure, never a reason to fall back to mail."""

    reason: str


def choose(records: Iterable[str], *, plain: bool = False) -> Speaks | Silent | Broken:
    """Returns what the TXT records of one name mean together; `plain` allows a gateway without TLS."""
    spoken = [record for record in sorted(set(records)) if _says_amtp(record)]
    parsed = [parse_record(record, plain=plain) for record in spoken]
    valid = sorted((p for p in parsed if isinstance(p, Speaks)), key=lambda p: p.capabilities.gateway_url)
    broken = [p for p in parsed if isinstance(p, Broken)]
    if not valid:
        return broken[0] if broken else Silent()
    warnings = list(valid[0].warnings)
    if len(valid) > 1:
        url = valid[0].capabilities.gateway_url
        warnings.append(f"{len(valid)} records say v={VERSION}; using the first by gateway URL, {url}")
    warnings += [f"another record is broken: {each.reason}" for each in broken[:3]]
    return Speaks(valid[0].capabilities, tuple(warnings))


def parse_record(record: str, *, plain: bool = False) -> Speaks | Broken:
    """Returns what one record that says v=amtp1 means."""
    if len(record) > RECORD_CHARACTERS_MAX:
        return Broken(f"the record is longer than {RECORD_CHARACTERS_MAX} characters")
    pairs = _pairs(record)
    values = dict(pairs)
    for key in ("v", "gateway", "auth", "max-size", "features"):
        if sum(name == key for name, _ in pairs) > 1:
            return Broken(f"{key}= stands there more than once")
    if not values.get("gateway"):
        return Broken("gateway= is missing")
    gateway = parse_gateway(values["gateway"], plain=plain)
    if isinstance(gateway, BadUrl):
        return Broken(f"gateway= {gateway.reason}")
    size = values.get("max-size") or str(SIZE_BYTES_DEFAULT)
    if not _SIZE.fullmatch(size) or int(size) == 0:
        return Broken("max-size= must be a number of bytes")
    auth, odd_auth = _tokens(values.get("auth", ""))
    features, odd_features = _tokens(values.get("features", ""))
    odd = [("auth", odd_auth), ("features", odd_features)]
    warnings = tuple(f"{count} unreadable entries in {key}= were ignored" for key, count in odd if count)
    return Speaks(Capabilities(gateway, auth, int(size), frozenset(features)), warnings)


def parse_gateway(text: str, *, plain: bool = False) -> Url | BadUrl:
    """Returns the base URL of a gateway: host, port and an optional path to which `/v1/…` is appended."""
    url = parse_url(text, plain=plain)
    if isinstance(url, BadUrl):
        return url
    if url.query or "?" in text:
        return BadUrl("must not have a query")
    if ";" in text:
        return BadUrl("must not contain a semicolon, which ends a field of the record")
    return Url(url.scheme, url.host, url.port, url.path.rstrip("/"), "", url.literal)


def render_record(capabilities: Capabilities) -> str:
    """Returns the record as one text, from which `parse_record` reads the same capabilities."""
    fields = {
        "v": VERSION,
        "gateway": capabilities.gateway_url,
        "auth": ",".join(capabilities.auth),
        "max-size": str(capabilities.max_size),
        "features": ",".join(sorted(capabilities.features)),
    }
    return ";".join(f"{key}={value}" for key, value in fields.items() if value)


def _pairs(record: str) -> list[tuple[str, str]]:
    halves = (part.partition("=") for part in record.split(";"))
    return [(key.strip().lower(), value.strip()) for key, _, value in halves if key.strip()]


def _says_amtp(record: str) -> bool:
    # Only the beginning of an endless record is looked at: enough to know that it means to speak.
    pairs = _pairs(record[: RECORD_CHARACTERS_MAX + 1])
    return any(key == "v" and value.lower() == VERSION for key, value in pairs)


def _tokens(text: str) -> tuple[tuple[str, ...], int]:
    written = [entry.strip().lower() for entry in text.split(",") if entry.strip()]
    kept = tuple(dict.fromkeys(entry for entry in written if _TOKEN.fullmatch(entry)))[:TOKENS_MAX]
    return kept, sum(not _TOKEN.fullmatch(entry) for entry in written)
