"""`amtp agent run`: agents in modules of their authors, of both faces."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli.main import app
from gateway.client.agent import Agent
from tests.world import Agent as Registered
from tests.world import World

PATIENCE_SECONDS = 30.0
WORKS = """
from gateway.client.{face} import Agent
agent = Agent("bob@acme.test")

@agent.on()
{define} work(message):
    print("begun", flush=True)
    {sleep}
    return message.payload
"""
FACES = {
    "agent": ("async def", "import asyncio; await asyncio.sleep(0.3)"),
    "sync": ("def", "import time; time.sleep(0.3)"),
}


@asynccontextmanager
async def at_work(bob: Registered, folder: Path, source: str) -> AsyncIterator[asyncio.subprocess.Process]:
    (folder / "mine.py").write_text(source)
    environment = {**os.environ, "AMTP_GATEWAY": bob.gateway.url, "AMTP_KEY": bob.key}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "agent", "run", "mine:agent"),
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[3])},
        cwd=folder,
        stdout=pipe,
        stderr=pipe,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def line_of(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        return (await process.stdout.readline()).decode().strip()


@pytest.mark.parametrize("face", sorted(FACES))
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_told_to_stop_an_agent_finishes_what_it_began(
    world: World, tmp_path: Path, face: str, number: signal.Signals
) -> None:
    define, sleep = FACES[face]
    async with world.gateway() as gateway:
        registered, bob = await gateway.register("alice"), await gateway.register("bob")
        async with (
            Agent(registered.address, key=registered.key, gateway=gateway.url) as alice,
            at_work(bob, tmp_path, WORKS.format(face=face, define=define, sleep=sleep)) as process,
        ):
            assert await line_of(process) == "bob@acme.test is at work. Ctrl-C ends it."
            asking = asyncio.create_task(alice.request("bob@acme.test", "hello"))
            assert await line_of(process) == "begun"
            process.send_signal(number)
            assert (await asking).payload == "hello"
            async with asyncio.timeout(PATIENCE_SECONDS):
                _, err = await process.communicate()
            assert (process.returncode, b"Traceback" in err) == (0, False)


async def test_told_twice_it_gives_back_what_it_began(world: World, tmp_path: Path) -> None:
    source = WORKS.format(face="agent", define="async def", sleep="import asyncio; await asyncio.sleep(60)")
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        await alice.send(bob.address)
        async with at_work(bob, tmp_path, source) as process:
            assert [await line_of(process) for _ in range(2)][1] == "begun"
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE_SECONDS):
                _, err = await process.communicate()
            assert (process.returncode, b"Traceback" in err) == (1, False)
        (message,) = await bob.inbox()
        assert "lapses" not in message["gateway"]


async def test_an_agent_that_may_not_read_its_inbox_says_why(world: World, tmp_path: Path) -> None:
    source = WORKS.format(face="agent", define="async def", sleep="pass").replace("bob@", "alice@")
    async with world.gateway() as gateway:
        await gateway.register("alice")
        bob = await gateway.register("bob")
        async with at_work(bob, tmp_path, source) as process, asyncio.timeout(PATIENCE_SECONDS):
            _, err = await process.communicate()
            assert process.returncode == 1
            assert b"SENDER_NOT_ALLOWED" in err


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("mine", "MODULE:NAME"),
        (":agent", "MODULE:NAME"),
        ("mine:other", "has no agent named other"),
        ("mine:text", "has no agent named text"),
        ("broken:agent", "ZeroDivisionError"),
        ("nowhere:agent", "No module named"),
    ],
)
def test_what_can_not_be_run_is_told(
    target: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("text = 'no agent'\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    done = CliRunner().invoke(app, ["agent", "run", target], env={"COLUMNS": "300"})
    assert done.exit_code == 2
    assert why in done.output
