"""`amtp inbox ADDRESS watch`: what lies there, and what comes."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.cli.for_agents.watch import line_of
from tests.world import Agent, World

PATIENCE_SECONDS = 30.0


@asynccontextmanager
async def watching(agent: Agent, *options: str) -> AsyncIterator[asyncio.StreamReader]:
    """Until Ctrl-C, which is no failure."""
    environment = {**os.environ, "AMTP_GATEWAY": agent.gateway.url, "AMTP_KEY": agent.key}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "inbox", agent.address, "watch", *options),
        env={**environment, "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield process.stdout
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_what_lies_there_and_what_comes_is_printed_once(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        await alice.send(bob.address, payload={"n": 1}, subject="First")
        async with watching(bob) as lines:
            assert (await lines.readline()).decode().endswith('alice@acme.test  First:  { "n": 1 }\n')
            await alice.send(bob.address, payload="second")
            assert (await lines.readline()).decode().endswith('alice@acme.test  "second"\n')
        assert len(await bob.inbox()) == 2


async def test_programs_get_the_whole_message_on_a_line(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        await alice.send(bob.address, payload={"n": 1})
        async with watching(bob, "--json") as lines:
            assert json.loads(await lines.readline())["payload"] == {"n": 1}


def test_what_a_stranger_wrote_does_not_steer_the_terminal() -> None:
    message = {"sender": "a@b.test", "subject": "\x1b[2J", "payload": "\r", "gateway": {"accepted_at": "now"}}
    assert "\x1b" not in line_of(message)
    assert "\r" not in line_of(message)
