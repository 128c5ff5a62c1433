"""The lines of README.md and docs/agents.md work as they stand, against a gateway started as they say."""

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
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
    environment["AMTP_GATEWAY"] = gateway.url  # what is at the usual port needs no name
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


def register(gateway: Served, *names: str) -> None:
    for name in (*names, "buyer"):
        body = json.dumps({"address": f"{name}@localhost"}).encode()
        headers = {"Authorization": f"Bearer {gateway.admin_key}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{gateway.url}/v1/admin/agents", body, headers)
        try:
            urllib.request.urlopen(request).close()
        except urllib.error.HTTPError as refusal:
            if refusal.code != 409:  # another test was first
                raise


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


@pytest.fixture(scope="module")
def by_hand(gateway: Served, folder: Path, path: str) -> str:
    """What the lines with the command print; those with Python go on from there."""
    return run(["sh", "-eu"], lines_of("sh cli"), gateway, folder, path)


def test_the_lines_with_the_command_send_and_read_a_message(by_hand: str) -> None:
    assert "Hello, Frank." in by_hand


def test_the_lines_with_python_read_acknowledge_and_answer_it(
    by_hand: str, gateway: Served, folder: Path, path: str
) -> None:
    printed = run([sys.executable, "-"], lines_of("python"), gateway, folder, path)
    assert printed == "erin@localhost {'text': 'Hello, Frank.'}\n{'text': 'Hello, Erin.'}\n"


def test_from_nothing_to_two_agents_that_talk_takes_under_ten_lines(
    gateway: Served, folder: Path, path: str
) -> None:
    lines = lines_of("sh agents")
    assert len(["make run", *lines.splitlines()]) < 10
    assert "Sold for 70.\n" in run(["sh", "-eu"], lines, gateway, folder, path)


def test_the_first_agent_of_ones_own_answers(gateway: Served, folder: Path, path: str) -> None:
    register(gateway, "parrot")
    (folder / "parrot.py").write_text(lines_of("python parrot"))
    (asked,) = re.findall(r"`(amtp send .*--wait 10)`", (ROOT / "README.md").read_text())
    lines = f"""
        amtp agent run parrot:agent &
        {asked}
        kill $!
    """
    assert '"you said": "Hello"' in run(["sh", "-eu"], lines, gateway, folder, path)


def test_the_lines_for_authors_with_python_run_an_agent_and_ask_it(
    gateway: Served, folder: Path, path: str
) -> None:
    register(gateway, "shop", "archive")
    (folder / "shop.py").write_text(lines_of("python shop", "docs/agents.md"))
    (folder / "asking.py").write_text(lines_of("python asking", "docs/agents.md"))
    (folder / "report.txt").write_text("all is well")
    lines = """
        amtp agent run shop:agent &
        python asking.py
        kill $!
    """
    assert "shop@localhost says yes: ['apples']" in run(["sh", "-eu"], lines, gateway, folder, path)


def test_the_lines_for_authors_of_agents_send_read_acknowledge_and_answer(
    gateway: Served, folder: Path, path: str
) -> None:
    printed = run(["sh", "-eu"], lines_of("sh run", "docs/agents.md"), gateway, folder, path)
    sent, page, acknowledged, reply, answered, status, file = answers_in(printed)
    assert sent["status"] == reply["status"] == status["status"] == "delivered"
    assert page["messages"][0]["gateway"]["lease"]
    assert acknowledged["acknowledged"] == 1
    assert len(answered["sent"]) == 2
    assert file == {"apples": 3}


def test_the_admin_key_is_kept_for_its_owner_alone(gateway: Served, folder: Path) -> None:
    kept = folder / "data" / "admin.key"
    assert kept.read_text().strip() == gateway.admin_key
    assert kept.stat().st_mode & 0o777 == 0o600
