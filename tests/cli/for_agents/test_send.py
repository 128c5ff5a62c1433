"""`amtp send --wait`, `send --attach` and `attach`: what they print, and how they end."""

import asyncio
import json
from pathlib import Path

from gateway.client.agent import Agent
from gateway.client.message import Message
from tests.cli.command import amtp, by_key
from tests.world import Agent as Registered
from tests.world import World


def words_of(sender: Registered, *recipients: Registered) -> list[str]:
    to = [word for recipient in recipients for word in ("--to", recipient.address)]
    return ["send", "--from", sender.address, *to, "--payload", '{"n": 1.0}']


async def test_waited_for_the_reply_is_printed(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        agent = Agent(bob.address, key=bob.key, gateway=gateway.url)

        @agent.on()
        async def answer(message: Message) -> object:
            return {"you said": message.payload}

        working = asyncio.create_task(agent.run())
        told = await amtp(by_key(alice), *words_of(alice, bob), "--wait", "20")
        assert (told.exit_code, told.output.splitlines()[0]) == (0, "bob@acme.test answers:")
        whole = await amtp(by_key(alice), *words_of(alice, bob), "--wait", "20", "--json")
        assert json.loads(whole.output)["payload"] == {"you said": {"n": 1.0}}
        agent.stop()
        await working


async def test_without_a_reply_it_fails_and_tells_the_id(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        silent = await amtp(by_key(alice), *words_of(alice, bob), "--wait", "1")
        (message,) = await bob.inbox()
        assert silent.exit_code == 1
        assert f"No reply to {message['message_id']} came within 1 seconds." in silent.stderr
        refused = await amtp(by_key(bob), *words_of(alice, bob), "--wait", "1", "--json")
        assert (refused.exit_code, json.loads(refused.stdout)["error"]["code"]) == (1, "SENDER_NOT_ALLOWED")


async def test_one_recipient_can_be_waited_for(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        several = await amtp(by_key(alice), *words_of(alice, bob, alice), "--wait", "1")
        assert several.exit_code == 2
        nowhere = await amtp(by_key(alice), *words_of(alice, bob), "--wait", "1", "--gateway", "nowhere")
        assert nowhere.exit_code == 2
        assert await bob.inbox() == []


async def test_a_file_is_uploaded_and_sent(world: World, tmp_path: Path) -> None:
    file = tmp_path / "a note.txt"
    file.write_text("hello")
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        attached = await amtp(by_key(alice), "attach", str(file))
        assert json.loads(attached.output)["size"] == 5
        sent = await amtp(by_key(alice), *words_of(alice, bob), "--attach", str(file))
        assert sent.exit_code == 0, sent.output
        (message,) = await bob.inbox()
        (about,) = message["attachments"]
        assert (about["filename"], about["content_type"]) == ("a note.txt", "text/plain")
        assert (await amtp(by_key(alice), "attach", str(tmp_path / "nothing"))).exit_code == 2
        refused = await amtp(by_key(alice), "attach", str(file), "--type", "nonsense")
        assert (refused.exit_code, "INVALID_MESSAGE_FORMAT" in refused.stderr) == (1, True)
        gone = await amtp(by_key(alice), "attach", str(file), "--gateway", "http://127.0.0.1:1")
        assert gone.exit_code == 3
