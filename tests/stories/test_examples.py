"""The examples do what they say, started as they say."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.client.agent import Agent
from gateway.client.message import Message
from tests.world import Gateway, World

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.stem != "__init__")
AMTP = (sys.executable, "-m", "gateway")
PATIENCE_SECONDS = 30.0
LINES_MAX = 60


@asynccontextmanager
async def house(world: World, *names: str) -> AsyncIterator[Gateway]:
    """A gateway as `make run` starts it, with these agents."""
    async with world.gateway(domains=("localhost",), development=True) as gateway:
        for name in names:
            await gateway.register(name)
        yield gateway


async def started(gateway: Gateway, *command: str) -> asyncio.subprocess.Process:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AMTP_")}
    environment = {**clean, "AMTP_GATEWAY": gateway.url, "PYTHONUNBUFFERED": "1"}
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe)


async def printed(gateway: Gateway, *command: str) -> str:
    process = await started(gateway, *command)
    async with asyncio.timeout(PATIENCE_SECONDS):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


@asynccontextmanager
async def running(gateway: Gateway, agent: str) -> AsyncIterator[None]:
    """`amtp agent run` meanwhile; told to stop, it ends in good order."""
    process = await started(gateway, *AMTP, "agent", "run", agent)
    try:
        yield
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_SECONDS):
            out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        assert b"is at work" in out
        assert b"Traceback" not in err
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_fits_on_a_screen(path: Path) -> None:
    assert len(path.read_text().splitlines()) < LINES_MAX


async def test_the_echo_answers_with_what_it_was_told(world: World) -> None:
    async with house(world, "echo", "me") as gateway, running(gateway, "examples.echo:agent"):
        words = ("--from", "me@localhost", "--to", "echo@localhost", "--payload", '{"text": "Hello"}')
        assert '"text": "Hello"' in await printed(gateway, *AMTP, "send", *words, "--wait", "20")


async def test_buyer_and_seller_agree(world: World) -> None:
    async with house(world, "seller", "buyer") as gateway, running(gateway, "examples.negotiate:seller"):
        said = await printed(gateway, sys.executable, "-m", "examples.negotiate")
        assert "The buyer offers 50, the seller says {'price': 90}." in said
        assert said.endswith("Sold for 70.\n")


@pytest.mark.parametrize("allowed", [True, False])
async def test_the_clerk_buys_what_is_dear_only_when_a_person_says_yes(world: World, allowed: bool) -> None:
    async with (
        house(world, "clerk", "pat", "boss") as gateway,
        running(gateway, "examples.human:clerk"),
        Agent("boss@localhost", gateway=gateway.url) as boss,
        Agent("pat@localhost", gateway=gateway.url) as pat,
    ):

        @pat.on(kind="request")
        async def decide(message: Message) -> object:
            assert message.payload["question"] == "Buy a boat for 5000?"
            return allowed

        deciding = asyncio.create_task(pat.run())
        cheap = await boss.request("clerk@localhost", {"buy": "a pencil", "price": 1})
        dear = await boss.request("clerk@localhost", {"buy": "a boat", "price": 5000})
        pat.stop()
        await deciding
        assert (cheap.payload["bought"], dear.payload["bought"]) == (True, allowed)


async def test_a_picture_comes_back_smaller(world: World) -> None:
    red, blue = b"\xff\0\0", b"\0\0\xff"
    picture = b"P6\n# two stripes\n4 2\n255\n" + red * 4 + blue * 4
    async with (
        house(world, "resizer", "me") as gateway,
        running(gateway, "examples.resize:agent"),
        Agent("me@localhost", gateway=gateway.url) as me,
    ):
        attached = await me.attach(picture, filename="stripes.ppm")
        answer = await me.request("resizer@localhost", {"width": 2}, attachments=[attached])
        assert answer.attachments[0].filename == "small-stripes.ppm"
        assert await me.fetch(answer) == b"P6\n2 1\n255\n" + red * 2
        refused = await me.request("resizer@localhost", {"width": 8}, attachments=[attached])
        assert "4 wide" in refused.payload["error"]
        assert "attach" in (await me.request("resizer@localhost", {"width": 8})).payload["error"]
