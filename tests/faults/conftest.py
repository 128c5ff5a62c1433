"""A durable site to break: Postgres and the gateway are processes of their own."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from conformance.fake_peer import Authority, FakePeer
from gateway.postgres.embedded import EmbeddedPostgres
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.migrate import migrate
from tests.faults.crossing import HERE, Crossing, crossing
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
def folders(migrated_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The same for two domains."""
    near, far = (Path(shutil.copytree(migrated_folder, tmp_path / name)) for name in ("near", "far"))
    return near, far


@pytest.fixture
async def across(folders: tuple[Path, Path]) -> AsyncIterator[Crossing]:
    async with crossing(*folders) as running:
        yield running


@pytest.fixture
async def bad_road(folders: tuple[Path, Path]) -> AsyncIterator[tuple[FakePeer, Crossing]]:
    """Two domains, and what stands between them."""
    async with FakePeer(Authority(), host=HERE).listening() as road, crossing(*folders, road=road) as running:
        yield road, running
