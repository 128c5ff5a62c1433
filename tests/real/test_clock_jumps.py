"""The machine's clock jumps under a running gateway: nothing is lost, doubled or stuck."""

import asyncio
from datetime import datetime
from pathlib import Path

import pytest

from gateway.postgres.embedded import EmbeddedPostgres
from tests.real.spoken import call, until, writer
from tests.served import served

HOUR, DAY = 3600, 86_400


@pytest.mark.parametrize("jump_seconds", [HOUR, -HOUR, -2 * DAY, DAY])
async def test_mail_keeps_its_way_when_the_clock_jumps(tmp_path: Path, jump_seconds: int) -> None:
    """The gateway's clock alone is turned, so that it disagrees with the database's as well."""
    server = EmbeddedPostgres(tmp_path / "pg")
    dsn = await server.start()
    try:
        await asyncio.to_thread(send_through_a_jump, tmp_path, dsn, jump_seconds)
    finally:
        await server.stop()


def send_through_a_jump(folder: Path, dsn: str, jump_seconds: int) -> None:
    setting = folder / "clock"
    setting.write_text("+0")
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    environment = {
        "AMTP_DATABASE_URL": dsn,
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(setting),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with served(folder, environment=environment) as gateway:
        alice = writer(gateway)
        before = clock_of(gateway.url)
        assert [alice.send(number).status for number in (1, 2, 3)] == [202] * 3

        setting.write_text(f"{jump_seconds:+d}")
        until(lambda: abs(clock_of(gateway.url) - before).total_seconds() > HOUR / 2, "the jump")
        assert [alice.send(number).status for number in (4, 5, 6)] == [202] * 3
        setting.write_text("+0")
        assert [alice.send(number).status for number in (7, 8, 9)] == [202] * 3

        assert sorted(alice.inbox()) == list(range(1, 10))
        assert call(gateway.url, "GET", "/ready", gateway.admin_key).status == 200


def clock_of(url: str) -> datetime:
    return datetime.fromisoformat(call(url, "GET", "/health").json["timestamp"])
