"""`amtp serve` as a process: how it starts, what signals do to it, and how it ends."""

import asyncio
import json
import os
import signal
import socket
import stat
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from typer.testing import CliRunner

from gateway.admit.api_key import mint_key
from gateway.cli import descriptors
from gateway.cli.for_operators.on_this_machine import judge_name_servers, judge_workers
from gateway.cli.main import app
from gateway.config.sections import ListenerSettings
from gateway.config.settings import Config
from gateway.config.values import HostPort
from gateway.serve import pid_file
from gateway.serve.expected import StartError
from gateway.serve.ports import check_free, first_free
from gateway.store.agents.keys import NamedKeys, NewKey
from gateway.store.audit import Audit
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.row_ids import Mint
from tests.cli.gateway_process import AMTP, amtp, environment, serving, write
from tests.served import served

SECONDS_MAX = 30


async def register(session: aiohttp.ClientSession, url: str, key: str, *names: str) -> None:
    for name in names:
        headers = {"Authorization": f"Bearer {key}"}
        async with session.post(f"{url}/v1/admin/agents", json={"address": name}, headers=headers) as answer:
            assert answer.status == 201, await answer.text()


@pytest.fixture
async def admin_key(database: Database) -> str:
    key = mint_key()
    keys = NamedKeys(database, Audit(Mint(Clock())()))
    await keys.add(NewKey(key.id, key.digest), "tests", ["admin"], "tests")
    return key.text


def test_a_gateway_for_this_machine_keeps_its_key_and_ends_at_ctrl_c(tmp_path: Path) -> None:
    with served(tmp_path) as first:
        kept = tmp_path / "data" / "admin.key"
        assert kept.read_text().strip() == first.admin_key
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    with served(tmp_path) as second:
        assert second.admin_key == first.admin_key
    assert (first.process.returncode, second.process.returncode) == (0, 0)
    assert "Traceback" not in "".join(first.lines + second.lines)


