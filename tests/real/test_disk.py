"""A disk that fills: mail is refused before Postgres stops, what was taken can be read, and room heals it."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.embedded import FREE_BYTES_MIN, free_bytes
from tests.real.spoken import Told, call, until, writer
from tests.served import served

DISK = "720m"  # a fresh database, the room that must stay free, and some for mail


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder whose `data` is a small disk of its own."""
    data = tmp_path / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "tmpfs", data], check=True)
    yield tmp_path
    subprocess.run(["umount", "--lazy", data], check=True)


def leave(data: Path, free: int) -> Path:
    """Fills the disk until so many bytes are free."""
    ballast = data / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(free_bytes(data) - free, 1))
    return ballast


def test_mail_is_refused_while_the_disk_is_nearly_full_and_taken_again_afterwards(disk: Path) -> None:
    with served(disk) as gateway:
        alice = writer(gateway)
        assert alice.send(1).status == 202
        ballast = leave(disk / "data", FREE_BYTES_MIN // 2)

        refused = alice.send(2)
        assert (refused.status, refused.json["error"]["code"]) == (503, "TEMPORARY_FAILURE")
        ready = call(gateway.url, "GET", "/ready", gateway.admin_key)
        assert ready.status == 503
        assert "disk_nearly_full" in str(ready.json)
        assert alice.inbox() == [1], "what was taken can be read while the disk is full"

        ballast.unlink()
        assert until(lambda: _taken(alice.send(3)), "mail to be taken again").status == 202
        assert alice.inbox() == [1, 3]


def test_a_disk_without_any_room_loses_nothing_that_was_taken(disk: Path) -> None:
    with served(disk) as gateway:
        alice = writer(gateway)
        assert alice.send(1).status == 202
        ballast = leave(disk / "data", 0)
        assert {alice.send(number).status for number in range(2, 12)} == {503}
        ballast.unlink()
        assert until(lambda: _taken(alice.send(12)), "mail to be taken again").status == 202
        assert alice.inbox() == [1, 12]


def _taken(told: Told) -> Told | None:
    return told if told.status == 202 else None
