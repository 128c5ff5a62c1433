"""Whose program is at the other end of a connection on this machine, as Linux tells it of its sockets.

A forwarder or proxy that runs as another user lets strangers through from a loopback address. Its socket tells it apart
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
    """Whether whoever is at the other end of a connection is the user who runs this process, or root."""
    ends = transport and (transport.get_extra_info("peername"), transport.get_extra_info("sockname"))
    return bool(ends and all(ends)) and is_same_user(*(end[:2] for end in ends or ()))


def is_same_user(client: End, here: End) -> bool:
    """Whether the client's socket is of the user who runs this process, or of root.

    Where the system has no such table nothing can be told, and address and headers have to do.
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
    """An end as the two tables write it: as it is, and mapped into IPv6."""
    address, port = ip_address(end[0].partition("%")[0]), end[1]
    mapped = address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed
    plain = address.packed if isinstance(address, IPv4Address) else mapped
    return f"{_hexadecimal(plain)}:{port:04X}", f"{_hexadecimal(mapped)}:{port:04X}"


def _hexadecimal(packed: bytes) -> str:
    """Words of four bytes, each a number in the byte order of this machine."""
    words = (packed[place : place + 4] for place in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
