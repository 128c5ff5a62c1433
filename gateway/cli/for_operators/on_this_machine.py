"""The doctor's checks of this machine: the data folder, keys and certificates, processes."""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from gateway.admit.api_key import parse_key
from gateway.cli import descriptors
from gateway.cli.for_operators import first_steps
from gateway.cli.for_operators.finding import Finding
from gateway.config.settings import Config
from gateway.journal.file_modes import exposure
from gateway.journal.metrics import samples_of
from gateway.net.tls import TlsError, server_context, shown
from gateway.postgres.embedded import FREE_BYTES_MIN, free_bytes
from gateway.serve import pid_file, workers
from gateway.serve.expected import EXPECTED
from gateway.store.sealed import KEY_FILE, Sealer

SILENT_SECONDS = 5.0  # a worker without a heartbeat for so long may hang
DNS_REMEDY = "check dns.nameservers, or /etc/resolv.conf; peers that were known stay reachable for seven days"


def on_this_machine(config: Config) -> Iterator[Finding]:
    if not config.data.is_dir():
        yield Finding("data folder", f"{config.data} is not there yet; amtp serve makes it")
    else:
        yield _disk(config)
        yield from _key_files(config.data)
        yield from _processes(config.data)
    if config.listen:  # with a data folder alone they are unknown
        yield _descriptors(config)
    if config.tls.certificate_file and config.tls.key_file:
        yield _certificate(config.tls.certificate_file, config.tls.key_file, config.certified_host)
        if exposed := exposure(config.tls.key_file):
            yield Finding("certificate key", exposed, f"chmod 600 {config.tls.key_file}")


def _disk(config: Config) -> Finding:
    free = free_bytes(config.data)
    text = f"{free >> 20} MB free at {config.data}"
    if free >= FREE_BYTES_MIN:
        return Finding("disk", text)
    if not config.database.url:
        text += f"; below {FREE_BYTES_MIN >> 20} MB new mail is refused"
    elif config.attachments.store == "file":
        text += f"; below {FREE_BYTES_MIN >> 20} MB uploads are refused"
    return Finding("disk", text, "make room")


def _key_files(data: Path) -> Iterator[Finding]:
    for name in (KEY_FILE, first_steps.KEY_FILE):
        path = data / name
        if not path.exists():
            continue
        try:
            good = _readable(path)
        except OSError as failure:
            yield Finding(
                name, f"{path}: {failure.strerror}", f"let the gateway's user read it: chown {path}"
            )
            continue
        if not good:
            yield Finding(name, f"{path} holds no key", "restore it from your backup of the data folder")
        elif exposed := exposure(path):
            yield Finding(name, exposed, f"chmod 600 {path}")
        else:
            yield Finding(name, "readable to its owner alone")


def _readable(path: Path) -> bool:
    if path.name == first_steps.KEY_FILE:
        return parse_key(path.read_text(errors="replace").strip()) is not None
    try:
        Sealer.of(path.parent)
    except EXPECTED:
        return False
    return True


def _certificate(certificate: Path, key: Path, host: str) -> Finding:
    try:
        server_context(certificate, key)
        found = shown(certificate)
    except TlsError as fault:
        return Finding("certificate", str(fault), "put a good pair in place; no restart is needed")
    if doubts := found.doubts(host, datetime.now(UTC)):
        remedy = "a replaced file is taken up without a restart"
        return Finding("certificate", f"{certificate} {'; it '.join(doubts)}", remedy)
    return Finding("certificate", f"{certificate} ends on {found.ends:%Y-%m-%d}")


def _descriptors(config: Config) -> Finding:
    limit = descriptors.limit_of(pid_file.holder(config.data))
    if short := descriptors.shortage(config, limit):
        return Finding("descriptors", short, descriptors.REMEDY)
    return Finding("descriptors", f"{limit} files and connections may be open, which is enough")


def _processes(data: Path) -> Iterator[Finding]:
    process = pid_file.holder(data)
    yield Finding("gateway", f"process {process} serves" if process else "none runs from this folder")
    if process is None or not (folder := data / workers.FOLDER).is_dir():
        return
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    samples = samples_of(folder)
    heartbeats = {
        labels["worker"]: at
        for labels, at in samples["amtp_worker_heartbeat_seconds"]
        if labels["worker"] in children
    }
    yield from judge_name_servers([up for _, up in samples["amtp_dns_up"]])
    if heartbeats:
        lost = {labels["how"]: round(count) for labels, count in samples["amtp_workers_replaced_total"]}
        yield judge_workers(heartbeats, lost, time.time())


def judge_name_servers(up: Sequence[float]) -> Iterator[Finding]:
    """Judges the name servers by what the gateway saw last."""
    if up:
        lost = not all(up)
        text = "don't answer the gateway" if lost else "answer the gateway"
        yield Finding("name servers", text, DNS_REMEDY if lost else "")


def judge_workers(heartbeats: Mapping[str, float], lost: Mapping[str, int], now: float) -> Finding:
    """Judges the workers by their last heartbeats, and counts those that were replaced."""
    silent = [worker for worker, at in heartbeats.items() if now - at > SILENT_SECONDS]
    losses = [f"{count} {'hung' if how == 'silent' else how}" for how, count in lost.items()]
    since = f"; replaced since the start: {', '.join(losses)}" if losses else ""
    if silent:
        text = f"{len(silent)} of {len(heartbeats)} hang (process {', '.join(silent)}){since}"
        remedy = f"wait: after {workers.SILENT_SECONDS_MAX:g} s of silence another takes the place, and the log says so"
        return Finding("workers", text, remedy)
    return Finding("workers", f"{len(heartbeats)} answer{since}")
