"""The site that the long drills break is the one of the short ones."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.conftest import across, bad_road, data, folders, migrated_folder, one_gateway, two_gateways
from tests.faults.crossing import Crossing, crossing

__all__ = ["across", "bad_road", "data", "folders", "migrated_folder", "one_gateway", "two_gateways"]


@pytest.fixture
async def shared_across(folders: tuple[Path, Path]) -> AsyncIterator[Crossing]:
    """Two domains; the sending one has two gateways on its database."""
    async with crossing(*folders, senders=2) as running:
        yield running
