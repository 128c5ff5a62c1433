"""`amtp inbox`, as whoever writes an agent calls it."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass

import pytest

from gateway.cli.printable import plain, plain_json
from gateway.store.inbox import inbox
from tests.world import Agent, World

COMMAND = [sys.executable, "-c", "from gateway.cli.main import main; main()", "inbox"]


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


async def amtp(agent: Agent, *arguments: str, key: str | None = None, admin_key: str = "") -> Done:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AMTP_")}
    keys = {"AMTP_ADMIN_KEY": admin_key} if admin_key else {"AMTP_KEY": key or agent.key}
    environ |= {"AMTP_GATEWAY": agent.gateway.url, "COLUMNS": "200", **keys}
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        agent.address,
        *arguments,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert b"Traceback" not in err
    return Done(process.returncode or 0, out.decode(), err.decode())


async def test_an_inbox_is_listed_read_and_acknowledged(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        message_id = (await alice.send(bob.address, subject="An order")).json["message_id"]
        shown = await amtp(bob)
        assert shown.status == 0
        assert message_id in shown.out
        assert "An order" in shown.out
        assert "1 message." in shown.out
        whole = await amtp(bob, "read", message_id)
        assert json.loads(whole.out)["payload"] == {"n": 1}
        done = await amtp(bob, "ack", message_id, "no-such-id")
        assert (done.status, done.out.splitlines()[0]) == (1, f"{message_id}: acknowledged")
        assert json.loads((await amtp(bob, "--json")).out)["count"] == 0


async def test_what_is_left_unread_is_told_and_at_least_how_much_where_it_is_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "UNREAD_COUNTED_MAX", 2)
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        for _ in range(4):
            await alice.send(bob.address)
        assert "2+ unread." in (await amtp(bob, "--unread", "--limit", "1")).out
        assert "2 unread." in (await amtp(bob, "--unread", "--limit", "1")).out


async def test_a_lease_is_shown_and_acknowledged_by_its_token(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        message_id = (await alice.send(bob.address)).json["message_id"]
        page = json.loads((await amtp(bob, "--lease", "60", "--wait", "1", "--json")).out)
        token = page["lease"]["token"]
        assert "0 messages." in (await amtp(bob)).out
        done = await amtp(bob, "ack", message_id, "--lease", token, "--sender", alice.address, "--json")
        assert json.loads(done.out)["acknowledged"] == 1


async def test_a_refusal_is_told_in_its_own_words(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        done = await amtp(bob, key=alice.key)
        assert done.status == 1
        assert "SENDER_NOT_ALLOWED" in done.err
        assert (await amtp(bob, "ack")).status == 2
        assert "0 dead letters." in (await amtp(bob, "dead")).out


async def test_a_gateway_that_is_not_there_is_told_so(world: World) -> None:
    async with world.gateway() as gateway:
        bob = await gateway.register("bob")
        done = await amtp(bob, "--gateway", "http://127.0.0.1:1")
        assert (done.status, "No gateway answers" in done.err) == (3, True)


@pytest.mark.parametrize("text", ["a\x1b[2Jb", "a\x9b2Jb", "a\nb", "a\u202eb"])
def test_what_would_steer_a_terminal_is_not_shown(text: str) -> None:
    assert plain(text).startswith("a\N{REPLACEMENT CHARACTER}")
    shown = plain_json({"subject": text})
    assert json.loads(shown) == {"subject": text}
    assert text not in shown


async def test_an_inbox_is_purged_after_a_question_by_its_agent_or_an_operator(world: World) -> None:
    async with world.gateway() as gateway:
        alice, bob = await gateway.register("alice"), await gateway.register("bob")
        await alice.send(bob.address)
        assert (await amtp(bob, "purge")).status == 2
        unasked = await amtp(bob, "purge", "--all")  # nobody answers
        assert (unasked.status, "Remove 1 messages for good?" in unasked.err) == (1, True)
        by_age = await amtp(bob, "purge", "--older-than", "30d", "--yes")
        assert by_age.out == "0 of 0 purged.\n"
        done = await amtp(bob, "purge", "--all", "--yes", admin_key=gateway.admin_key)
        assert done.out == "1 of 1 purged.\n"
        assert await bob.inbox() == []
