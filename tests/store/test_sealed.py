"""Secrets that are used again: sealed with a key file."""

import stat
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from gateway.store.database import Database
from gateway.store.sealed import KEY_FILE, Sealer, SealError, accept, agree


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


async def test_another_key_file_on_the_same_database_is_refused_until_it_is_accepted(
    tmp_path: Path, database: Database
) -> None:
    ours, other = Sealer.of(tmp_path), Sealer.of(folder(tmp_path / "other"))
    await agree(database, ours, tmp_path)
    await agree(database, Sealer.of(tmp_path), tmp_path)
    with pytest.raises(SealError, match=r"other/secrets\.key.*copy the file.*accept-key"):
        await agree(database, other, tmp_path / "other")

    await accept(database, other)
    await agree(database, other, tmp_path / "other")


async def test_a_key_file_is_judged_by_the_secrets_from_before_there_was_anything_to_judge_by(
    tmp_path: Path, database: Database
) -> None:
    ours, other = Sealer.of(tmp_path), Sealer.of(folder(tmp_path / "other"))
    await database.execute(
        "insert into agents (domain, local, created_at, push_secrets) values ('acme.test', 'a', now(), $1)",
        ours.seal("whsec"),
    )
    with pytest.raises(SealError):
        await agree(database, other, tmp_path / "other")
    await agree(database, ours, tmp_path)


async def test_an_old_key_may_go_once_a_new_one_seals(tmp_path: Path, database: Database) -> None:
    path = tmp_path / KEY_FILE
    await agree(database, Sealer.of(tmp_path), tmp_path)
    fresh = Fernet.generate_key().decode()
    path.write_text(f"{fresh}\n{path.read_text()}")
    await agree(database, Sealer.of(tmp_path), tmp_path)
    path.write_text(fresh)
    await agree(database, Sealer.of(tmp_path), tmp_path)


def folder(path: Path) -> Path:
    path.mkdir()
    return path
