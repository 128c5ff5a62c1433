"""Addresses of agents, `local-part@domain`, read into the one form in which they are compared.

1. The domain is lower-cased and brought to A-labels (IDNA, UTS 46): a host name, no trailing dot, no IP.
2. The local part is a dot-atom of RFC 5321, 1 to 64 characters, compared without regard to case.
3. `agent+tag@domain` is the agent; the tag is kept for the agent to see and takes part in nothing else.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

import idna

from gateway.protocol.errors import AMTPError, Code

# What only the gateway itself, or its operator, answers for.
RESERVED = frozenset({"postmaster", "abuse", "mailer-daemon", "amtp-bridge", "reply", "any"})

LOCAL_CHARACTERS_MAX = 64
DOMAIN_CHARACTERS_MAX = 253
ADDRESS_CHARACTERS_MAX = LOCAL_CHARACTERS_MAX + 1 + DOMAIN_CHARACTERS_MAX
ADDRESSES_REMEMBERED = 8192  # some 4 MB at most

_ATEXT = r"[A-Za-z0-9!#$%&'*/=?^_`{|}~-]"  # RFC 5321, without the "+" before which the agent's name ends
_LOCAL = re.compile(rf"({_ATEXT}+(?:\.{_ATEXT}+)*)(?:\+((?:{_ATEXT}|\+)*(?:\.(?:{_ATEXT}|\+)+)*))?")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")  # what resolvers take for an IP address

ADDRESS_REMEDY = "write it as local-part@domain, such as agent@example.com"
DOMAIN_REMEDY = "write a host name, such as example.com, without a trailing dot, underscore or IP address"


@dataclass(frozen=True, slots=True)
class Address:
    local: str  # lower case, without its tag
    tag: str  # "" when there is none
    domain: str  # lower case A-labels
    written: str  # as the sender wrote it; receipts echo this
    name: str  # local@domain: who is meant


def parse_address(text: object, field: str, code: Code = Code.INVALID_MESSAGE_FORMAT) -> Address:
    """Returns the address in `text`; `field` names it in an error."""
    if isinstance(text, str) and len(text) <= ADDRESS_CHARACTERS_MAX:
        address = _address(text)
        if address is not None:
            return address
    raise AMTPError(code, f"{field} is not an agent's address: {ADDRESS_REMEDY}", {"field": field})


def parse_domain(text: object, field: str) -> str:
    """Returns the domain in `text` as lower case A-labels."""
    if isinstance(text, str) and len(text) <= DOMAIN_CHARACTERS_MAX:
        domain = _domain(text)
        if domain is not None:
            return domain
    raise AMTPError(
        Code.INVALID_MESSAGE_FORMAT, f"{field} is not a domain: {DOMAIN_REMEDY}", {"field": field}
    )


def is_international(text: str) -> bool:
    """Returns whether reading this address or domain takes IDNA, which is slow."""
    return not text.isascii() or "xn--" in text.lower()


@lru_cache(ADDRESSES_REMEMBERED)
def _address(text: str) -> Address | None:
    written_local, at, written_domain = text.rpartition("@")
    parts = _LOCAL.fullmatch(written_local)
    if not at or parts is None or len(written_local) > LOCAL_CHARACTERS_MAX:
        return None
    domain = _domain(written_domain)
    if domain is None:
        return None
    local = parts[1].lower()
    return Address(local, parts[2] or "", domain, text, f"{local}@{domain}")


def tagged(address: str, name: str) -> str | None:
    """Returns the address as written, where it says more than the agent's name."""
    return None if address == name else address


@lru_cache(ADDRESSES_REMEMBERED)
def _domain(text: str) -> str | None:
    domain = text.lower()
    if is_international(domain):
        try:
            domain = idna.encode(domain, uts46=True, std3_rules=True).decode()
        except UnicodeError:
            return None
    if len(domain) > DOMAIN_CHARACTERS_MAX or not _DOMAIN.fullmatch(domain) or _NUMERIC.fullmatch(domain):
        return None
    return domain
