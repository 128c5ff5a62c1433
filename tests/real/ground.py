"""Ground for the stories of tests/stories: whoever listens does so on a far host, at the ports of the real world.

The gateways run in the test's own process, as everywhere; but their sockets that ask and send belong to one host,
those that listen to the other. What a gateway looks up or hands over crosses the wires, there and back.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.config.sections import DnsSettings
from gateway.config.values import HostPort
from tests.real.hosts import WHOLE, Host
from tests.real.zones import SignedZone

HTTPS, DOMAIN = 443, 53
FIRST_PLACE = 100


class FarGround:
    network = WHOLE

    def __init__(self, far: Host, dns: SignedZone) -> None:
        self.dns = dns
        self.resolution = DnsSettings(nameservers=(f"{dns.unbound}:{DOMAIN}",), timeout_seconds=5.0)
        self.words_there = far.words
        self._far = far
        self._sites: dict[str, HostPort] = {}

    def site(self, host: str) -> HostPort:
        place = FIRST_PLACE + len(self._sites)
        return self._sites.setdefault(host, HostPort(self._far.address(place), HTTPS))


@asynccontextmanager
async def far_ground(near: Host, dns: SignedZone, patch: pytest.MonkeyPatch) -> AsyncIterator[FarGround]:
    """While the block lasts, this thread is on the near host."""
    far = dns.host
    create_server = asyncio.BaseEventLoop.create_server

    async def listen(loop: Any, factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        if not isinstance(host, str) or not far.has(host):
            return await create_server(loop, factory, host, port, **options)
        with far.entered():
            options["sock"] = socket.create_server((host, port))
        return await create_server(loop, factory, **options)

    patch.setattr(asyncio.BaseEventLoop, "create_server", listen)
    with near.entered():
        try:
            yield FarGround(far, dns)
        finally:
            dns.clear()
