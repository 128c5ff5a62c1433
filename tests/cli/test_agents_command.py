"""`amtp agents` against a running gateway: what it prints, and how it ends."""

import asyncio
import json

import pytest
from typer.testing import Result

from tests.cli import command
from tests.world import Gateway


async def amtp(gw: Gateway, *words: str, url: str | None = None, key: str | None = None) -> Result:
    variables = {"AMTP_GATEWAY": url or gw.url, "AMTP_ADMIN_KEY": key or gw.admin_key}
    return await command.amtp(variables, "agents", *words)


async def test_an_agent_is_added_shown_changed_and_listed(gw: Gateway) -> None:
    added = await amtp(gw, "add", "alice", "--description", "sells shoes", "--capability", "orders", "--json")
    agent = json.loads(added.stdout)["agent"]
    changed = await amtp(gw, "update", "alice@acme.test", "--hidden")
    shown = await amtp(gw, "show", "alice")
    listed = await amtp(gw, "list", "--find", "shoes")

    assert (added.exit_code, agent["address"]) == (0, "alice@acme.test")
    assert agent["api_key"].startswith("amtp_")
    assert changed.exit_code == shown.exit_code == listed.exit_code == 0
    assert "Hidden" in shown.stdout
    assert "orders" in shown.stdout
    assert "alice@acme.test" in listed.stdout
    assert agent["api_key"] not in shown.stdout + listed.stdout


async def test_a_key_is_rotated_and_the_agent_retired_and_removed(gw: Gateway) -> None:
    alice = await gw.register("alice")
    rotated = await amtp(gw, "rotate-key", "alice", "--grace", "0", "--json")
    retired = await amtp(gw, "remove", "alice", "--json")
    removed = await amtp(gw, "remove", "alice", "--mail", "drop", "--json")

    assert json.loads(rotated.stdout)["agent"]["api_key"] != alice.key
    assert json.loads(retired.stdout)["agent"]["state"] == "retired"
    assert json.loads(removed.stdout)["agent"]["state"] == "removed"


async def test_an_agent_with_a_url_is_pushed_to_and_its_secret_is_made_or_its_own(gw: Gateway) -> None:
    url = "https://hooks.test/in"
    added = json.loads((await amtp(gw, "add", "alice", "--push-url", url, "--json")).stdout)["agent"]
    own = json.loads(
        (await amtp(gw, "add", "bob", "--push-url", url, "--secret", "x" * 16, "--json")).stdout
    )["agent"]
    pull = json.loads((await amtp(gw, "add", "carol", "--push-url", url, "--mode", "pull", "--json")).stdout)
    rotated = await amtp(gw, "rotate-secret", "alice", "--grace", "60")

    assert (added["delivery_mode"], added["push_target"]) == ("push", url)
    assert added["push_secret"].startswith("whsec_")
    assert (own["delivery_mode"], "push_secret" in own) == ("push", False)
    assert pull["agent"]["delivery_mode"] == "pull"
    assert "whsec_" in rotated.stdout
    assert "Old secret ends" in rotated.stdout
    assert added["push_secret"] not in rotated.stdout


async def test_an_agent_without_a_url_has_no_secret_to_rotate(gw: Gateway) -> None:
    await gw.register("alice")
    result = await amtp(gw, "rotate-secret", "alice")

    assert (result.exit_code, "CONFLICT" in result.stderr) == (1, True)


async def test_a_listing_says_how_to_go_on(gw: Gateway) -> None:
    for local in ("alice", "bob"):
        await gw.register(local)
    page = await amtp(gw, "list", "--domain", "acme.test", "--limit", "1")

    assert "--cursor alice@acme.test" in page.stdout


async def test_a_refusal_ends_with_1_and_says_why_in_json_too(gw: Gateway) -> None:
    plain = await amtp(gw, "show", "nobody")
    as_json = await amtp(gw, "show", "nobody", "--json")

    assert (plain.exit_code, as_json.exit_code) == (1, 1)
    assert "nobody@acme.test" in plain.stderr
    assert json.loads(as_json.stdout)["error"]["code"] == "AGENT_UNKNOWN"


async def test_a_wrong_key_is_a_refusal(gw: Gateway) -> None:
    result = await amtp(gw, "list", key="amtp_wrong")

    assert (result.exit_code, "AUTHENTICATION_FAILED" in result.stderr) == (1, True)


@pytest.mark.parametrize("words", [("remove", "alice", "--mail", "burn"), ("add",), ("list", "--limit", "0")])
async def test_wrong_usage_ends_with_2(gw: Gateway, words: tuple[str, ...]) -> None:
    assert (await amtp(gw, *words)).exit_code == 2


async def test_an_url_that_is_none_is_wrong_usage(gw: Gateway) -> None:
    assert (await amtp(gw, "list", url="ftp://x")).exit_code == 2


async def test_silence_ends_with_3_and_no_traceback(gw: Gateway, unused_tcp_port: int) -> None:
    result = await amtp(gw, "list", url=f"http://127.0.0.1:{unused_tcp_port}")

    assert result.exit_code == 3
    assert str(unused_tcp_port) in result.stderr
    assert "Traceback" not in result.output


async def test_something_else_that_answers_is_told_apart(gw: Gateway) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        result = await amtp(gw, "list", url=f"http://127.0.0.1:{port}")

    assert (result.exit_code, "no AMTP gateway" in result.stderr) == (3, True)
