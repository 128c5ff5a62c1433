"""One gateway process: serves with its configuration until a signal stops it."""

import asyncio
import gc
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from gateway.config.settings import Config, ConfigError, load, reloadable
from gateway.journal.journal import Journal
from gateway.net.tls import CertificateReloader, TlsError, server_context, shown
from gateway.protocol.errors import AMTPError
from gateway.serve.expected import explained
from gateway.serve.log_route import route_logs
from gateway.serve.signals import Signals
from gateway.store.clock import Clock
from gateway.wiring.app import App, running

CERTIFICATE_SECONDS = 5.0  # how often certificate files are checked for a replacement


@dataclass(frozen=True, slots=True)
class Start:
    """The arguments of a gateway process; the parent sends them to its workers."""

    config: Config
    file: Path | None  # where the configuration came from, for a reload
    variables: Mapping[str, str] = field(
        default_factory=dict
    )  # options of the command line, as AMTP_ variables
    dsn: str = ""
    processes: int = 1  # that listen on the same ports
    succeeds: str = ""  # of a replacement worker, how the one before was lost: silent, ended

    def load(self) -> Config:
        return load(self.file, {**os.environ, **self.variables})


Ready = Callable[[tuple[int, ...]], Awaitable[None]]  # called with the ports


async def run(start: Start, signals: Signals, journal: Journal, ready: Ready) -> None:
    """Serves until a stop signal; requests under way are answered before it returns."""
    certificates = Certificates(start.config, journal)
    try:
        async with running(
            start.config,
            start.dsn,
            clock=Clock(),
            journal=journal,
            tls=certificates.context,
            processes=start.processes,
        ) as app:
            keep_for_good()
            await ready(app.ports)
            signals.started()
            await _until_told(start, app, signals, certificates)
            journal.draining(signals.reason)
    except AMTPError as failure:
        raise explained(failure, start.config) from None


def keep_for_good() -> None:
    """Freezes the objects made so far: garbage collection would pause all requests to scan them again and again."""
    gc.collect()
    gc.freeze()


async def _until_told(start: Start, app: App, signals: Signals, certificates: "Certificates") -> None:
    chores = [
        asyncio.create_task(certificates.watch()),
        asyncio.create_task(_follow(start, app, signals, certificates)),
    ]
    try:
        await signals.stop.wait()
    finally:
        for chore in chores:
            chore.cancel()
        await asyncio.wait(chores)


def journal_of(config: Config) -> Journal:
    """Returns this process's journal, which also gets what libraries log."""
    journal = Journal(form=config.log.format, level=config.log.level)
    route_logs(journal, config.log)
    return journal


async def _follow(start: Start, app: App, signals: Signals, certificates: "Certificates") -> None:
    """Reloads the configuration at each reload signal and applies what changed."""
    config = start.config
    while True:
        await signals.reload.wait()
        signals.reload.clear()
        certificates.check()
        try:
            changed, changes = reloadable(config, start.load())
            app.adopt(changed)
        except ConfigError as error:
            app.journal.config_kept(error.faults)
            continue
        except TlsError as error:
            app.journal.config_kept([str(error)])
            continue
        config = changed
        route_logs(app.journal, config.log)
        app.journal.config_reloaded(changes)


class Certificates:
    """The listeners' TLS context, reloaded when its files change."""

    def __init__(self, config: Config, journal: Journal) -> None:
        self._journal = journal
        self._host = config.certified_host
        self.context: ssl.SSLContext | None = None
        self._reloader: CertificateReloader | None = None
        certificate, key = config.tls.certificate_file, config.tls.key_file
        if certificate and key and any(listener.tls for listener in config.listen):
            self.context = server_context(certificate, key, config.tls.client_ca_file)
            self._reloader = CertificateReloader(self.context, certificate, key)
            self._file, self._shown = certificate, shown(certificate)
            self._judge()

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(CERTIFICATE_SECONDS)
            self.check()

    def check(self) -> None:
        if self._reloader is None:
            return
        try:
            expires_at = self._reloader.check(Clock().now())
        except TlsError as fault:
            self._journal.certificate_kept(str(fault))
            return
        if expires_at is not None:
            self._journal.certificate_reloaded(str(self._file), expires_at)
            self._shown = shown(self._file)
        self._judge()

    def _judge(self) -> None:
        """Reports problems of the certificate; checked regularly, since it can expire meanwhile."""
        now = Clock().now()
        days = (self._shown.ends - now) / timedelta(days=1)
        self._journal.certificate_judged(str(self._file), days, self._shown.doubts(self._host, now))
