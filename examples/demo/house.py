"""One domain of the demo: its gateway is a process of its own, with its own database, and can be killed."""

import asyncio
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import trustme
import yaml

from examples.demo.dns_server import ADDRESS, DnsServer

START_SECONDS_MAX = 60.0  # a busy machine takes its time
STOP_SECONDS_MAX = 30.0
LOOK_SECONDS = 0.1
LEASE_SECONDS = 25  # after that, what a dead gateway had in its hands is delivered by whoever lives


class Broken(Exception):
    """The demo can't go on; the text says why."""


class House:
    """A gateway and the way to it."""

    def __init__(self, domain: str, folder: Path, session: aiohttp.ClientSession) -> None:
        self.domain = domain
        self.folder = folder
        self.session = session
        self.state = "not started"
        self.deaths = 0
        self._port, self._tls_port = free_ports(2)
        self._process: asyncio.subprocess.Process | None = None
        self._admin_key = ""

    @property
    def url(self) -> str:
        """Where its agents call."""
        return f"http://{ADDRESS}:{self._port}"

    def prepare(self, authority: trustme.CA, names: DnsServer) -> None:
        """Its certificate, its configuration and its DNS records."""
        self.folder.mkdir()
        host = f"gw.{self.domain}"
        certificate = authority.issue_cert(host)
        certificate.private_key_pem.write_to_path(self.folder / "tls.key")
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(self.folder / "tls.crt", append=True)
        authority.cert_pem.write_to_path(self.folder / "authority.crt")
        (self.folder / "amtp.yaml").write_text(yaml.safe_dump(self._configuration(host, names.port)))
        names.add(
            f"_amtp.{self.domain}",
            "TXT",
            f'"v=amtp1;gateway=https://{host}:{self._tls_port};features=batch,ids"',
        )
        names.add(host, "A", ADDRESS)

    def _configuration(self, host: str, dns_port: int) -> dict[str, Any]:
        return {
            "domains": [self.domain],
            "hostname": host,
            "data": str(self.folder / "data"),
            "listen": [
                {"address": f"{ADDRESS}:{self._port}", "roles": ["agents", "admin"]},
                {"address": f"{ADDRESS}:{self._tls_port}", "tls": True, "roles": ["public"]},
            ],
            "tls": {
                "certificate_file": str(self.folder / "tls.crt"),
                "key_file": str(self.folder / "tls.key"),
            },
            "dns": {"nameservers": [f"{ADDRESS}:{dns_port}"], "timeout_seconds": 1},
            "outbound": {"allow_networks": ["127.0.0.0/8"], "ca_file": str(self.folder / "authority.crt")},
            "queue": {"lease_seconds": LEASE_SECONDS},
            "log": {"format": "text", "level": "warning"},
        }

    async def start(self) -> None:
        """Returns when it is ready to take messages."""
        self.state = "starting"
        with (self.folder / "gateway.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *amtp("serve", "--config", str(self.folder / "amtp.yaml")), stdout=log, stderr=log
            )
        until = time.monotonic() + START_SECONDS_MAX
        while not await self._is_ready():
            if self._process.returncode is not None or time.monotonic() > until:
                raise Broken(f"The gateway of {self.domain} does not start:\n{self.log()}")
            await asyncio.sleep(LOOK_SECONDS)
        self.state = "running"

    async def _is_ready(self) -> bool:
        try:
            async with self.session.get(f"{self.url}/ready") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def kill(self) -> None:
        """As kill -9 does: no goodbye, nothing is tidied up."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()
        self.deaths += 1
        self.state = "KILLED"

    async def stop(self) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS_MAX):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def log(self) -> str:
        return (self.folder / "gateway.log").read_text(errors="replace")[-4000:]

    async def open_books(self) -> None:
        """Makes an admin key, by the command line as an operator does."""
        command = amtp("admin-keys", "add", "demo", "--json", "--config", str(self.folder / "amtp.yaml"))
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, errors = await process.communicate()
        if process.returncode != 0:
            raise Broken(f"No admin key for {self.domain}: {errors.decode()}")
        self._admin_key = json.loads(output)["key"]

    async def register(self, local: str) -> str:
        """The key of a new agent."""
        async with self.session.post(
            f"{self.url}/v1/admin/agents",
            json={"address": f"{local}@{self.domain}"},
            headers={"Authorization": f"Bearer {self._admin_key}"},
        ) as answer:
            answer.raise_for_status()
            return str((await answer.json())["agent"]["api_key"])


def amtp(*arguments: str) -> list[str]:
    """The command line of the installation that runs this."""
    return [sys.executable, "-m", "gateway", *arguments]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server((ADDRESS, 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
