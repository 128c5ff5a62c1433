"""A disk that fills: mail is refused before Postgres stops, what was taken can be read, and room heals it."""

import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.postgres.embedded import FREE_BYTES_MIN, free_bytes
from tests.real.spoken import Told, Writer, call, until, writer
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


class Sender:
    """Sends numbers, and remembers which were taken."""

    def __init__(self, agent: Writer) -> None:
        self.agent = agent
        self.taken: list[int] = []
        self._numbers = itertools.count(1)

    def send(self) -> Told:
        number = next(self._numbers)
        told = self.agent.send(number)
        if told.status == 202:
            self.taken.append(number)
        return told

    def until(self, status: int) -> Told:
        """The first answer of this status: the disk is not looked at for every message."""

        def look() -> Told | None:
            told = self.send()
            return told if told.status == status else None

        return until(look, f"an answer {status}")


@pytest.mark.parametrize("free", [FREE_BYTES_MIN // 2, 0])
def test_mail_is_refused_while_the_disk_is_full_and_taken_again_afterwards(disk: Path, free: int) -> None:
    with served(disk) as gateway:
        alice = Sender(writer(gateway))
        assert alice.send().status == 202
        ballast = leave(disk / "data", free)

        assert alice.until(503).json["error"]["code"] == "TEMPORARY_FAILURE"
        assert {alice.send().status for _ in range(10)} == {503}
        ready = call(gateway.url, "GET", "/ready", gateway.admin_key)
        assert ready.status == 503
        assert "disk_nearly_full" in str(ready.json)
        if free:  # looking marks read, which takes a little room
            assert alice.agent.inbox() == alice.taken

        ballast.unlink()
        alice.until(202)
        assert alice.agent.inbox() == alice.taken
