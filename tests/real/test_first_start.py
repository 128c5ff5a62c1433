"""Gateways that start at the same moment on one empty database: one schema, and all of them serve."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import copy

import asyncpg

from gateway.postgres.embedded import EmbeddedPostgres
from gateway.store.migrate import migrations
from gateway.store.sealed import KEY_FILE, Sealer
from tests.ports import free_port
from tests.real.spoken import call, until
from tests.served import AMTP, STOP_SECONDS

GATEWAYS = 3


@contextmanager
def gateway(folder: Path, dsn: str, port: int) -> Iterator[str]:
    """`amtp serve` on that database, from a configuration of its own; its URL at once."""
    (folder / "data").mkdir(parents=True, mode=0o700)
    copy(folder.parent / KEY_FILE, folder / "data" / KEY_FILE)  # gateways on one database share their key
    (folder / "amtp.yaml").write_text(
        f"domains: [acme.test]\ndata: data\ndatabase:\n  url: {dsn}\n"
        f"listen:\n  - address: 127.0.0.1:{port}\n    roles: [all]\n"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AMTP_")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([AMTP, "serve"], cwd=folder, env=clean, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)
    assert process.returncode == 0, (folder / "log").read_text()


async def test_three_gateways_that_start_at_once_on_an_empty_database_make_one_schema(tmp_path: Path) -> None:
    Sealer.of(tmp_path)
    server = EmbeddedPostgres(tmp_path / "pg")
    dsn = await server.start()
    try:
        await asyncio.to_thread(all_become_ready, tmp_path, dsn)
        connection = await asyncpg.connect(dsn)
        done = [row["number"] for row in await connection.fetch("select number from migrations order by 1")]
        await connection.close()
    finally:
        await server.stop()
    assert done == [migration.number for migration in migrations()]


def all_become_ready(folder: Path, dsn: str) -> None:
    with ExitStack() as stack:
        urls = [
            stack.enter_context(gateway(folder / f"gateway{number}", dsn, free_port()))
            for number in range(GATEWAYS)
        ]
        for url in urls:
            until(lambda url=url: call(url, "GET", "/ready").status == 200, f"{url} to be ready")  # type: ignore[misc]