async def test_ctrl_c_while_it_starts_ends_it_in_good_order(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(AMTP, "serve", "--local", "--data", str(tmp_path), "--port", "0", "--workers", "2"),
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(SECONDS_MAX):
        while not (tmp_path / "postgres.lock").exists():
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    assert (process.returncode, out) == (0, b"")
    assert err == b"amtp: stopped before it was ready\n"
    assert pid_file.holder(tmp_path) is None


def test_a_data_folder_names_the_process_that_serves_from_it(tmp_path: Path) -> None:
    assert pid_file.holder(tmp_path) is None
    with ExitStack() as first, ExitStack() as second:
        assert pid_file.claim(tmp_path, first) is None
        assert pid_file.claim(tmp_path, second) == pid_file.holder(tmp_path) == os.getpid()
    assert pid_file.holder(tmp_path) is None


def test_a_taken_default_port_moves_to_the_next_free_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = HostPort("127.0.0.1", taken.getsockname()[1])
        assert first_free(address).port > address.port
        with pytest.raises(StartError, match="the port is taken"):
            check_free(address)


async def test_a_given_port_that_is_taken_is_one_line_and_no_gateway(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = await amtp("serve", "--local", "--data", str(tmp_path), "--port", str(port))
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert f"127.0.0.1:{port}" in err
    assert not (tmp_path / "postgres").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("domains: [acme.test]\nlissten: []\n", "lissten"),
        ("domains: [acme.test]\ndatabase: {url: 'postgresql://x@127.0.0.1:1/x'}\n", "database.url"),
    ],
)
async def test_what_keeps_it_from_starting_is_told_in_a_line(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "amtp.yaml"
    file.write_text(text + "listen: [{address: '127.0.0.1:0'}]\n")
    code, _, err = await amtp("serve", "--config", str(file))
    assert (code, len(err.splitlines())) == (1, 1), err
    assert words in err


async def test_it_reads_its_configuration_again_and_keeps_the_old_one_over_a_broken_one(
    tmp_path: Path, dsn: str
) -> None:
    async with serving(tmp_path, dsn) as gateway:
        good = gateway.file.read_text()
        gateway.file.write_text(good + "lissten: []\n")
        gateway.send(signal.SIGHUP)
        await gateway.says("config_kept", "lissten")
        gateway.file.write_text(good + "log: {format: text}\nqueue: {concurrency: 3}\n")
        gateway.send(signal.SIGHUP)
        await gateway.says('change="log.format: in effect now"')  # which shows in the line's own form
        await gateway.says('change="queue.concurrency: changed; takes effect after a restart"')
        gateway.send(signal.SIGTERM)
        assert await gateway.ended() == 0


async def test_a_stop_under_load_answers_every_request_it_took(
    tmp_path: Path, dsn: str, database: Database, admin_key: str
) -> None:
    async with serving(tmp_path, dsn) as gateway, aiohttp.ClientSession() as session:
        await register(session, gateway.url, admin_key, "alice", "bob")
        message = {"sender": "alice@acme.test", "recipients": ["bob@acme.test"], "payload": 1}
        accepted: list[str] = []
        half_answered: list[BaseException] = []
        enough = asyncio.Event()

        async def send_until_refused() -> None:
            while True:
                try:
                    answer = await session.post(f"{gateway.url}/v1/messages", json=message)
                    assert answer.status == 202
                    accepted.append((await answer.json())["message_id"])
                except aiohttp.ClientConnectorError:
                    return
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as hung_up:
                    # A connection that idled was closed as the request came: it was not taken.
                    half_answered.append(hung_up)
                    continue
                if len(accepted) > 200:
                    enough.set()

        senders = [asyncio.create_task(send_until_refused()) for _ in range(8)]
        async with asyncio.timeout(SECONDS_MAX):
            await enough.wait()
        gateway.send(signal.SIGTERM)
        assert await gateway.ended() == 0
        await asyncio.gather(*senders)
    stored = await database.fetchval("select count(*) from messages")
    assert stored == len(accepted)
    assert len(half_answered) <= len(senders)
    assert "draining" in gateway.log


READY_ANSWERS = 'amtp_requests_total{route="GET /ready",status="200"}'


async def _metrics(session: aiohttp.ClientSession, url: str) -> dict[str, float]:
    async with session.get(f"{url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
    }


async def test_two_workers_share_a_port_and_a_killed_one_is_replaced(tmp_path: Path, dsn: str) -> None:
    async with serving(tmp_path, dsn, "--workers", "2") as gateway, aiohttp.ClientSession() as session:
        await gateway.says('"event":"started"', times=2)
        first, second = gateway.children()
        assert listeners(gateway.url) == 2
        os.kill(first, signal.SIGKILL)
        await gateway.says("was killed by SIGKILL; another takes its place")
        await gateway.says('"event":"started"', times=3)
        assert second in gateway.children()
        assert listeners(gateway.url) == 2
        for _ in range(8):
            async with session.get(f"{gateway.url}/ready", headers={"Connection": "close"}) as answer:
                assert answer.status == 200
        assert (await _metrics(session, gateway.url))["amtp_database_up"] == 1
        async with asyncio.timeout(30):  # whichever worker answers soon knows what the other counted
            while (await _metrics(session, gateway.url))[READY_ANSWERS] < 8:
                pass
        gateway.send(signal.SIGHUP)
        await gateway.says("config_reloaded", times=2)
        code, out, err = await amtp("drain", "--data", str(tmp_path / "data"), "--json")
        assert (code, json.loads(out)) == (0, {"process": gateway.pid, "state": "ended"})
        assert "waiting" in err
        assert await gateway.ended() == 0


# The command itself, which waits less long than an operator would.
IMPATIENT = """
from gateway.serve import workers
from gateway.cli.main import main

workers.SILENT_SECONDS_MAX = 5.0
main()
"""


async def test_a_worker_that_hangs_is_replaced_and_told_of(tmp_path: Path, dsn: str) -> None:
    program = (sys.executable, "-c", IMPATIENT)
    async with serving(tmp_path, dsn, "--workers", "2", program=program) as gateway:
        await gateway.says('"event":"started"', times=2)
        hung, other = gateway.children()
        os.kill(hung, signal.SIGSTOP)
        await gateway.says('"event":"worker_silent"', f'"worker":{hung}')
        await gateway.says('"event":"started"', times=3)
        assert hung not in gateway.children()
        assert other in gateway.children()
        async with aiohttp.ClientSession() as session, session.get(f"{gateway.url}/metrics") as answer:
            assert 'amtp_workers_replaced_total{how="silent"} 1.0' in await answer.text()
        _, told, _ = await amtp("doctor", "--config", str(gateway.file))
        assert "2 answer; replaced since the start: 1 hung" in told


def test_the_doctor_tells_whether_the_name_servers_answer_the_gateway() -> None:
    assert not list(judge_name_servers([]))  # nothing runs here
    assert [finding.ok for finding in judge_name_servers([1.0])] == [True]
    (lost,) = judge_name_servers([1.0, 0.0])
    assert "resolv.conf" in lost.remedy


def test_the_doctor_names_a_worker_whose_loop_stands_still() -> None:
    assert judge_workers({"7": 100.0, "8": 99.5}, {}, 101.0).ok
    hangs = judge_workers({"7": 100.0, "8": 80.0}, {"ended": 2}, 101.0)
    assert not hangs.ok
    assert hangs.text.startswith("1 of 2 hang (process 8)")
    assert "2 ended" in hangs.text


async def test_the_doctor_tells_that_a_listener_takes_nobody_more(tmp_path: Path, dsn: str) -> None:
    async with serving(tmp_path, dsn) as gateway:
        port = int(gateway.url.rpartition(":")[2])
        _, told, _ = await amtp("doctor", "--config", str(gateway.file))
        assert f"ok      listener 127.0.0.1:{port} /health answers 200; /ready answers 200" in told
        write(gateway.file, dsn, port, "limits: {connections: 20}")
        gateway.send(signal.SIGHUP)
        await gateway.says("limits.connections: in effect now")
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        code, told, _ = await amtp("doctor", "--config", str(gateway.file))
        assert code == 1
        assert f"PROBLEM listener 127.0.0.1:{port} /health answers 429 RATE_LIMIT_EXCEEDED" in told
        assert "connection_refused in the log" in told
        for _, writer in held:
            writer.close()


def few_descriptors(soft: int, hard: int) -> tuple[str, ...]:
    """What a command is begun with so that it may have so many open files."""
    return ("sh", "-c", f'ulimit -Sn {soft}; ulimit -Hn {hard}; exec "$@"', "sh")


def test_a_gateway_takes_all_descriptors_it_may_have_and_says_when_they_are_few(tmp_path: Path) -> None:
    with served(tmp_path, before=few_descriptors(256, 4000)) as gateway:
        limit = descriptors.limit_of(gateway.process.pid)
        variables = {"AMTP_DEVELOPMENT": "true", "AMTP_DATA": str(tmp_path / "data")}
        told = CliRunner().invoke(app, ["doctor"], env=variables).stdout
    assert limit == 4000
    (warning,) = [line for line in gateway.lines if "4000 files and connections may be open" in line]
    assert "LimitNOFILE" in warning
    assert "PROBLEM descriptors" in told


def test_descriptors_are_enough_where_every_listener_for_clients_can_be_full() -> None:
    clients = ListenerSettings(HostPort("127.0.0.1", 8080), roles=("public", "agents"))
    operators = ListenerSettings(HostPort("127.0.0.1", 8025), roles=("admin",))
    config = replace(Config(), listen=(clients, operators))
    assert descriptors.shortage(config, 13_000) == ""
    assert "22056 are needed" in descriptors.shortage(replace(config, listen=(clients, clients)), 13_000)


def listeners(url: str) -> int:
    """Sockets that listen on the port."""
    port = f":{int(url.rpartition(':')[2]):04X} "
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(port.strip()) and row[3] == "0A" for row in rows)


async def test_workers_hold_their_port_and_die_with_a_parent_that_is_killed(tmp_path: Path, dsn: str) -> None:
    async with serving(tmp_path, dsn, "--workers", "2") as gateway:
        await gateway.says('"event":"started"', times=2)
        other = tmp_path / "other.yaml"
        write(other, dsn, int(gateway.url.rpartition(":")[2]))
        code, _, err = await amtp("serve", "--config", str(other), "--workers", "2")
        assert code == 1
        assert "the port is taken" in err
        endings = [os.pidfd_open(pid) for pid in gateway.children()]
        assert len(endings) == 2
        gateway.send(signal.SIGKILL)
        for ending in endings:
            await readable(ending)
            os.close(ending)


async def readable(descriptor: int) -> None:
    """Waits until there is news on it; of a process, that it has ended."""
    loop, news = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, news.set)
    async with asyncio.timeout(SECONDS_MAX):
        await news.wait()
    loop.remove_reader(descriptor)
