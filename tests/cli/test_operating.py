"""`amtp migrate`, `send`, `status` and `doctor`: what they print, and how they end."""

import json
import os
import signal
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import trustme
from cryptography.fernet import Fernet
from typer.testing import CliRunner

from gateway import __version__
from gateway.cli.for_operators.doctor import judge_clock
from gateway.cli.main import app
from gateway.store.sealed import SealError
from tests.cli.command import amtp, by_key
from tests.conftest import Server
from tests.served import served
from tests.world import World

# Sending


async def test_a_message_is_sent_as_said_and_its_status_told(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        sent = await amtp(
            by_key(alice),
            *("send", "--from", alice.address, "--to", bob.address, "--subject", "An [red]order"),
            *("--payload", '{"price": 1.50}', "--header", "priority=high", "--header", "ttl=60"),
            *("--idempotency-key", "a" * 16, "--json"),
        )
        message_id = json.loads(sent.stdout)["message_id"]
        (message,) = await bob.inbox()
        told = await amtp(by_key(alice), "status", message_id)
        same = await amtp(by_key(alice), "status", message_id, "--sender", alice.address, "--json")

    assert sent.exit_code == told.exit_code == 0
    assert message["message_id"] == message_id
    assert message["headers"] == {"priority": "high", "ttl": 60}
    assert (message["payload"], message["subject"]) == ({"price": 1.50}, "An [red]order")
    assert "delivered" in told.stdout
    assert bob.address in told.stdout
    assert json.loads(same.stdout)["status"] == "delivered"


async def test_a_recipient_that_is_refused_is_named_and_the_command_fails(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        words = ("send", "--from", alice.address, "--to", bob.address, "--to", "nobody@acme.test")
        sent = await amtp(by_key(alice), *words, "--payload", "-", feed='"Hello"')
        (message,) = await bob.inbox()

    assert sent.exit_code == 1
    assert "nobody@acme.test failed: " in sent.stdout
    assert message["payload"] == "Hello"


async def test_a_refusal_is_an_error_with_its_code(world: World) -> None:
    async with world.gateway() as gateway:
        alice = await gateway.register("alice")
        sent = await amtp(by_key(alice), "send", "--from", "bob@acme.test", "--to", alice.address)
        told = await amtp(by_key(alice), "status", "none", "--json")

    assert (sent.exit_code, told.exit_code) == (1, 1)
    assert "SENDER_NOT_ALLOWED" in sent.stderr
    assert json.loads(told.stdout)["error"]["code"] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("--payload", "Hello"), "takes quotes of its own"),
        (("--payload", "@/no/such/file"), "can't be read"),
        (("--header", "priority"), "NAME=VALUE"),
    ],
)
async def test_what_is_no_message_is_wrong_usage(words: tuple[str, ...], remedy: str) -> None:
    done = await amtp({}, "send", "--from", "a@acme.test", "--to", "b@acme.test", *words)
    assert (done.exit_code, remedy in done.stderr) == (2, True)


async def test_a_gateway_that_is_away_is_exit_code_3(tmp_path: Path) -> None:
    file = tmp_path / "payload.json"
    file.write_text("[1, 2]")
    words = ("--from", "a@acme.test", "--to", "b@acme.test", "--payload", f"@{file}")
    done = await amtp({"AMTP_GATEWAY": "http://127.0.0.1:1"}, "send", *words)
    assert done.exit_code == 3


async def test_the_command_tells_its_version_and_its_exit_codes() -> None:
    assert (await amtp({}, "--version")).stdout == f"amtp {__version__}\n"
    assert "3 no gateway answered" in (await amtp({}, "--help")).stdout


# The database


@pytest.fixture
async def empty(server: Server) -> AsyncIterator[str]:
    """The DSN of a database without a schema."""
    connection = await asyncpg.connect(server.dsn_of("postgres"))
    await connection.execute("create database bare")
    await connection.close()
    yield server.dsn_of("bare")
    await server.drop(server.dsn_of("bare"))


