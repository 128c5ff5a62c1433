"""`amtp admin-keys` on the database itself."""

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import Result

from gateway.admit.api_key import digest_of, parse_key
from gateway.protocol.timestamp import parse_timestamp
from gateway.store.agents.keys import find_keys
from gateway.store.audit import verify
from gateway.store.database import Database
from tests.cli import command


async def amtp(dsn: str, *words: str) -> Result:
    return await command.amtp({"AMTP_DATABASE_URL": dsn, "AMTP_DOMAINS": "acme.test"}, "admin-keys", *words)


async def test_an_added_key_is_in_force_and_only_its_digest_is_kept(dsn: str, database: Database) -> None:
    added = await amtp(dsn, "add", "laptop", "--json")
    made = json.loads(added.stdout)
    key = parse_key(made["key"])
    assert key is not None
    _, live = await find_keys(database, [key.id])

    assert added.exit_code == 0
    assert live[key.id].digest == digest_of(key.text)
    assert live[key.id].scopes == {"admin"}
    assert await verify(database) == []


async def test_a_key_is_listed_without_itself_and_revoked_by_name(dsn: str, database: Database) -> None:
    made = json.loads((await amtp(dsn, "add", "robot", "--scope", "submit:Bob@ACME.test", "--json")).stdout)
    listed = await amtp(dsn, "list")
    revoked = await amtp(dsn, "revoke", "robot")
    again = await amtp(dsn, "revoke", "robot")

    assert made["scopes"] == ["submit:bob@acme.test"]
    assert "robot" in listed.stdout
    assert made["key"] not in listed.stdout
    assert (revoked.exit_code, again.exit_code) == (0, 1)
    assert "robot" in again.stderr
    assert (await find_keys(database, [made["id"]]))[1][made["id"]].ended == "revoked_key"
    shown = json.loads((await amtp(dsn, "list", "--json")).stdout)["keys"]
    assert shown[0]["revoked_at"] is not None


@pytest.mark.parametrize(
    "words",
    [
        ("add", "two words"),
        ("add", ""),
        ("add", "robot", "--scope", "root"),
        ("add", "robot", "--scope", "submit:nobody"),
        ("add", "robot", "--scope", "peer:"),
        ("add", "robot", "--scope", "peer:far.test", "--scope", "peer:near.test"),
    ],
)
async def test_wrong_usage_ends_with_2_and_makes_no_key(
    dsn: str, database: Database, words: tuple[str, ...]
) -> None:
    assert (await amtp(dsn, *words)).exit_code == 2
    assert await database.fetchval("select count(*) from keys") == 0


def test_a_data_folder_without_a_running_gateway_is_opened_for_the_command(tmp_path: Path) -> None:
    def amtp(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from gateway.cli.main import main; main()", "admin-keys", *words]
        return subprocess.run([*command, "--data", str(tmp_path / "data")], capture_output=True, text=True)

    added, again, listed = amtp("add", "laptop"), amtp("add", "laptop"), amtp("list", "--json")

    assert (added.returncode, again.returncode) == (0, 1), added.stderr + again.stderr
    assert "laptop" in again.stderr
    assert "Traceback" not in again.stderr
    assert [key["name"] for key in json.loads(listed.stdout)["keys"]] == ["laptop"]


async def test_a_key_may_be_made_for_a_while_and_says_when_it_ends(dsn: str, database: Database) -> None:
    await amtp(dsn, "add", "guest", "--for", "90d")
    (shown,) = json.loads((await amtp(dsn, "list", "--json")).stdout)["keys"]
    left = parse_timestamp(shown["expires_at"], "expires_at") - parse_timestamp(
        shown["created_at"], "created_at"
    )

    assert left == timedelta(days=90)
    assert shown["last_used_at"] is None
    assert (await amtp(dsn, "add", "other", "--for", "soon")).exit_code == 2
