"""`python -m conformance --url URL --domain DOMAIN --admin-key KEY`: does this gateway speak AMTP?

Exit status: 0 when every check that was run passed, 1 when one failed, 2 when the target can't be tested.
"""

import argparse
import asyncio
import os
import ssl
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from conformance import (
    s03_addresses,
    s03_discovery,
    s04_headers,
    s04_messages,
    s04_strict_json,
    s05_transport,
    s08_duplicates,
    s08_errors,
    s09_security,
    s10_agents,
    s12_inbox,
    s12_status,
)
from conformance.check import Check, Level, checks_in
from conformance.report import Result, as_json, progress, table, write_junit
from conformance.target import Target, Unusable

SECTIONS = (
    s03_addresses,
    s03_discovery,
    s04_messages,
    s04_headers,
    s04_strict_json,
    s05_transport,
    s08_duplicates,
    s08_errors,
    s09_security,
    s10_agents,
    s12_status,
    s12_inbox,
)
CHECK_SECONDS_MAX = 120.0


def arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    parser.add_argument(
        "--url", required=True, help="where the gateway listens, such as https://amtp.example.com"
    )
    parser.add_argument("--domain", required=True, help="a domain whose agents live there")
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
    parser.add_argument("--list", action="store_true", help="say what would be checked, and check nothing")
    return parser.parse_args(given)


def wanted(level: Level, section: int | None) -> list[Check]:
    return [
        check
        for check in checks_in(SECTIONS)
        if level in (Level.EXTENDED, check.level) and section in (None, check.section)
    ]


async def run(checks: Sequence[Check], target: Target) -> list[Result]:
    """One after the other: a gateway's answers must not depend on what else is being asked."""
    results = []
    async with target:
        await target.require()
        for check in checks:
            started = time.monotonic()
            failure = await _failure_of(check, target)
            results.append(Result(check, time.monotonic() - started, failure))
            progress(results[-1])
    return results


async def _failure_of(check: Check, target: Target) -> str | None:
    try:
        async with asyncio.timeout(CHECK_SECONDS_MAX):
            await check.run(target)
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
    if not options.admin_key or not checks:
        print("An admin key is needed (--admin-key), and a section that has checks.", file=sys.stderr)
        return 2
    tls = ssl.create_default_context(cafile=options.ca) if options.ca else None
    try:
        results = asyncio.run(run(checks, Target(options.url, options.domain, options.admin_key, tls)))
    except Unusable as reason:
        print(f"This target can't be tested: {reason}", file=sys.stderr)
        return 2
    if options.junit:
        write_junit(results, options.junit)
    print(as_json(results) if options.json else table(results))
    return 0 if all(result.failure is None for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