async def test_migrate_says_what_lacks_without_a_trace_and_then_applies_it(empty: str) -> None:
    variables = {"AMTP_DATABASE_URL": empty, "AMTP_DOMAINS": "acme.test"}
    lacking = await amtp(variables, "migrate", "--check", "--json")
    connection = await asyncpg.connect(empty)
    tables = await connection.fetchval("select count(*) from pg_tables where schemaname = 'public'")
    await connection.close()
    applied = await amtp(variables, "migrate", "--json")
    good = await amtp(variables, "migrate", "--check")

    assert (lacking.exit_code, applied.exit_code, good.exit_code) == (1, 0, 0)
    assert tables == 0
    assert json.loads(lacking.stdout)["pending"] == json.loads(applied.stdout)["applied"] != []
    assert "up to date" in good.stdout


async def test_a_database_that_is_away_is_told_with_its_cause() -> None:
    variables = {"AMTP_DATABASE_URL": "postgresql://amtp@127.0.0.1:1/amtp", "AMTP_DOMAINS": "acme.test"}
    for words in (("migrate",), ("migrate", "--check"), ("admin-keys", "list")):
        done = await amtp(variables, *words)
        assert done.exit_code == 1
        assert "ConnectionRefusedError" in str(done.exception)
        assert "database.url" in str(done.exception)
        assert "accepted" not in str(done.exception)


async def test_a_gateway_with_another_secrets_key_does_not_start_and_the_doctor_says_why(
    world: World, tmp_path: Path
) -> None:
    async with world.gateway():
        pass
    with pytest.raises(SealError, match="copy the file"):
        async with world.gateway(data=tmp_path / "other"):
            pass

    variables = {
        "AMTP_DATABASE_URL": world.dsn,
        "AMTP_DOMAINS": "acme.test",
        "AMTP_DATA": str(tmp_path / "other"),
    }
    code, found = await findings(variables)
    assert code == 1
    assert "copy the file" in found["sealed secrets"]["remedy"]
    accepted = await amtp(variables, "migrate", "--accept-key")
    assert accepted.exit_code == 0
    async with world.gateway(data=tmp_path / "other"):
        assert (await findings(variables))[1]["sealed secrets"]["ok"]


# The doctor


def test_the_doctor_does_not_take_its_own_gateway_for_another_one_when_postgres_is_down(
    tmp_path: Path,
) -> None:
    with served(tmp_path) as gateway:
        cluster = tmp_path / "data" / "postgres"
        (cluster / "PG_VERSION").rename(tmp_path / "version")  # it can't come back
        os.kill(int((cluster / "postmaster.pid").read_text().splitlines()[0]), signal.SIGKILL)
        done = CliRunner().invoke(app, ["doctor", "--json", "--data", str(tmp_path / "data")])
        (tmp_path / "version").rename(cluster / "PG_VERSION")

    (database,) = [each for each in json.loads(done.stdout)["findings"] if each["name"] == "database"]
    assert f"(process {gateway.process.pid}) doesn't answer" in database["text"]
    assert "log" in database["remedy"]
    assert "another" not in database["text"] + database["remedy"]


async def findings(variables: dict[str, str]) -> tuple[int, dict[str, dict[str, Any]]]:
    done = await amtp(variables, "doctor", "--json")
    answer = json.loads(done.stdout)
    assert answer["ok"] == (done.exit_code == 0)
    return done.exit_code, {finding["name"]: finding for finding in answer["findings"]}


async def test_the_doctor_finds_a_good_house_good(dsn: str, tmp_path: Path) -> None:
    variables = {"AMTP_DATABASE_URL": dsn, "AMTP_DOMAINS": "acme.test", "AMTP_DATA": str(tmp_path)}
    await amtp(variables, "admin-keys", "add", "laptop")
    code, found = await findings(variables)
    text = await amtp(variables, "doctor")

    assert (code, text.exit_code) == (0, 0), found
    assert {"configuration", "disk", "database", "clock", "schema", "admin keys"} <= found.keys()
    assert "laptop" in found["admin keys"]["text"]
    assert "PROBLEM" not in text.stdout


