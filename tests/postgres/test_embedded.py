"""Real servers on real sockets, by whoever runs the suite: root as well as an ordinary user."""

import asyncio
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from gateway.postgres import home as postgres_home
from gateway.postgres.embedded import EmbeddedError, EmbeddedPostgres, free_bytes
from gateway.postgres.home import Binaries, find_binaries, usual_folders

REPOSITORY = Path(__file__).parents[2]
FAST = {"fsync": "off", "shared_buffers": "16MB"}
GATEWAY = """
import asyncio, sys
from pathlib import Path
from gateway.postgres.embedded import EmbeddedPostgres

async def main():
    embedded = EmbeddedPostgres(Path(sys.argv[1]), settings={"fsync": "off", "shared_buffers": "16MB"})
    await embedded.start()
    print(embedded.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def first_day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose cluster is already made."""
    data = tmp_path_factory.mktemp("first") / "data"

    async def once() -> None:
        embedded = EmbeddedPostgres(data, settings=FAST)
        await embedded.start()
        await embedded.stop()

    asyncio.run(once())
    return data


@pytest.fixture
def data(first_day: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first_day, tmp_path / "data"))


@pytest.fixture
async def embedded(data: Path) -> AsyncIterator[EmbeddedPostgres]:
    embedded = EmbeddedPostgres(data, settings=FAST)
    yield embedded
    await embedded.stop()


@pytest.fixture
def binaries() -> Binaries:
    return find_binaries(os.environ.get("AMTP_PG_BINDIR"), usual_folders())


