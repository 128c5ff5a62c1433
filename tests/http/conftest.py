"""The server is tried on the loop of the standard library and on the one the gateway runs on."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

ON_BOTH = {"test_server.py", "test_places.py"}  # what touches sockets itself; the rest runs as in production


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    on_one: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
    return on_one | {"asyncio": asyncio.new_event_loop} if item.path.name in ON_BOTH else on_one