async def test_the_doctor_names_a_remedy_for_each_problem(dsn: str, tmp_path: Path) -> None:
    (tmp_path / "admin.key").write_text("no key\n")
    (tmp_path / "secrets.key").touch(0o644)
    (tmp_path / "secrets.key").write_text("bm90IGEga2V5\n")
    issued = trustme.CA().issue_cert("other.test", not_after=datetime.now(UTC) + timedelta(days=3))
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "tls.pem")
    variables = {
        "AMTP_DATABASE_URL": dsn,
        "AMTP_DOMAINS": "acme.test",
        "AMTP_DATA": str(tmp_path),
        "AMTP_TLS_CERTIFICATE_FILE": str(tmp_path / "tls.pem"),
        "AMTP_TLS_KEY_FILE": str(tmp_path / "tls.pem"),
        "AMTP_LISTEN": json.dumps([{"address": "127.0.0.1:8443", "tls": True}]),
    }
    code, found = await findings(variables)

    assert code == 1
    problems = {name for name, finding in found.items() if not finding["ok"]}
    assert problems == {"admin.key", "secrets.key", "certificate", "certificate key", "admin keys"}
    assert "renew it" in found["certificate"]["text"]
    assert "not for acme.test" in found["certificate"]["text"]
    assert "admin-keys add" in found["admin keys"]["remedy"]
    text = await amtp(variables, "doctor")
    assert "-> amtp admin-keys add NAME" in text.stdout


async def test_the_doctor_sees_a_key_file_that_others_may_read(dsn: str, tmp_path: Path) -> None:
    variables = {"AMTP_DATABASE_URL": dsn, "AMTP_DOMAINS": "acme.test", "AMTP_DATA": str(tmp_path)}
    made = json.loads((await amtp(variables, "admin-keys", "add", "laptop", "--json")).stdout)
    (tmp_path / "admin.key").write_text(made["key"])
    (tmp_path / "secrets.key").write_bytes(Fernet.generate_key())
    for name in ("admin.key", "secrets.key"):
        (tmp_path / name).chmod(0o644)
    _, found = await findings(variables)
    for name in ("admin.key", "secrets.key"):
        assert "can be read by others (mode 644)" in found[name]["text"]
        assert found[name]["remedy"] == f"chmod 600 {tmp_path / name}"


async def test_a_key_file_that_others_may_read_is_told_at_the_start(world: World, tmp_path: Path) -> None:
    async with world.gateway() as gateway:
        pass
    assert "key_file_exposed" not in gateway.log.getvalue()
    (tmp_path / "secrets.key").chmod(0o604)
    async with world.gateway() as gateway:
        pass
    assert f"chmod 600 {tmp_path}/secrets.key" in gateway.log.getvalue()


def test_the_operator_s_key_of_serve_local_is_closed_and_told_of(tmp_path: Path) -> None:
    with served(tmp_path):
        pass
    (tmp_path / "data" / "admin.key").chmod(0o640 if os.geteuid() else 0o644)
    with served(tmp_path) as gateway:
        pass
    assert any("could be read by others" in line for line in gateway.lines)
    assert stat.S_IMODE((tmp_path / "data" / "admin.key").stat().st_mode) == 0o600


async def test_the_doctor_tells_a_broken_configuration_and_a_database_that_is_away(tmp_path: Path) -> None:
    away = {"AMTP_DOMAINS": "acme.test", "AMTP_DATA": str(tmp_path / "none")}
    code, found = await findings(away | {"AMTP_DATABASE_URL": "postgresql://amtp@127.0.0.1:1/amtp"})
    assert code == 1
    assert "database.url" in found["database"]["remedy"]
    code, found = await findings({"AMTP_LOG_LEVEL": "loud"})
    assert (code, list(found)) == (1, ["configuration"])
    code, found = await findings(away)
    assert (code, found["database"]["text"]) == (0, "not there yet; amtp serve makes it")


def test_only_a_clock_that_no_delay_explains_is_off() -> None:
    asked = datetime(2026, 1, 1, tzinfo=UTC)
    answered = asked + timedelta(seconds=10)
    assert judge_clock(asked + timedelta(seconds=9), asked, answered).ok
    assert judge_clock(answered + timedelta(seconds=1), asked, answered).ok
    assert not judge_clock(answered + timedelta(seconds=3), asked, answered).ok
    assert not judge_clock(asked - timedelta(seconds=3), asked, answered).ok