async def ask(dsn: str, question: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def wait_until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not happened():
            await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def environment_of(pid: int | None) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def socket_folder(embedded: EmbeddedPostgres) -> Path:
    return Path(embedded.dsn.partition("host=")[2].partition("&")[0])


def kill_a_gateway(data: Path) -> int:
    """Kills a gateway as hard as can be; returns the process of the Postgres it leaves behind."""
    command = [sys.executable, "-c", GATEWAY, str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as gateway:
        assert gateway.stdout is not None
        pid = int(gateway.stdout.readline())
        assert is_alive(pid)
        gateway.kill()
    return pid


def make_zombie(command: list[str], cwd: Path) -> "subprocess.Popen[bytes]":
    zombie = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=cwd)
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    return zombie


def shell(commands: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["sh", "-c", commands], capture_output=True, text=True)


async def test_the_first_start_makes_a_utf8_database_with_checksums(tmp_path: Path) -> None:
    embedded = EmbeddedPostgres(tmp_path / "new" / "data", settings=FAST)
    dsn = await embedded.start()
    try:
        assert await ask(dsn, "SELECT current_database() || ' ' || current_user") == "amtp amtp"
        assert await ask(dsn, "SHOW server_encoding") == "UTF8"
        assert await ask(dsn, "SHOW data_checksums") == "on"
    finally:
        await embedded.stop()


async def test_what_was_written_is_there_after_a_restart(embedded: EmbeddedPostgres) -> None:
    await ask(await embedded.start(), "CREATE TABLE mail AS SELECT 42 AS answer")
    await embedded.stop()
    assert await ask(await embedded.start(), "SELECT answer FROM mail") == 42


async def test_a_server_is_durable_unless_told_otherwise(data: Path) -> None:
    embedded = EmbeddedPostgres(data)
    dsn = await embedded.start()
    try:
        assert await ask(dsn, "SHOW fsync") == "on"
        assert await ask(dsn, "SHOW synchronous_commit") == "on"
    finally:
        await embedded.stop()


async def test_it_listens_on_a_socket_in_a_private_folder_only(
    embedded: EmbeddedPostgres, data: Path
) -> None:
    dsn = await embedded.start()
    assert await ask(dsn, "SHOW listen_addresses") == ""
    assert stat.S_IMODE((data / "run").stat().st_mode) == 0o700
    assert stat.S_IMODE((data / "postgres").stat().st_mode) == 0o700


async def test_the_server_sees_neither_our_secrets_nor_variables_meant_for_libpq(
    embedded: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMTP_ADMIN_KEY", "secret")
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nowhere")
    await ask(await embedded.start(), "SELECT 1")
    environment = environment_of(embedded.pid)
    assert b"LC_ALL=C" in environment
    assert b"secret" not in environment
    assert b"PGDATA" not in environment


async def test_stop_ends_the_server_and_may_be_repeated(embedded: EmbeddedPostgres) -> None:
    await embedded.start()
    pid = embedded.pid
    assert pid is not None
    assert is_alive(pid)
    await embedded.stop()
    await embedded.stop()
    assert not is_alive(pid)
    assert embedded.pid is None


async def test_a_start_that_is_cancelled_gives_the_data_folder_back(
    embedded: EmbeddedPostgres, data: Path
) -> None:
    start = asyncio.create_task(embedded.start())
    await wait_until(lambda: (data / "postgres.lock").read_text() == f"{os.getpid()}\n")
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    await embedded.start()


async def test_a_second_gateway_on_the_data_folder_is_refused(
    embedded: EmbeddedPostgres, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_home, "LOCK_SECONDS", 0.1)
    dsn = await embedded.start()
    with pytest.raises(EmbeddedError, match=f"in use by another gateway \\(process {os.getpid()}\\)"):
        await EmbeddedPostgres(data, settings=FAST).start()
    assert await ask(dsn, "SELECT 1") == 1


async def test_a_killed_server_is_started_again_with_what_it_had_committed(
    embedded: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    dsn = await embedded.start()
    await ask(dsn, "CREATE TABLE mail AS SELECT 42 AS answer")
    first = embedded.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await wait_until(lambda: embedded.fault is not None)
    await wait_until(lambda: embedded.fault is None)
    assert embedded.pid not in (None, first)
    assert await ask(dsn, "SELECT answer FROM mail") == 42
    assert "was killed by SIGKILL" in caplog.text
    assert "ready to accept connections" in caplog.text  # its last words


async def test_a_server_that_cannot_start_again_says_why_and_is_tried_again(
    embedded: EmbeddedPostgres, data: Path
) -> None:
    dsn = await embedded.start()
    configuration = data / "postgres" / "postgresql.conf"
    good = configuration.read_text()
    configuration.write_text("nonsense = 1\n")
    assert embedded.pid is not None
    os.kill(embedded.pid, signal.SIGINT)
    await wait_until(lambda: 'unrecognized configuration parameter "nonsense"' in (embedded.fault or ""))
    configuration.write_text(good)
    await wait_until(lambda: embedded.fault is None)
    assert await ask(dsn, "SELECT 1") == 1


async def test_the_server_dies_with_a_killed_gateway_and_the_next_one_starts(
    embedded: EmbeddedPostgres, data: Path
) -> None:
    pid = kill_a_gateway(data)
    assert await ask(await embedded.start(), "SELECT 1") == 1  # waits for the old one
    assert not is_alive(pid)


async def test_a_pid_file_that_names_somebody_else_is_stale(embedded: EmbeddedPostgres, data: Path) -> None:
    (data / "postgres" / "postmaster.pid").write_text(f"{os.getppid()}\n{data}/postgres\n")
    (data / "run" / ".s.PGSQL.5432.lock").write_text(f"{os.getppid()}\n")
    assert await ask(await embedded.start(), "SELECT 1") == 1


async def test_a_pid_file_that_names_a_zombie_is_stale(
    embedded: EmbeddedPostgres, data: Path, binaries: Binaries
) -> None:
    with make_zombie([binaries["postgres"], "--version"], data / "postgres") as zombie:
        (data / "postgres" / "postmaster.pid").write_text(f"{zombie.pid}\n{data}/postgres\n")
        assert await ask(await embedded.start(), "SELECT 1") == 1


async def test_a_foreign_server_on_the_cluster_is_left_alone_and_named(
    embedded: EmbeddedPostgres, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_home, "LEFT_BEHIND_SECONDS", 0.1)
    await embedded.start()
    (data / "postgres.lock").unlink()  # as if it had been started by hand
    with pytest.raises(EmbeddedError, match=f"kill -INT {embedded.pid}"):
        await EmbeddedPostgres(data, settings=FAST).start()
    assert embedded.pid is not None


@pytest.mark.parametrize("name", ["x" * 100, "two words", "a,b", "über"])
async def test_a_path_that_fits_no_socket_address_gets_a_short_private_folder(
    first_day: Path, name: str
) -> None:
    data = Path(shutil.copytree(first_day, first_day.parent / name))
    embedded = EmbeddedPostgres(data, settings=FAST)
    assert await ask(await embedded.start(), "SELECT 1") == 1
    folder = socket_folder(embedded)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    await embedded.stop()
    assert not folder.exists()


@pytest.fixture
def squatted(first_day: Path, tmp_path: Path) -> Iterator[tuple[Path, list[Path]]]:
    """A data folder with a path too odd for a socket, and the places in a shared folder that somebody else has taken."""
    data = Path(shutil.copytree(first_day, tmp_path / "some data"))
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    taken = [
        Path(f"/tmp/amtp-{digest}"),
        tmp_path / "taken",
    ]  # guessed, and left by a gateway that was killed
    for place in taken:
        place.symlink_to(tmp_path)
    (data / "sockets").symlink_to(taken[1])
    yield data, taken
    taken[0].unlink()


async def test_nobody_can_guess_or_take_the_socket_folder_of_a_long_path(
    squatted: tuple[Path, list[Path]],
) -> None:
    data, taken = squatted
    embedded = EmbeddedPostgres(data, settings=FAST)
    try:
        assert await ask(await embedded.start(), "SELECT 1") == 1
        folder = socket_folder(EmbeddedPostgres(data))
        assert folder == socket_folder(embedded)
        assert folder not in taken
    finally:
        await embedded.stop()
    assert folder.name not in os.listdir(folder.parent)


async def test_a_user_s_own_runtime_folder_holds_the_socket(
    first_day: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Path(shutil.copytree(first_day, tmp_path / "some data"))
    with tempfile.TemporaryDirectory(dir="/tmp") as own:
        monkeypatch.setenv("XDG_RUNTIME_DIR", own)
        embedded = EmbeddedPostgres(data, settings=FAST)
        assert await ask(await embedded.start(), "SELECT 1") == 1
        assert socket_folder(embedded).parent in (
            Path(own),
            Path("/tmp"),
        )  # the latter where it runs as somebody else
        await embedded.stop()
        assert os.listdir(own) == []


async def test_a_cluster_of_another_major_version_is_refused_and_left_alone(
    embedded: EmbeddedPostgres, data: Path, binaries: Binaries
) -> None:
    other = 16 if binaries.major == 17 else 17
    version = data / "postgres" / "PG_VERSION"
    version.write_text(f"{other}\n")
    with pytest.raises(EmbeddedError, match=f"made by PostgreSQL {other}.* is PostgreSQL {binaries.major}"):
        await embedded.start()
    assert version.read_text() == f"{other}\n"


@pytest.mark.parametrize("name", ["data", "my data"])
async def test_the_commands_in_that_refusal_dump_and_restore_the_mail(
    first_day: Path, tmp_path: Path, name: str, binaries: Binaries
) -> None:
    data = Path(shutil.copytree(first_day, tmp_path / name))
    embedded = EmbeddedPostgres(data, settings=FAST)
    await ask(await embedded.start(), "CREATE TABLE mail AS SELECT 42 AS answer")
    await embedded.stop()
    version = data / "postgres" / "PG_VERSION"
    version.write_text("14\n")  # too old to be found, so the message names the usual folder
    with pytest.raises(EmbeddedError) as refusal:
        await embedded.start()
    version.write_text(f"{binaries.major}\n")
    _, _, commands = str(refusal.value).partition("\n")
    moved = shell(commands.replace("/usr/lib/postgresql/14/bin", str(binaries.folder)))
    assert moved.returncode == 0, moved.stderr
    assert (tmp_path / name / "postgres-14" / "PG_VERSION").exists()
    assert await ask(await embedded.start(), "SELECT answer FROM mail") == 42
    await embedded.stop()


async def test_a_folder_that_is_no_cluster_is_refused(embedded: EmbeddedPostgres, data: Path) -> None:
    (data / "postgres" / "PG_VERSION").unlink()
    with pytest.raises(EmbeddedError, match=r"is not a Postgres data folder\. Move it away"):
        await embedded.start()


async def test_a_data_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        EmbeddedError, match=r"Can't run Postgres in the data folder .*/file/data: .*Not a directory"
    ):
        await EmbeddedPostgres(tmp_path / "file" / "data").start()


async def test_what_a_crash_on_the_first_day_left_is_made_anew(tmp_path: Path) -> None:
    half = tmp_path / "data" / "postgres.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    embedded = EmbeddedPostgres(tmp_path / "data", settings=FAST)
    assert await ask(await embedded.start(), "SELECT 1") == 1
    await embedded.stop()
    assert not half.exists()


async def test_a_nearly_full_disk_is_refused_on_the_first_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_home, "FREE_BYTES_MIN", free_bytes(tmp_path) * 2)
    with pytest.raises(EmbeddedError, match=r"MB free, .* MB are needed"):
        await EmbeddedPostgres(tmp_path / "data", settings=FAST).start()


async def test_a_server_that_refuses_its_settings_is_quoted(data: Path) -> None:
    embedded = EmbeddedPostgres(data, settings={**FAST, "max_connections": "many"})
    with pytest.raises(
        EmbeddedError, match=r'(?s)ended with code 1.*invalid value for parameter "max_connections"'
    ):
        await embedded.start()
