"""What every test may ask for: a database of its own, a clock to turn, a world to build gateways in, and a net of them."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import asyncpg
import pytest
from hypothesis import settings

from gateway.features.feature import Plug
from gateway.flow import worker
from gateway.postgres.embedded import EmbeddedPostgres
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.migrate import migrate
from gateway.store.row_ids import Mint
from gateway.wiring.features import FEATURES

if TYPE_CHECKING:
    from tests.federation import Federation, Ground
    from tests.world import Gateway, World

pytest.register_assert_rewrite("tests.telling")

settings.register_profile("suite", derandomize=True, deadline=None)
settings.load_profile("suite")

# Durability is what the tests of crashes switch on; elsewhere it only costs time.
FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
}
# Nobody reads the server's log between tests: once its pipe is full, Postgres would wait for ever.
QUIET = {"log_min_messages": "panic", "log_checkpoints": "off"}
# A database for each test is five hundred small files each time, which memory takes ten times as fast as a disk.
MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 2 * 1024**3


@dataclass(frozen=True)
class Server:
    """A Postgres for this test process, and a migrated template to copy databases from."""

    dsn: str
    _numbers: Iterator[int]

    def dsn_of(self, database: str) -> str:
        return self.dsn.replace("///amtp?", f"///{database}?", 1)

    async def create(self) -> str:
        """The DSN of a fresh, migrated database."""
        name = f"t{next(self._numbers)}"
        connection = await asyncpg.connect(self.dsn_of("postgres"))
        try:
            await connection.execute(f"create database {name} template template_amtp strategy file_copy")
        finally:
            await connection.close()
        return self.dsn_of(name)

    async def drop(self, dsn: str) -> None:
        name = dsn.split("///")[1].split("?")[0]
        connection = await asyncpg.connect(self.dsn_of("postgres"))
        try:
            await connection.execute(f"drop database if exists {name} with (force)")
        finally:
            await connection.close()

    async def prepare(self) -> None:
        connection = await asyncpg.connect(self.dsn_of("postgres"))
        await connection.execute("create database template_amtp")
        await connection.close()
        template = Database(self.dsn_of("template_amtp"), clock=Clock())
        await template.open()
        await migrate(template)
        await template.close()


@pytest.fixture(scope="session")
def quick_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """For what need not outlive the run: in memory where that has room."""
    if MEMORY.is_dir() and disk_usage(MEMORY).free >= MEMORY_BYTES_MIN:
        with TemporaryDirectory(prefix="amtp-suite-", dir=MEMORY) as name:
            yield Path(name)
    else:
        yield tmp_path_factory.mktemp("quick")


@pytest.fixture(scope="session")
def server(quick_folder: Path) -> Iterator[Server]:
    """AMTP_TEST_DATABASE_URL names another Postgres to run the suite on, such as an older release."""
    loop = asyncio.new_event_loop()
    url = os.environ.get("AMTP_TEST_DATABASE_URL")
    embedded = None if url else EmbeddedPostgres(quick_folder / "pg", settings=FAST | QUIET)
    dsn = url if embedded is None else loop.run_until_complete(embedded.start())
    assert dsn is not None
    found = Server(dsn, itertools.count(os.getpid() * 1000))
    loop.run_until_complete(found.prepare())
    yield found
    if embedded is not None:
        loop.run_until_complete(embedded.stop())
    loop.close()


@pytest.fixture
async def dsn(server: Server) -> AsyncIterator[str]:
    dsn = await server.create()
    yield dsn
    await server.drop(dsn)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mint(clock: Clock) -> Mint:
    return Mint(clock)


@pytest.fixture
async def database(dsn: str, clock: Clock) -> AsyncIterator[Database]:
    opened = Database(dsn, clock=clock)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def features() -> Sequence[Plug]:
    """What the gateways of a test are made with; a module that asks for less overrides this."""
    return FEATURES


@pytest.fixture
async def world(dsn: str, tmp_path: Path, server: Server, features: Sequence[Plug]) -> AsyncIterator["World"]:
    from tests.world import World

    async with World(dsn, tmp_path, server.create, features) as built:
        yield built


@pytest.fixture
async def gw(world: "World") -> AsyncIterator["Gateway"]:
    """A gateway of acme.test as it is by default; a module that asks for another overrides this."""
    async with world.gateway() as running:
        yield running


@pytest.fixture
async def ground() -> AsyncIterator["Ground"]:
    """What gateways of several domains stand on: loopback, and a DNS server in the test's own loop."""
    from tests.federation import loopback

    async with loopback() as built:
        yield built


@pytest.fixture
def poll_seconds() -> float:
    """How often the workers of `net` look by themselves; a module that turns the clock by hours overrides this."""
    return worker.POLL_SECONDS


@pytest.fixture
async def net(
    world: "World", ground: "Ground", poll_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator["Federation"]:
    """Gateways of several domains, on one clock."""
    from tests.federation import federation

    monkeypatch.setattr(worker, "POLL_SECONDS", poll_seconds)
    async with federation(world, ground) as built:
        yield built
