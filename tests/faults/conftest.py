"""A durable site to break: Postgres and the gateway are processes of their own."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.clock import Clock
from gateway.embedded import EmbeddedPostgres
from gateway.store.database import Database
from gateway.store.migrate import migrate
from tests.faults.crossing import Crossing, crossing
from tests.faults.drills import Site, site
from tests.faults.processes import DURABLE


@pytest.fixture(scope="session")
def migrated_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose cluster is made and migrated, to copy."""
    data = tmp_path_factory.mktemp("migrated") / "data"

    async def once() -> None:
        embedded = EmbeddedPostgres(data, settings=DURABLE)
        database = Database(await embedded.start(), clock=Clock())
        await database.open()
        await migrate(database)
        await database.close()
        await embedded.stop()

    asyncio.run(once())
    return data


@pytest.fixture
def data(migrated_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(migrated_folder, tmp_path / "data"))


@pytest.fixture
async def one_gateway(data: Path) -> AsyncIterator[Site]:
    async with site(data) as running:
        yield running


@pytest.fixture
async def two_gateways(data: Path) -> AsyncIterator[Site]:
    async with site(data, gateways=2) as running:
        yield running


@pytest.fixture
async def across(migrated_folder: Path, tmp_path: Path) -> AsyncIterator[Crossing]:
    near, far = (Path(shutil.copytree(migrated_folder, tmp_path / name)) for name in ("near", "far"))
    async with crossing(near, far) as running:
        yield running
