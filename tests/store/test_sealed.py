"""Secrets that are used again: sealed with a key file."""

import stat
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from gateway.store.sealed import KEY_FILE, Sealer, SealError


def test_a_secret_comes_back_as_it_was_sealed_by_another_process(tmp_path: Path) -> None:
    sealed = Sealer.of(tmp_path).seal("whsec_ä")

    assert b"whsec" not in sealed
    assert Sealer.of(tmp_path).open(sealed) == "whsec_ä"


def test_the_key_file_is_ours_alone(tmp_path: Path) -> None:
    Sealer.of(tmp_path)

    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_a_new_key_on_top_seals_while_the_old_one_still_opens(tmp_path: Path) -> None:
    old = Sealer.of(tmp_path).seal("secret")
    path = tmp_path / KEY_FILE
    path.write_text(f"{Fernet.generate_key().decode()}\n{path.read_text()}")

    both = Sealer.of(tmp_path)
    path.write_text(path.read_text().splitlines()[0])

    assert both.open(old) == "secret"
    assert Sealer.of(tmp_path).open(both.seal("new")) == "new"
    with pytest.raises(SealError, match=KEY_FILE):
        Sealer.of(tmp_path).open(old)


@pytest.mark.parametrize("content", ["", "not a key"])
def test_a_broken_key_file_is_told_with_its_path(tmp_path: Path, content: str) -> None:
    (tmp_path / KEY_FILE).write_text(content)

    with pytest.raises(SealError, match=str(tmp_path)):
        Sealer.of(tmp_path)
