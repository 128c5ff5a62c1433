"""The DNS of a host: knot serves the signed zone `test`, unbound beside it resolves and checks every signature.

Below it is `unsigned.test`, which is not signed; `promise` says whether it ought to be.

Changes are made as an operator makes them, by updates to the zone; the resolver forgets what it knew of it at once,
unless it is told to keep to the TTLs.
"""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
import dns.update

from conformance.dns_server import Behaviour
from tests.real.hosts import WHOLE, Host
from tests.real.spoken import until

ZONE, UNSIGNED = "test.", "unsigned.test."
KNOT, UNBOUND = 54, 53  # places on the host
ANSWER_SECONDS = 2.0  # on the host itself
STOP_SECONDS = 20
KEY_OF_NOBODY = "1 13 2 " + "00" * 32

_KNOT = """
server:
  rundir: {folder}
  listen: [ 127.0.0.1@53, {knot}@53 ]
  background-workers: 1
  udp-workers: 1
  tcp-workers: 1
  automatic-acl: off
database:
  storage: {folder}/db
log:
  - target: stderr
    any: warning
acl:
  - id: here
    address: 127.0.0.1
    action: update
policy:
  - id: signed
    algorithm: ECDSAP256SHA256
    single-type-signing: on
    ksk-lifetime: 0
template:
  - id: default
    storage: {folder}
    zonefile-sync: -1
    acl: here
zone:
  - domain: {zone}
    file: zone
    dnssec-signing: on
    dnssec-policy: signed
  - domain: {unsigned}
    file: zone
"""
_ZONE = """
$TTL 60
@ IN SOA ns.{zone} hostmaster.{zone} 1 3600 600 86400 5
@ IN NS ns.{zone}
ns IN A {knot}
"""
_UNBOUND = """
server:
  interface: {unbound}
  access-control: {whole} allow
  do-ip6: no
  username: ""
  chroot: ""
  directory: {folder}
  pidfile: {folder}/unbound.pid
  use-syslog: no
  logfile: ""
  verbosity: 0
  num-threads: 1
  do-daemonize: no
  module-config: "validator iterator"
  trust-anchor-file: {folder}/anchor
  local-zone: "test." nodefault
remote-control:
  control-enable: yes
  control-interface: {folder}/unbound.sock
  control-use-cert: no
stub-zone:
  name: {zone}
  stub-addr: {knot}
"""


