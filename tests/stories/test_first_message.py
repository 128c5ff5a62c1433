"""The first message, as the README has it: one command starts a gateway, curl does the rest."""

import json
import os
import shlex
import subprocess
import time
from pathlib import Path

from tests.served import AMTP, Served, served


def test_what_serve_says_to_try_works_word_for_word(tmp_path: Path) -> None:
    with served(tmp_path) as gateway:
        commands = curl_lines(gateway)
        answers = [json.loads(run(command)) for command in commands]
        alice, bob, receipt, inbox = answers
        assert alice["agent"]["address"] == "alice@localhost"
        assert bob["agent"]["address"] == "bob@localhost"
        assert receipt["status"] == "delivered"
        assert [each["payload"] for each in inbox["messages"]] == ["Hello, Bob"]
        assert inbox["messages"][0]["message_id"] == receipt["message_id"]

        as_bob = {"AMTP_GATEWAY": gateway.url, "AMTP_KEY": bob["agent"]["api_key"]}
        words = "send --from bob@localhost --to alice@localhost --subject [red]Hi --payload - --json"
        sent = json.loads(run(f"{AMTP} {words}", as_bob, feed='{"n": 1.50}'))
        status = run(f"{AMTP} status {sent['message_id']}", as_bob)
        assert "delivered" in status
        assert "alice@localhost" in status
        as_alice = {"AMTP_GATEWAY": gateway.url, "AMTP_KEY": alice["agent"]["api_key"]}
        assert "[red]Hi" in run(f"{AMTP} inbox alice@localhost", as_alice)
        assert '{"n": 1.50}' in run(f"curl -sS {gateway.url}/v1/inbox/alice@localhost")


def curl_lines(gateway: Served) -> list[str]:
    """The commands it printed below its key."""
    deadline = time.monotonic() + 10
    lines: list[str] = []
    while len(lines) < 4 and time.monotonic() < deadline:
        lines = [line.strip() for line in list(gateway.lines) if line.startswith("  curl ")]
    assert len(lines) == 4, gateway.lines
    return [line.replace("curl ", "curl -sS ", 1) for line in lines]


def run(command: str, changes: dict[str, str] | None = None, feed: str = "") -> str:
    environment = os.environ | {"COLUMNS": "200"} | (changes or {})
    done = subprocess.run(
        ["sh", "-c", command], input=feed, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, f"{shlex.quote(command)}: {done.stderr}"
    return done.stdout
