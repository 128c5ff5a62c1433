"""Ports: checked before the gateway starts, and reserved for several processes to share."""

import errno
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from gateway.config.sections import ListenerSettings
from gateway.config.values import HostPort
from gateway.serve.expected import StartError

PORTS_TRIED = 100  # from the default port; more gateways than this on one machine name their ports

REASONS = {
    errno.EADDRINUSE: "the port is taken; stop what listens there, or choose another",
    errno.EACCES: "ports below 1024 need a privilege; choose a higher one",
    errno.EADDRNOTAVAIL: "this machine has no such address",
}


def first_free(address: HostPort) -> HostPort:
    """Returns this address with its port or the next free one."""
    for port in range(address.port, min(address.port + PORTS_TRIED, 65_536)):
        candidate = replace(address, port=port)
        try:
            check_free(candidate)
        except StartError:
            continue
        return candidate
    raise StartError(f"No port from {address.port} on is free on {address.host}; name one with --port.")


def check_free(address: HostPort) -> None:
    """Raises StartError if the address can't be listened on."""
    try:
        family, place = _resolved(address)
        with socket.socket(family) as probe:
            # As the server will do: connections in TIME_WAIT don't matter, a listener does.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen()
    except OSError as failure:
        raise StartError(f"Can't listen on {address}: {_why(failure)}.") from None


def reserve(listeners: Sequence[ListenerSettings], stack: ExitStack) -> tuple[ListenerSettings, ...]:
    """Reserves the ports that several processes will share, for as long as the stack; picks one for port 0."""
    kept = []
    for listener in listeners:
        family, place = _resolved(listener.address)
        holder = stack.enter_context(socket.socket(family))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            holder.bind(place)
        except OSError as failure:
            raise StartError(f"Can't listen on {listener.address}: {_why(failure)}.") from None
        port: int = holder.getsockname()[1]
        kept.append(replace(listener, address=replace(listener.address, port=port)))
    return tuple(kept)


def _resolved(address: HostPort) -> tuple[socket.AddressFamily, tuple[str, int]]:
    found = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
    )
    family, _, _, _, place = found[0]
    return family, (str(place[0]), int(place[1]))


def _why(failure: OSError) -> str:
    return REASONS.get(failure.errno or 0, failure.strerror or str(failure))
