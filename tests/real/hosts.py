"""Hosts on one machine: each a network of its own, joined by wires that take their time and lose packets.

with internet("near", "far", delay_ms=50, loss_percent=5) as (near, far):
    with near.entered():
        ...  # sockets and processes made here belong to that host

The networks have no names: they go with the process that made them, however it ends.
"""

import ctypes
import fcntl
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

WHOLE = "10.99.0.0/16"
DEVICE = "wire"
MTU = 1400  # what is left of an Ethernet after a tunnel
STOP_SECONDS = 10

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_HERE = "/proc/thread-self/ns/net"


@dataclass(frozen=True)
class Host:
    """Every address of its network is its own."""

    name: str
    number: int
    _namespace: int  # descriptor

    @property
    def network(self) -> str:
        return f"10.99.{self.number}.0/24"

    def address(self, place: int = 1) -> str:
        return f"10.99.{self.number}.{place}"

    def has(self, address: str) -> bool:
        return address.startswith(f"10.99.{self.number}.")

    @property
    def words(self) -> tuple[str, ...]:
        """What stands before a command that belongs to the host."""
        return "nsenter", f"--net=/proc/{os.getpid()}/fd/{self._namespace}"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """What this thread opens or starts inside the block belongs to the host."""
        before = os.open(_HERE, os.O_RDONLY)
        _check(_libc.setns(self._namespace, _CLONE_NEWNET))
        try:
            yield
        finally:
            _check(_libc.setns(before, _CLONE_NEWNET))
            os.close(before)

    def run(self, *command: str) -> None:
        with self.entered():
            subprocess.run(command, check=True)

    def cut(self) -> None:
        """Nothing comes or goes, and nobody is told."""
        self.run("ip", "link", "set", DEVICE, "down")

    def mute(self) -> None:
        """What comes is heard, nothing that it says gets out."""
        self.run("ip", "route", "replace", "blackhole", WHOLE)

    def is_silent(self) -> bool:
        """Nothing waits to be said, not even by those who have died."""
        with self.entered():
            command = ("ss", "--no-header", "--tcp", "state", "fin-wait-1")
            told = subprocess.run(command, check=True, capture_output=True, text=True)
        return not told.stdout.strip()

    def mend(self) -> None:
        self.run("ip", "link", "set", DEVICE, "up")
        self.run("ip", "route", "flush", "root", WHOLE)
        self.run("ip", "route", "add", WHOLE, "dev", DEVICE)


@dataclass
class Wires:
    """The process that carries packets; what it did is known when it has ended."""

    process: "subprocess.Popen[str]"
    carried: int = 0
    lost: int = 0

    def end(self) -> None:
        if self.process.stdout is not None and not self.process.stdout.closed:
            self.process.terminate()
            told, _ = self.process.communicate(timeout=STOP_SECONDS)
            self.carried, self.lost = json.loads(told)


@dataclass
class Internet:
    hosts: list[Host]
    wires: Wires

    def __iter__(self) -> Iterator[Host]:
        return iter(self.hosts)


@contextmanager
def internet(
    *names: str, delay_ms: float = 0, jitter_ms: float = 0, loss_percent: float = 0
) -> Iterator[Internet]:
    """A host of each name; a packet between two of them is late by the delay, or lost."""
    with ExitStack() as stack:
        hosts, ends = [], []
        for number, name in enumerate(names, start=1):
            host = Host(name, number, _new_namespace())
            stack.callback(os.close, host._namespace)
            hosts.append(host)
            ends.append(_plug(host))
        try:
            wires = Wires(_start(hosts, ends, delay_ms, jitter_ms, loss_percent))
        finally:
            for end in ends:
                os.close(end)
        stack.callback(wires.end)
        yield Internet(hosts, wires)


def _new_namespace() -> int:
    before = os.open(_HERE, os.O_RDONLY)
    _check(_libc.unshare(_CLONE_NEWNET))
    try:
        return os.open(_HERE, os.O_RDONLY)
    finally:
        _check(_libc.setns(before, _CLONE_NEWNET))
        os.close(before)


def _plug(host: Host) -> int:
    """The host's end of the wire, as a descriptor of its packets."""
    with host.entered():
        end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
    with host.entered():  # who died in the middle of a word is not repeated for minutes
        Path("/proc/sys/net/ipv4/tcp_orphan_retries").write_text("1")
    host.run("ip", "link", "set", "lo", "up")
    host.run("ip", "address", "add", f"{host.address()}/32", "dev", DEVICE)
    host.run("ip", "link", "set", DEVICE, "mtu", str(MTU), "txqueuelen", "10000", "up")
    host.run("ip", "route", "add", WHOLE, "dev", DEVICE)
    host.run("ip", "route", "add", "local", host.network, "dev", "lo")
    return end


def _start(
    hosts: list[Host], ends: list[int], delay_ms: float, jitter_ms: float, loss_percent: float
) -> "subprocess.Popen[str]":
    places = [f"{end}={ip_network(host.network)[0]}" for host, end in zip(hosts, ends, strict=True)]
    return subprocess.Popen(
        [
            sys.executable,
            str(Path(__file__).with_name("wires.py")),
            *(str(number) for number in (delay_ms, jitter_ms, loss_percent)),
            *places,
        ],
        pass_fds=ends,
        stdout=subprocess.PIPE,
        text=True,
    )


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
