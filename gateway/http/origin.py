"""The client's address, from the connection and the headers of trusted proxies."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


def client_address(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """Returns the client's address: the rightmost one that is not a trusted proxy.

    `forwarded` holds the X-Forwarded-For headers in order. Each trusted proxy appended whom it saw, so we
    read from the right and stop at the first address that is not a trusted proxy: everything left of it
    may be the client's own invention. Reading also stops at text that is no address.
    """
    believed = parse_address(peer)
    if believed is None:
        return peer
    for hop in reversed([hop for line in forwarded for hop in line.split(",")]):
        if not is_trusted(believed, trusted):
            break
        seen = parse_address(hop)
        if seen is None:
            break
        believed = seen
    return str(believed)


def is_trusted(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)


def parse_address(text: str) -> Address | None:
    """Parses an address as proxies write it: bare, with a port, or in brackets; IPv4-mapped IPv6 becomes IPv4."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        parsed = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed
