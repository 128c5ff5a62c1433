"""Houses: `amtp serve` for a domain on a host of its own, as an operator sets it up, and the agents who live there.

It listens at port 443 of the host, finds others by the resolver that /etc/resolv.conf names, and trusts one authority.
"""

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trustme

from gateway.store.sealed import Sealer
from tests.real.hosts import WHOLE, Host
from tests.real.spoken import Told, call, until
from tests.real.zones import SignedZone
from tests.served import AMTP, STOP_SECONDS

AGENTS_DOOR = "127.0.0.1:8080"
# The first words see to it that nothing outlives the tests; the rest, that the host has a resolver of its own.
AS_ON_A_HOST = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "sh", "-euc")
WITH_ITS_RESOLVER = 'mount --bind resolv.conf /etc/resolv.conf; exec "$0" "$@"'


@dataclass
class House:
    host: Host
    domains: tuple[str, ...]
    folder: Path
    dsn: str
    admin_key: str
    names: SignedZone
    authority: trustme.CA
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def gateway(self) -> str:
        """The name others reach it by."""
        return f"{self.host.name}.{self.domains[0]}"

    @property
    def record(self) -> str:
        return f"v=amtp1;gateway=https://{self.gateway};features=batch,ids"

    def furnish(self) -> None:
        """Everything but the certificate."""
        (self.folder / "data").mkdir(parents=True, mode=0o700)
        Sealer.of(self.folder / "data")
        self.authority.cert_pem.write_to_path(self.folder / "authorities.pem")
        (self.folder / "resolv.conf").write_text(f"nameserver {self.names.unbound}\n")
        settings = {
            "domains": self.domains,
            "hostname": self.gateway,
            "data": "data",
            "database": {"url": self.dsn},
            "listen": [
                {"address": AGENTS_DOOR, "roles": ["agents", "admin"]},
                {"address": "0.0.0.0:443", "tls": True, "roles": ["public"]},
            ],
            "tls": {"certificate_file": "tls.crt", "key_file": "tls.key"},
            "dns": {"timeout_seconds": 3},
            "outbound": {"allow_networks": [WHOLE], "ca_file": "authorities.pem", "connect_seconds": 3},
        }
        (self.folder / "amtp.yaml").write_text(json.dumps(settings))  # JSON is YAML

    def prove(self, name: str = "", *, expired: bool = False, by: trustme.CA | None = None) -> None:
        """A new certificate, good unless told otherwise; a gateway at work is told."""
        end = datetime.now(UTC) - timedelta(days=1) if expired else None
        pair = (by or self.authority).issue_cert(name or self.gateway, not_after=end)
        pair.private_key_pem.write_to_path(self.folder / "tls.key")
        (self.folder / "tls.crt").write_bytes(b"".join(blob.bytes() for blob in pair.cert_chain_pems))
        if self.process is not None:
            self.process.send_signal(signal.SIGHUP)

    def publish(self, *others: str, ttl: int = 60) -> None:
        """Its names; `others` are texts beside the record."""
        self.names.add(self.gateway, "A", self.host.address(), ttl=ttl)
        for domain in self.domains:
            self.names.txt(f"_amtp.{domain}", *others, self.record, ttl=ttl)

    def start(self) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AMTP_")}
        command = [*AS_ON_A_HOST, WITH_ITS_RESOLVER, AMTP, "serve"]
        with self.host.entered(), (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, env=clean, stdout=log, stderr=log)
        until(self._ready, f"{self.gateway} to be ready")

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        return self.call("GET", "/ready").status == 200

    def kill(self) -> None:
        """As kill -9 does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(STOP_SECONDS)
        self.process = None

    def stop(self) -> None:
        """In good order; does nothing where nobody is at home."""
        if self.process is not None:
            self.process.terminate()
            ended = self.process.wait(STOP_SECONDS)
            self.process = None
            assert ended == 0, self.log()

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def call(self, method: str, path: str, key: str | None = None, body: Any = None) -> Told:
        """From the house itself."""
        with self.host.entered():
            return call(f"http://{AGENTS_DOOR}", method, path, key, body)

    def register(self, local: str, domain: str = "") -> "Resident":
        address = f"{local}@{domain or self.domains[0]}"
        told = self.call("POST", "/v1/admin/agents", self.admin_key, {"address": address})
        assert told.status == 201, told
        return Resident(self, address, told.json["agent"]["api_key"])


@dataclass
class Resident:
    """An agent, and what it was promised."""

    house: House
    address: str
    key: str
    sent: list[str] = field(default_factory=list)  # ids of what was accepted

    def send(self, *recipients: str, payload: Any = None, **members: Any) -> str:
        body = {"sender": self.address, "recipients": recipients, "payload": payload, **members}
        told = self.house.call("POST", "/v1/messages", self.key, body)
        assert told.status == 202, told
        message_id: str = told.json["message_id"]
        self.sent.append(message_id)
        return message_id

    def inbox(self) -> list[dict[str, Any]]:
        told = self.house.call("GET", f"/v1/inbox/{self.address}?limit=1000", self.key)
        assert told.status == 200, told
        found: list[dict[str, Any]] = told.json["messages"]
        return found

    def arrived(self) -> Counter[str]:
        """How often each message lies in the inbox."""
        return Counter(message["message_id"] for message in self.inbox())

    def recipient(self, message_id: str) -> dict[str, Any]:
        """What became of a message for its only recipient."""
        told = self.house.call("GET", f"/v1/messages/{message_id}/status", self.key)
        assert told.status == 200, told
        (found,) = told.json["recipients"]
        return dict(found)

    def is_told(self, message_id: str, words: str) -> None:
        """Waits until the message waits for that reason."""

        def waits() -> bool:
            found = self.recipient(message_id)
            assert found["status"] == "queued", found
            return words in (found["last_error"] or "")

        until(waits, f"“{words}” in {self.recipient(message_id)}")

    def is_rid_of(self, message_id: str) -> dict[str, Any]:
        """The recipient of a message, once it has it."""

        def delivered() -> dict[str, Any] | None:
            found = self.recipient(message_id)
            return found if found["status"] == "delivered" else None

        return until(delivered, f"{message_id} to be delivered: {self.recipient(message_id)}")


def all_arrive_once(senders: Iterable[Resident], reader: Resident) -> None:
    """Waits until every sender believes that all is delivered; then it lies there, each message once."""
    promised = [message_id for sender in senders for message_id in sender.sent]
    until(lambda: len(reader.arrived()) >= len(promised), f"{len(promised)} messages")
    for sender in senders:
        for message_id in sender.sent:
            sender.is_rid_of(message_id)
    arrived = reader.arrived()
    assert arrived == Counter(promised), f"too often: {arrived - Counter(promised)}"
