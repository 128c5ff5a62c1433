"""`amtp doctor`: checks all that a gateway needs, and gives a remedy for each problem."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import typer

from gateway.admit.caller import ADMIN
from gateway.cli.call import REFUSED, print_json
from gateway.cli.for_operators.finding import Finding
from gateway.cli.for_operators.listeners import listeners
from gateway.cli.for_operators.local_store import ConfigFile, DataFolder, reached, settings
from gateway.cli.for_operators.on_this_machine import on_this_machine
from gateway.cli.options import AsJson
from gateway.config.settings import Config, ConfigError
from gateway.journal.failures import reason
from gateway.serve.expected import EXPECTED
from gateway.store import migrate, sealed
from gateway.store.agents.keys import NamedKeys
from gateway.store.audit import Audit
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.health import Ailment, ailment, vitals
from gateway.store.row_ids import Mint

SKEW_SECONDS_MAX = 2.0  # beyond this, leases and expiries are affected


def doctor(config: ConfigFile = None, data: DataFolder = None, as_json: AsJson = False) -> None:
    """Check configuration, disk, keys, certificate, listeners, database, schema and clock; exit 1 on a problem."""
    findings = asyncio.run(_all(config, data))
    if as_json:
        rows = [asdict(finding) | {"ok": finding.ok} for finding in findings]
        print_json({"ok": all(finding.ok for finding in findings), "findings": rows})
    else:
        _tell(findings)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(REFUSED)


def _tell(findings: list[Finding]) -> None:
    for finding in findings:
        typer.echo(f"{'ok     ' if finding.ok else 'PROBLEM'} {finding.name:<14} {finding.text}")
        if finding.remedy:
            typer.echo(f"{'':7} {'':14} -> {finding.remedy}")


async def _all(file: Path | None, data: Path | None) -> list[Finding]:
    try:
        config = settings(file, data)
    except ConfigError as error:
        return [Finding("configuration", fault, "correct it; amtp check-config") for fault in error.faults]
    about = f"for {', '.join(config.domains)}" if config.domains else f"the data folder {config.data} alone"
    findings = [Finding("configuration", f"good, {about}"), *on_this_machine(config), *listeners(config)]
    async with aclosing(_in_the_database(config)) as looks:
        findings += [finding async for finding in looks]
    return findings


async def _in_the_database(config: Config) -> AsyncGenerator[Finding, None]:
    if not config.database.url and not (config.data / "postgres").exists():
        yield Finding("database", "not there yet; amtp serve makes it")
        return
    remedy = (
        "check that it runs and that database.url leads to it"
        if config.database.url
        else "read the gateway's log, and make room on the disk if it is full"
    )
    try:
        async with reached(config) as database:
            async for finding in _about(database, config.data):
                yield finding
    except EXPECTED as failure:
        why = reason(failure.__cause__) if failure.__cause__ else str(failure)
        yield Finding("database", f"can't be used: {why}", remedy)


async def _about(database: Database, data: Path) -> AsyncIterator[Finding]:
    before = datetime.now(UTC)
    found = await vitals(database)
    after = datetime.now(UTC)
    ill = await ailment(database)
    if ill is Ailment.READ_ONLY:
        yield Finding("database", "takes no writes", "point database.url at the primary, or make room there")
    else:
        yield Finding("database", f"Postgres {found.release} answers and takes writes")
    yield judge_clock(found.now, before, after)
    lacking = await migrate.pending(database)
    if lacking:
        yield Finding("schema", f"lacks {', '.join(lacking)}", "run amtp migrate")
        return
    yield Finding("schema", "is up to date")
    yield await _secrets(database, data)
    yield await _admin_keys(database)


def judge_clock(theirs: datetime, before: datetime, after: datetime) -> Finding:
    """Compares the database's clock with ours; allows for the duration of the query."""
    seconds = max((before - theirs).total_seconds(), (theirs - after).total_seconds(), 0.0)
    text = f"{seconds:.1f} s between this machine and the database"
    return Finding("clock", text, "let NTP set both" if seconds > SKEW_SECONDS_MAX else "")


async def _secrets(database: Database, data: Path) -> Finding:
    name, one = "sealed secrets", await sealed.sample(database)
    if one is None:
        return Finding(name, "there is none yet")
    try:
        good = (data / sealed.KEY_FILE).exists() and sealed.Sealer.of(data).opens(one)
    except sealed.SealError:
        good = False
    return (
        Finding(name, f"{sealed.KEY_FILE} opens them")
        if good
        else Finding(name, f"{data / sealed.KEY_FILE} doesn't open them", sealed.REMEDY)
    )


async def _admin_keys(database: Database) -> Finding:
    keys = await NamedKeys(database, Audit(Mint(Clock())())).all()
    names = [key.name for key in keys if key.revoked_at is None and ADMIN in key.scopes]
    if not names:
        return Finding("admin keys", "none is in force", "amtp admin-keys add NAME")
    return Finding("admin keys", f"{len(names)} in force: {', '.join(names[:5])}")