class SignedZone:
    """The records of the zone, as `conformance.dns_server` offers them; the only misbehaviour is SERVFAIL."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host = host
        self.knot, self.unbound = host.address(KNOT), host.address(UNBOUND)
        self.forgetful = True  # the resolver forgets at every change
        self._folder = folder
        self._names: set[str] = set()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def add(self, name: str, kind: str, *values: str, ttl: int = 60) -> None:
        """Replaces what the name has of that type; values are written as in a zone file."""
        self._names.add(name)
        update = _update(name)
        update.replace(f"{name}.", dns.rrset.from_text(f"{name}.", ttl, "IN", kind, *values))
        self._send(update)

    def txt(self, name: str, *texts: str, ttl: int = 60) -> None:
        """One record per text, in strings of 255 at most."""
        self.add(name, "TXT", *(_quoted(text) for text in texts), ttl=ttl)

    def behave(self, name: str, behaviour: Behaviour | None) -> None:
        """SERVFAIL is what a resolver says of a name whose signatures lead nowhere; None is well."""
        assert behaviour in (None, Behaviour.SERVFAIL), behaviour
        if behaviour is None:
            self._undo(name, "NS", "DS")
        else:
            self._delegate(name, signed=True)

    def promise(self, domain: str, *, signed: bool) -> None:
        """Whether the zone says that the domain below it, which is not signed, must be."""
        self._undo(domain, "DS")
        self._delegate(domain, signed=signed)

    def _delegate(self, name: str, *, signed: bool) -> None:
        update = dns.update.UpdateMessage(ZONE)
        update.replace(f"{name}.", 60, "NS", f"ns.{ZONE}")
        if signed:
            update.replace(f"{name}.", 60, "DS", KEY_OF_NOBODY)
        self._names.add(name)
        self._send(update)

    def _undo(self, name: str, *kinds: str) -> None:
        update = dns.update.UpdateMessage(ZONE)
        for kind in kinds:
            update.delete(f"{name}.", kind)
        self._send(update)

    def clear(self) -> None:
        """Back to the empty zone."""
        update = dns.update.UpdateMessage(ZONE)
        for name in self._names:
            update.delete(f"{name}.")
        self._send(update)
        self._names.clear()

    def ask(
        self, name: str, kind: str = "TXT", *, at: str | None = None, tcp: bool = False
    ) -> dns.message.Message:
        """What the resolver answers there to who wants signatures."""
        query = dns.message.make_query(name, kind, want_dnssec=True, payload=1232)
        query.flags |= dns.flags.AD
        how = dns.query.tcp if tcp else dns.query.udp
        with self.host.entered():
            return how(query, at or self.unbound, timeout=ANSWER_SECONDS)

    @contextmanager
    def served(self) -> Iterator["SignedZone"]:
        self._write()
        try:
            self.start()
            self.promise(UNSIGNED.rstrip("."), signed=True)
            yield self
        finally:
            self.stop()

    def start(self) -> None:
        self._launch("knotd", "-c", str(self._folder / "knot.conf"))
        key = until(lambda: self._answer(self.knot, "DNSKEY"), "knot to sign")
        (self._folder / "anchor").write_text(f"{key.answer[0].to_text()}\n")
        self._launch("unbound", "-d", "-c", str(self._folder / "unbound.conf"))
        told = until(lambda: self._answer(self.unbound, "SOA"), "unbound to answer")
        assert told.flags & dns.flags.AD, "unbound does not believe the zone"

    def stop(self) -> None:
        """Nobody answers any more."""
        while self._processes:
            _, process = self._processes.popitem()
            process.terminate()
            process.wait(STOP_SECONDS)

    def _launch(self, program: str, *words: str) -> None:
        with self.host.entered(), (self._folder / f"{program}.log").open("ab") as log:
            self._processes[program] = subprocess.Popen([program, *words], stdout=log, stderr=log)

    def _answer(self, at: str, kind: str) -> dns.message.Message | None:
        try:
            told = self.ask(ZONE, kind, at=at, tcp=True)
        except (OSError, dns.exception.DNSException):  # not yet
            return None
        return told if told.rcode() == dns.rcode.NOERROR and told.answer else None

    def _write(self) -> None:
        (self._folder / "db").mkdir()
        facts = {
            "folder": self._folder,
            "zone": ZONE,
            "unsigned": UNSIGNED,
            "knot": self.knot,
            "unbound": self.unbound,
            "whole": WHOLE,
        }
        for name, text in {"knot.conf": _KNOT, "zone": _ZONE, "unbound.conf": _UNBOUND}.items():
            (self._folder / name).write_text(text.format(**facts))

    def _send(self, update: dns.update.UpdateMessage) -> None:
        with self.host.entered():
            told = dns.query.tcp(update, "127.0.0.1", timeout=ANSWER_SECONDS)
        assert told.rcode() == dns.rcode.NOERROR, told
        if self.forgetful:
            self._control(f"flush_zone {ZONE}")

    def _control(self, command: str) -> None:
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(ANSWER_SECONDS)
            control.connect(str(self._folder / "unbound.sock"))
            control.sendall(f"UBCT1 {command}\n".encode())
            told = b"".join(iter(lambda: control.recv(4096), b""))
        assert told.startswith(b"ok"), told


def _update(name: str) -> dns.update.UpdateMessage:
    return dns.update.UpdateMessage(UNSIGNED if f".{name}.".endswith(f".{UNSIGNED}") else ZONE)


def _quoted(text: str) -> str:
    strings = [text[start : start + 255] for start in range(0, len(text), 255)]
    return " ".join(f'"{string}"' for string in strings)
