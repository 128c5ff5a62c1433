"""`python -m conformance --url URL --domain DOMAIN --admin-key KEY [--peer ADDRESS]`: does this gateway speak AMTP?

Exit status: 0 when every check that was run passed, 1 when one failed, 2 when the target can't be tested.
`python -m conformance --peer ADDRESS --prepare` tells what a gateway must be told before --peer makes sense.
"""

import argparse
import asyncio
import os
import ssl
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from conformance import (
    s03_addresses,
    s03_discovery,
    s03_foreign_domains,
    s04_headers,
    s04_messages,
    s04_strict_json,
    s05_batches,
    s05_from_elsewhere,
    s05_to_elsewhere,
    s05_transport,
    s05_two_paths,
    s08_duplicates,
    s08_errors,
    s08_reports,
    s08_retries,
    s09_peer_tls,
    s09_security,
    s10_agents,
    s10_push,
    s12_attachments,
    s12_inbox,
    s12_status,
    s12_webhooks,
)
from conformance.abroad import Abroad
from conformance.check import Check, Level, checks_in
from conformance.report import Result, as_json, progress, table, write_junit
from conformance.target import Target, Unusable

SECTIONS = (
    s03_addresses,
    s03_discovery,
    s03_foreign_domains,
    s04_messages,
    s04_headers,
    s04_strict_json,
    s05_transport,
    s05_to_elsewhere,
    s05_from_elsewhere,
    s05_batches,
    s05_two_paths,
    s08_duplicates,
    s08_retries,
    s08_reports,
    s08_errors,
    s09_security,
    s09_peer_tls,
    s10_agents,
    s10_push,
    s12_status,
    s12_inbox,
    s12_webhooks,
    s12_attachments,
)
CHECK_SECONDS_MAX = 120.0
AT_ONCE = 16  # of the checks that wait for a gateway's next attempt, each with domains of its own
DNS_PORT = 8053
NEEDS_PEER = "needs --peer"


def arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    parser.add_argument("--url", help="where the gateway listens, such as https://amtp.example.com")
    parser.add_argument("--domain", help="a domain whose agents live there")
    parser.add_argument(
        "--admin-key",
        default=os.environ.get("AMTP_ADMIN_KEY"),
        help="a key that may register agents (default: AMTP_ADMIN_KEY of the environment)",
    )
    parser.add_argument("--level", choices=[*Level], default=Level.CORE, help="extended includes core")
    parser.add_argument("--section", type=int, help="only this section of the draft")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the results as JUnit XML, too")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="trust the certificates of this authority")
    parser.add_argument(
        "--peer",
        metavar="ADDRESS",
        help="look at what it does towards others, too: they listen at this address",
    )
    parser.add_argument(
        "--dns-port",
        type=int,
        default=DNS_PORT,
        help="of the DNS server at that address (default: %(default)s)",
    )
    parser.add_argument(
        "--keep",
        type=Path,
        default=Path("conformance-peer"),
        metavar="FOLDER",
        help="where the authority for the peers' certificates is kept (default: %(default)s)",
    )
    parser.add_argument(
        "--prepare",
        action="store_true",
        help="say what the gateway must be told for --peer, and check nothing",
    )
    parser.add_argument("--list", action="store_true", help="say what would be checked, and check nothing")
    return parser.parse_args(given)


def wanted(level: Level, section: int | None) -> list[Check]:
    return [
        check
        for check in checks_in(SECTIONS)
        if level in (Level.EXTENDED, check.level) and section in (None, check.section)
    ]


async def run(checks: Sequence[Check], target: Target, abroad: Abroad | None) -> list[Result]:
    """One after the other, as an answer must not depend on what else is asked; then those that mostly wait."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(target)
        await target.require()
        if abroad is not None:
            await stack.enter_async_context(abroad)
            await abroad.require(target)
        results = {check: await _result(check, target) for check in checks if not check.needs_peer}
        room = asyncio.Semaphore(AT_ONCE)

        async def look(check: Check) -> None:
            if abroad is None:
                results[check] = Result(check, 0.0, None, not_run=NEEDS_PEER)
                return
            async with room:
                results[check] = await _result(check, target, abroad)

        async with asyncio.TaskGroup() as group:
            for check in checks:
                if check.needs_peer:
                    group.create_task(look(check))
        return [results[check] for check in checks]


async def _result(check: Check, *places: Target | Abroad) -> Result:
    started = time.monotonic()
    failure = await _failure_of(check, *places)
    result = Result(check, time.monotonic() - started, failure)
    progress(result)
    return result


async def _failure_of(check: Check, *places: Target | Abroad) -> str | None:
    try:
        async with asyncio.timeout(CHECK_SECONDS_MAX):
            await check.run(*places)
    except TimeoutError:
        return f"no end within {CHECK_SECONDS_MAX:.0f} s"
    except (AssertionError, aiohttp.ClientError, OSError) as failure:
        return f"{failure}" or type(failure).__name__
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as failure:
        return f"an answer has another shape: {type(failure).__name__}: {failure}"
    return None


def main(given: Sequence[str]) -> int:
    options = arguments(given)
    checks = wanted(Level(options.level), options.section)
    if options.list:
        print("\n".join(f"{check.level:8}  {check.module}  {check.says}" for check in checks))
        return 0
    abroad = Abroad(options.keep, options.peer, options.dns_port) if options.peer else None
    if options.prepare:
        if abroad is None:
            return _misused("Say where the peers will listen: --peer ADDRESS, which the gateway can reach.")
        print(abroad.configuration)
        return 0
    if not (options.url and options.domain and options.admin_key and checks):
        return _misused("It takes --url, --domain and --admin-key, and a section that has checks.")
    tls = ssl.create_default_context(cafile=options.ca) if options.ca else None
    target = Target(options.url, options.domain, options.admin_key, tls)
    try:
        results = asyncio.run(run(checks, target, abroad))
    except Unusable as reason:
        return _misused(f"This target can't be tested: {reason}")
    if options.junit:
        write_junit(results, options.junit)
    print(as_json(results) if options.json else table(results))
    return 0 if all(result.failure is None for result in results) else 1


def _misused(reason: str) -> int:
    print(reason, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
