"""The face that does not await does the same."""

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading

import pytest

from gateway.client import agent, sync
from gateway.client.errors import NoReply
from gateway.client.message import Message
from tests.world import Agent, World

PATIENCE_SECONDS = 20.0


def of(registered: Agent) -> sync.Agent:
    return sync.Agent(registered.address, key=registered.key, gateway=registered.gateway.url)


def test_both_faces_have_the_same_methods_and_parameters() -> None:
    def face(kind: type) -> dict[str, list[str]]:
        methods = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(m).parameters) for name, m in methods if name[0] != "_"}

    assert face(sync.Agent) == face(agent.Agent)


def talk(alice: sync.Agent, bob: sync.Agent) -> tuple[Message, list[object]]:
    """Bob works on a thread of his own, and asks back from his callback; alice asks and reads."""
    seen: list[object] = []

    @bob.on(kind="request")
    def work(message: Message) -> object:
        seen.append(message.payload)
        bob.send(message.sender, "working on it")
        return "done"

    working = threading.Thread(target=bob.run)
    with alice, bob:
        working.start()
        reply = alice.request(bob.address, "a task", timeout=PATIENCE_SECONDS)
        for message in alice.inbox():
            seen.append(message.payload)
            alice.acknowledge(message)
            break
        bob.stop()
        working.join(PATIENCE_SECONDS)
        assert not working.is_alive()
    return reply, seen


async def test_agents_on_threads_ask_work_and_read(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        reply, seen = await asyncio.to_thread(talk, of(alice), of(bob))
        assert (reply.payload, reply.sender) == ("done", bob.address)
        assert seen == ["a task", "working on it"]
        assert await alice.inbox() == await bob.inbox() == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("amtp ")]


async def test_closing_gives_back_what_was_not_acknowledged(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        for n in range(3):
            await alice.send(bob.address, payload=n)

        def read() -> list[object]:
            with of(bob) as reader:
                messages = reader.inbox()
                return [next(messages).payload for _ in range(2)]

        assert await asyncio.to_thread(read) == [0, 1]
        assert [message["payload"] for message in await bob.inbox()] == [1, 2]


async def test_what_goes_wrong_is_raised_where_it_was_called(world: World) -> None:
    async with world.gateway() as gateway:
        registered = await gateway.register("alice")

        def ask() -> None:
            with of(registered) as alice:
                alice.request(alice.address, 1, timeout=0.2)

        with pytest.raises(NoReply):
            await asyncio.to_thread(ask)


INTERRUPTED = """
from gateway.client.sync import Agent
agent = Agent("bob@acme.test")

@agent.on()
def work(message):
    print("begun", flush=True)
    import time; time.sleep(0.3)
    return message.payload

agent.run()
"""


async def test_interrupted_it_finishes_what_it_began(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        environment = {**os.environ, "AMTP_GATEWAY": gateway.url, "AMTP_KEY": bob.key}
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", INTERRUPTED, env=environment, stdout=pipe, stderr=pipe
        )
        await alice.send(bob.address, payload="hello")
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert process.stdout is not None
            assert await process.stdout.readline() == b"begun\n"
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
        assert err.endswith(b"KeyboardInterrupt\n")
        (answer,) = await alice.inbox()
        assert answer["payload"] == "hello"


def test_importing_it_loads_no_library_of_a_server() -> None:
    script = "import sys, gateway.client.sync; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.split()
    assert {"aiohttp", "msgspec"} <= set(loaded)
    assert not {"asyncpg", "cryptography", "dns", "prometheus_client", "typer", "yaml"} & set(loaded)
