"""The conformance suite passes against this gateway, and fails against one that is wrong."""

import asyncio
import json
import os
import sys
import xml.etree.ElementTree as ET
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from conformance.__main__ import SECTIONS
from conformance.check import Level, checks_in
from gateway.config.sections import DnsSettings
from gateway.config.settings import load
from tests.ports import free_port
from tests.world import World

ROOT = Path(__file__).parent.parent
CHECKS = checks_in(SECTIONS)


async def conformance(url: str, domain: str, key: str, *options: str) -> tuple[int, str]:
    return await run_suite("--url", url, "--domain", domain, "--admin-key", key, *options)


async def run_suite(*options: str) -> tuple[int, str]:
    """Exit status and output of the suite, run as anybody runs it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "conformance",
        *options,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


@pytest.mark.timeout(300)  # half a minute, on a machine that has nothing else to do
async def test_this_gateway_conforms(world: World, tmp_path: Path) -> None:
    """Prepared as the suite's README says, and then asked everything."""
    junit = tmp_path / "junit.xml"
    bring = ("--peer", "127.0.0.1", "--dns-port", str(free_port()), "--keep", str(tmp_path / "kept"))
    status, configuration = await run_suite(*bring, "--prepare")
    assert status == 0, configuration
    file = tmp_path / "amtp.yaml"
    file.write_text(f"domains: [acme.test]\n{configuration}")
    config = load(file, {})
    async with world.gateway(dns=config.dns, outbound=config.outbound) as gateway:
        status, output = await conformance(
            gateway.url,
            gateway.domain,
            gateway.admin_key,
            *bring,
            "--level",
            "extended",
            "--junit",
            str(junit),
        )
    assert status == 0, output
    assert output.count("\n  ok  ") == len(CHECKS)
    assert "not run" not in output
    assert len(ET.parse(junit).findall("testcase")) == len(CHECKS)


async def test_what_needs_a_peer_is_not_run_without_one_and_never_passed(
    world: World, tmp_path: Path
) -> None:
    junit = tmp_path / "junit.xml"
    async with world.gateway() as gateway:
        status, output = await conformance(
            gateway.url, gateway.domain, gateway.admin_key, "--section", "9", "--junit", str(junit)
        )
    waiting = [check for check in CHECKS if check.needs_peer and (check.section, check.level) == (9, "core")]
    assert status == 0, output
    assert "  not run: needs --peer" in output
    assert output.count("\n  --  ") == len(waiting) > 0
    assert len(ET.parse(junit).findall("testcase/skipped")) == len(waiting)


async def test_a_gateway_that_was_not_told_of_the_peers_is_not_blamed(world: World, tmp_path: Path) -> None:
    bring = ("--peer", "127.0.0.1", "--dns-port", str(free_port()), "--keep", str(tmp_path))
    async with world.gateway(dns=DnsSettings(nameservers=("127.0.0.1:9",), timeout_seconds=0.2)) as gateway:
        status, output = await conformance(gateway.url, gateway.domain, gateway.admin_key, *bring)
    assert status == 2
    assert "does not ask the DNS server" in output


async def test_it_leaves_no_agent_behind(world: World) -> None:
    async with world.gateway() as gateway:
        await conformance(gateway.url, gateway.domain, gateway.admin_key, "--section", "3")
        listed = await gateway.call("GET", "/v1/admin/agents?state=active", key=gateway.admin_key)
        names = [agent["address"] for agent in listed.json["agents"]]
    assert [name for name in names if name.startswith("conformance-")] == []


async def test_it_says_what_can_not_be_tested(world: World) -> None:
    async with world.gateway() as gateway:
        status, output = await conformance(gateway.url, gateway.domain, "wrong")
    assert status == 2
    assert "can't be tested" in output


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WrongGateway:
    """Registers anybody and accepts anything; forgets every second message and every key."""

    def __init__(self) -> None:
        self.inboxes: dict[str, list[Any]] = {}
        self.accepted = 0

    async def register(self, request: web.Request) -> web.Response:
        address = (await request.json())["address"]
        self.inboxes.setdefault(address, [])
        agent = {"address": address, "delivery_mode": "pull", "api_key": "k" * 32}
        return web.json_response({"agent": agent, "message": "welcome"}, status=201)

    async def accept(self, request: web.Request) -> web.Response:
        message = json.loads(await request.read())
        self.accepted += 1
        message.setdefault("message_id", f"m{self.accepted}")
        for recipient in message["recipients"]:
            if self.accepted % 2:
                self.inboxes.setdefault(recipient, []).append(message)
        told = [{"address": recipient, "status": "delivered"} for recipient in message["recipients"]]
        return web.json_response(
            {"message_id": message["message_id"], "status": "delivered", "recipients": told}, status=202
        )

    async def inbox(self, request: web.Request) -> web.Response:
        address = request.match_info["address"]
        messages = self.inboxes.get(address, [])
        count = len(messages)
        return web.json_response(
            {
                "messages": messages,
                "message_count": count,
                "count": count,
                "recipient": address,
                "has_more": False,
            }
        )

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**30)
        app.router.add_post("/v1/admin/agents", self.register)
        app.router.add_post("/v1/messages", self.accept)
        app.router.add_get("/v1/inbox/{address}", self.inbox)
        return app


async def test_a_gateway_that_is_wrong_does_not_pass() -> None:
    runner = web.AppRunner(WrongGateway().app())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        status, output = await conformance(url, "acme.test", "any", "--json")
    finally:
        await runner.cleanup()
    assert status == 1
    results = {result["name"]: result["passed"] for result in json.loads(output)}
    assert set(results) == {check.name for check in CHECKS if check.level is Level.CORE}
    assert results["a_name_is_registered_once"] is False
    assert results["the_same_key_and_content_is_one_message"] is False
    assert results["an_inbox_opens_to_its_agent_alone"] is False
    assert results["a_new_agent_gets_its_key"] is True, "what it does right is not held against it"
    assert sum(not passed for passed in results.values()) > len(results) / 2


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_every_check_says_in_one_sentence_what_must_hold(check: Any) -> None:
    assert check.says.endswith(".")
    assert "\n" not in check.says
    assert check.says.startswith("D: ") <= (check.level is Level.EXTENDED)


def test_no_two_checks_have_one_name() -> None:
    names = [check.name for check in CHECKS]
    assert len(names) == len(set(names))


def test_the_suite_knows_nothing_of_the_gateway() -> None:
    sources = list((ROOT / "conformance").glob("*.py"))
    assert len(sources) > len(SECTIONS)
    for source in sources:
        text = source.read_text()
        assert "import gateway" not in text
        assert "from gateway" not in text
