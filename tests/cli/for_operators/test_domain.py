"""`amtp domain`, as an operator calls it, against real DNS packets and real TLS."""

import asyncio
import json
import os
import ssl
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from conformance.dns_server import Behaviour, DnsServer
from conformance.fake_peer import Authority, FakePeer, answers
from gateway.cli.for_operators.domain import look_at
from gateway.config.settings import load
from gateway.protocol.discovery import Speaks, parse_record

COMMAND = [sys.executable, "-c", "from gateway.cli.main import main; main()", "domain"]
NOW = datetime.now(UTC)


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Desk:
    folder: Path
    dns: DnsServer
    authority: Authority

    def configure(self, allow: str = "[127.0.0.0/8]", more: str = "") -> Path:
        path = self.folder / "amtp.yaml"
        path.write_text(
            f"domains: [acme.test, shop.acme.test]\nhostname: amtp.acme.test\n"
            f'dns: {{nameservers: ["127.0.0.1:{self.dns.port}"], timeout_seconds: 2}}\n'
            f"outbound: {{allow_networks: {allow}, ca_file: {self.authority.write_ca(self.folder)}}}\n{more}"
        )
        return path

    def publish(self, peer: FakePeer) -> None:
        self.dns.txt(f"_amtp.{peer.domain}", peer.record, ttl=123)
        self.dns.add(peer.host, "A", "127.0.0.1")

    async def call(self, *arguments: str) -> Done:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AMTP_")}
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *arguments,
            cwd=self.folder,
            env=clean | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        assert "Traceback" not in err.decode()
        return Done(process.returncode, out.decode(), err.decode())

    async def faults(self, domain: str) -> Sequence[str]:
        return (await look_at(domain, load(self.folder / "amtp.yaml", {}), NOW)).faults


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with DnsServer() as dns:
        made = Desk(tmp_path, dns, Authority())
        made.configure()
        yield made


async def test_our_records_are_printed_as_a_zone_file_takes_them(desk: Desk) -> None:
    done = await desk.call("record")
    assert done.code == 0, done.err
    value = "v=amtp1;gateway=https://amtp.acme.test;max-size=10485760;features=batch,ids"
    first, second, *comments = done.out.splitlines()
    assert first == f'_amtp.acme.test. 3600 IN TXT "{value}"'
    assert second == f'_amtp.shop.acme.test. 3600 IN TXT "{value}"'
    assert comments
    assert all(line.startswith("; ") for line in comments)


async def test_our_records_name_the_url_others_reach_us_by(desk: Desk) -> None:
    done = await desk.call("record", "--json", "--gateway", "https://edge.acme.test:8443/amtp/")
    assert [row["name"] for row in done.json] == ["_amtp.acme.test", "_amtp.shop.acme.test"]
    said = parse_record(done.json[0]["value"])
    assert isinstance(said, Speaks)
    assert said.capabilities.gateway_url == "https://edge.acme.test:8443/amtp"


async def test_a_url_that_no_record_can_carry_is_refused(desk: Desk) -> None:
    done = await desk.call("record", "--gateway", "http://edge.acme.test")
    assert (done.code, done.out) == (2, "")
    assert "https://" in done.err


async def test_a_domain_that_is_well_is_shown_whole(desk: Desk) -> None:
    async with FakePeer(desk.authority, features=frozenset({"batch"})).listening() as peer:
        desk.publish(peer)
        done = await desk.call("probe", peer.domain, "--json")
        shown = await desk.call("probe", peer.domain)
    assert done.code == 0, done.out
    told = done.json
    assert told["records"] == [peer.record]
    assert (told["gateway"], told["max_size"], told["features"]) == (peer.url, peer.max_size, ["batch"])
    assert (told["kept_seconds"], told["addresses"]) == (123, ["127.0.0.1"])
    assert (told["tls_version"], told["names"]) == ("TLSv1.3", [peer.host])
    assert "trustme" in told["subject"]
    assert "trustme" in told["issuer"]
    assert told["expires_at"].endswith("UTC")
    assert told["http_status"] == 200
    assert told["faults"] == told["warnings"] == []
    assert {request.path for request in peer.requests} == {"/health"}
    assert shown.code == 0
    assert peer.record in shown.out
    assert "Nothing is wrong." in shown.out


async def test_what_is_wrong_is_told_and_the_exit_code_says_so(desk: Desk) -> None:
    done = await desk.call("probe", "silent.test")
    assert done.code == 1
    assert "no TXT record at _amtp.silent.test says v=amtp1" in done.out


