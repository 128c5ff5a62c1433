"""The user at the other end of a loopback connection, from Linux's table of sockets.

A forwarder or proxy that runs as another user passes strangers' requests on from a loopback address; the owner of its
socket gives it away.
from the programs of the user who runs the gateway.
"""

import os
import sys
from asyncio import BaseTransport
from collections.abc import Iterable
from ipaddress import IPv4Address, ip_address
from pathlib import Path

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
ROOT = 0
LOCAL, REMOTE, OWNER, INODE = 1, 2, 7, 9  # columns

End = tuple[str, int]  # address and port


def is_same_user_at(transport: BaseTransport | None) -> bool:
    """Returns whether the peer of a local connection runs as this process's user, or as root."""
    ends = transport and (transport.get_extra_info("peername"), transport.get_extra_info("sockname"))
    return bool(ends and all(ends)) and is_same_user(*(end[:2] for end in ends or ()))


def is_same_user(client: End, here: End) -> bool:
    """Returns whether the client's socket belongs to this process's user, or to root.

    Returns True where the system has no such table; then address and headers must suffice.
    """
    try:
        lines = [line for table in TABLES if table.exists() for line in table.read_text().splitlines()]
    except OSError:
        return True
    return not lines or owner_of(lines, client, here) in (os.geteuid(), ROOT)


def owner_of(lines: Iterable[str], client: End, here: End) -> int | None:
    """Returns the user id of the socket that leads from `client` to `here`; None where there is none."""
    ends = {(one, other) for one, other in zip(_written(client), _written(here), strict=True)}
    for line in lines:
        columns = line.split()
        if len(columns) > INODE and (columns[LOCAL], columns[REMOTE]) in ends and columns[INODE] != "0":
            return int(columns[OWNER])
    return None


def _written(end: End) -> tuple[str, str]:
    """Returns an end as the two tables write it: plain, and mapped into IPv6."""
    address, port = ip_address(end[0].partition("%")[0]), end[1]
    mapped = address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed
    plain = address.packed if isinstance(address, IPv4Address) else mapped
    return f"{_hexadecimal(plain)}:{port:04X}", f"{_hexadecimal(mapped)}:{port:04X}"


def _hexadecimal(packed: bytes) -> str:
    """Returns words of four bytes, each as a number in this machine's byte order."""
    words = (packed[place : place + 4] for place in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
