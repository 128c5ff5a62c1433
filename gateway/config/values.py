"""The types of single values in a configuration, and how each is parsed from text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, Self

Network = IPv4Network | IPv6Network


class Secret(str):
    """A text whose repr is masked, so that no log or traceback shows it by accident."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret(…)"


@dataclass(frozen=True, slots=True)
class HostPort:
    host: str
    port: int

    @classmethod
    def parse(cls, text: str, port: int | None = None) -> Self:
        """Parses `host:port`, with IPv6 hosts in brackets; without a port the given default is used."""
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\s:/\[\]]+))(?::([0-9]{1,5}))?", text)
        if not match or (match[3] is None and port is None):
            raise ValueError("must be host:port, such as 127.0.0.1:8080 or [::1]:8080")
        number = int(match[3]) if match[3] is not None else port
        assert number is not None
        if number > 65_535:
            raise ValueError("has a port above 65535")
        return cls(match[1] or match[2], number)

    @property
    def loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _bool(text: str) -> bool:
    word = text.lower()
    if word not in ("true", "false", "yes", "no", "on", "off", "1", "0"):
        raise ValueError("must be true or false")
    return word in ("true", "yes", "on", "1")


def _number(kind: type[int] | type[float], words: str) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise ValueError(f"must be {words}") from None
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError(f"must be {words}")
        return value

    return parse


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError("must be a network such as 10.0.0.0/8 (no bits set behind the prefix)") from None


PARSERS: Mapping[Any, Callable[[str], Any]] = {
    bool: _bool,
    int: _number(int, "a whole number"),
    float: _number(float, "a number"),
    str: str,
    Secret: Secret,
    Path: Path,
    HostPort: HostPort.parse,
    Network: _network,
}