@pytest.mark.parametrize(
    ("spoiled", "fault"),
    [
        ({"expired": True}, "expired"),
        ({"certificate_host": "amtp.other.test"}, "not valid for"),
        ({"authority": Authority()}, "certificate was refused"),
        ({"tls_version_max": ssl.TLSVersion.TLSv1_2}, "TLS"),
    ],
    ids=["expired", "wrong host", "unknown issuer", "TLS 1.2"],
)
async def test_a_bad_certificate_is_named_and_shown_and_nothing_is_sent(
    desk: Desk, spoiled: dict[str, Any], fault: str
) -> None:
    async with FakePeer(**{"authority": desk.authority, **spoiled}).listening() as peer:
        desk.publish(peer)
        found = await look_at(peer.domain, load(desk.folder / "amtp.yaml", {}), NOW)
    assert len(found.faults) == 1
    assert fault in found.faults[0]
    assert found.names == [peer.certificate_host or peer.host]
    assert found.tls_version == ("TLSv1.2" if "tls_version_max" in spoiled else "TLSv1.3")
    assert found.http_status is None
    assert peer.requests == []


async def test_a_certificate_about_to_end_is_noted(desk: Desk) -> None:
    config = load(desk.folder / "amtp.yaml", {})
    async with FakePeer(desk.authority).listening() as peer:
        desk.publish(peer)
        now = await look_at(peer.domain, config, NOW)
        end = datetime.strptime(now.expires_at or "", "%Y-%m-%d %H:%M UTC").replace(tzinfo=UTC)
        soon = await look_at(peer.domain, config, end - timedelta(days=3))
    assert now.warnings == []
    assert soon.warnings == ["its certificate ends in 3 days"]


async def test_each_step_that_fails_is_named(desk: Desk) -> None:
    desk.dns.txt("_amtp.broken.test", "v=amtp1;gateway=ftp://x")
    desk.dns.behave("_amtp.servfail.test", Behaviour.SERVFAIL)
    desk.dns.txt("_amtp.lost.test", "v=amtp1;gateway=https://nowhere.lost.test")
    assert "can't be used: gateway=" in (await desk.faults("broken.test"))[0]
    assert "the DNS could not be asked" in (await desk.faults("servfail.test"))[0]
    assert "no address in the DNS" in (await desk.faults("lost.test"))[0]
    async with FakePeer(desk.authority).listening() as peer:
        desk.publish(peer)
        peer.will(answers(502))
        assert "answered 502" in (await desk.faults(peer.domain))[0]
        desk.configure(allow="[]")
        assert "127.0.0.1 (loopback)" in (await desk.faults(peer.domain))[0]
        desk.configure()
    assert "does not take connections" in (await desk.faults(peer.domain))[0]


async def test_a_record_of_ours_that_says_something_else_is_noted(desk: Desk) -> None:
    async with FakePeer(desk.authority, domain="acme.test").listening() as peer:
        desk.publish(peer)
        found = await look_at("acme.test", load(desk.folder / "amtp.yaml", {}), NOW)
    assert found.faults == []
    assert any("gateway=https://amtp.acme.test" in warning for warning in found.warnings)


async def test_a_configured_peer_is_looked_at_as_the_courier_sees_it(desk: Desk) -> None:
    certificate, key = desk.authority.write_pair(desk.folder, "amtp.acme.test")
    async with FakePeer(desk.authority, wants_certificate=True).listening() as peer:
        desk.dns.add(peer.host, "A", "127.0.0.1")
        access = f"gateway: '{peer.url}', certificate_file: {certificate}, key_file: {key}"
        desk.configure(more=f"peers: {{peer.test: {{{access}}}}}\n")
        found = await look_at("peer.test", load(desk.folder / "amtp.yaml", {}), NOW)
    assert found.faults == []
    assert found.http_status == 200
    assert peer.requests[0].certificate == "amtp.acme.test"
    assert desk.dns.count("_amtp.peer.test") == 0


async def test_what_a_peer_writes_cannot_steer_the_terminal(desk: Desk) -> None:
    desk.dns.txt("_amtp.evil.test", "v=amtp1;gateway=https://x.test/\x1b[2J")
    done = await desk.call("probe", "evil.test")
    assert done.code == 1
    assert "\x1b" not in done.out
