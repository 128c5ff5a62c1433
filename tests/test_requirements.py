"""The pinned lists: what runs, and what tests need beside it, each file with its hashes."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
RUN, DEVELOPMENT = "requirements.txt", "requirements-dev.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
NEEDED = {
    RUN: [*PROJECT["project"]["dependencies"], *EXTRAS["embedded"], *PROJECT["build-system"]["requires"]],
    DEVELOPMENT: EXTRAS["dev"],
}


def pinned(name: str) -> dict[str, str]:
    """The version of each package in a list."""
    lines = (ROOT / name).read_text().replace("\\\n", " ").splitlines()
    found = [re.match(r"(\S+)==(\S+)", line) for line in lines if not line.startswith("#")]
    return {canonicalize_name(one[1]): one[2] for one in found if one}


@pytest.mark.parametrize("name", [RUN, DEVELOPMENT])
def test_everything_that_is_needed_is_pinned_in_its_range(name: str) -> None:
    versions = pinned(name)
    for requirement in map(Requirement, NEEDED[name]):
        version = versions.get(canonicalize_name(requirement.name), "none")
        assert requirement.specifier.contains(version), f"{requirement} is {version}: make lock"


@pytest.mark.parametrize("name", [RUN, DEVELOPMENT])
def test_every_line_has_hashes_and_none_says_where_to_look(name: str) -> None:
    lines = (ROOT / name).read_text().replace("\\\n", " ").splitlines()
    for line in lines:
        assert line.startswith("#") or re.fullmatch(
            r"\S+==\S+( *;.*?)?( +--hash=sha256:[0-9a-f]{64})+ *", line
        ), line
    assert "://" not in "".join(lines)


def test_what_runs_is_the_same_under_test_and_holds_no_tool_of_development() -> None:
    run, development = pinned(RUN), pinned(DEVELOPMENT)
    assert run.items() <= development.items()
    assert not run.keys() & {canonicalize_name(Requirement(text).name) for text in EXTRAS["dev"]}
