"""The lines of README.md and docs/agents.md work as they stand, against a gateway started as they say."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.served import AMTP, ROOT, Served, served

DEFAULT_URL = "http://127.0.0.1:8080"  # tests run side by side, each on a port of its own
SECONDS_MAX = 60


def lines_of(fence: str, page: str = "README.md") -> str:
    """The page's blocks with this info string, one after the other."""
    blocks = re.findall(rf"^```{re.escape(fence)}\n(.*?)^```$", (ROOT / page).read_text(), re.M | re.S)
    assert blocks, f"{page} has no block of {fence}"
    return "".join(blocks)


def run(command: list[str], script: str, gateway: Served, folder: Path, path: str) -> str:
    """What the lines print, run where `data/admin.key` lies."""
    environment = {"PATH": path, "HOME": str(folder), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(
        command,
        input=script.replace(DEFAULT_URL, gateway.url),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


@pytest.fixture(scope="module")
def gateway(folder: Path) -> Iterator[Served]:
    with served(folder) as running:
        yield running


@pytest.fixture(scope="module")
def path(folder: Path) -> str:
    """Where the lines find `amtp`, and a curl that a fresh machine may lack."""
    tools = folder / "tools"
    tools.mkdir()
    curl = tools / "curl"
    curl.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.tiny_curl "$@"\n')
    curl.chmod(0o755)
    return os.pathsep.join([str(tools), str(Path(AMTP).parent), os.environ["PATH"]])


def answers_in(printed: str) -> list[Any]:
    """One JSON document after the other."""
    decoder, answers = json.JSONDecoder(), []
    while printed := printed.lstrip():
        answer, end = decoder.raw_decode(printed)
        answers.append(answer)
        printed = printed[end:]
    return answers


def check_curl(printed: str) -> None:
    """The answers to the lines with curl: a receipt, then an inbox."""
    receipt, page = answers_in(printed)
    assert receipt["status"] == "delivered"
    assert [message["message_id"] for message in page["messages"]] == [receipt["message_id"]]
    assert page["messages"][0]["payload"] == {"text": "Hello, Bob."}


def test_the_lines_with_curl_send_and_read_a_message(gateway: Served, folder: Path, path: str) -> None:
    check_curl(run(["sh", "-eu"], lines_of("sh curl"), gateway, folder, path))


def test_a_first_message_takes_under_ten_lines() -> None:
    assert len(lines_of("sh curl").splitlines()) < 10


def test_the_lines_with_the_command_send_and_read_a_message(gateway: Served, folder: Path, path: str) -> None:
    printed = run(["sh", "-eu"], lines_of("sh cli"), gateway, folder, path)
    assert "Hello, Frank." in printed


def test_the_lines_with_python_send_read_and_acknowledge_a_message(
    gateway: Served, folder: Path, path: str
) -> None:
    printed = run([sys.executable, "-"], lines_of("python"), gateway, folder, path)
    assert printed == "carol@localhost {'text': 'Hello, Dave.'}\n"


def test_the_lines_for_authors_of_agents_send_read_acknowledge_and_answer(
    gateway: Served, folder: Path, path: str
) -> None:
    printed = run(["sh", "-eu"], lines_of("sh run", "docs/agents.md"), gateway, folder, path)
    sent, page, acknowledged, reply, status, file = answers_in(printed)
    assert sent["status"] == reply["status"] == status["status"] == "delivered"
    assert page["messages"][0]["gateway"]["lease"]
    assert acknowledged["acknowledged"] == 1
    assert file == {"apples": 3}


def test_the_admin_key_is_kept_for_its_owner_alone(gateway: Served, folder: Path) -> None:
    kept = folder / "data" / "admin.key"
    assert kept.read_text().strip() == gateway.admin_key
    assert kept.stat().st_mode & 0o777 == 0o600
