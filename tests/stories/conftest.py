"""The ground that stories of several gateways stand on: loopback, and a DNS server in the test's own loop."""

from collections.abc import AsyncIterator

import pytest

from tests.federation import Ground, loopback


@pytest.fixture
async def ground() -> AsyncIterator[Ground]:
    async with loopback() as built:
        yield built
