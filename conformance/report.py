"""What came out, for people, for programs and for build servers."""

import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.check import Check, Level


@dataclass(frozen=True, slots=True)
class Result:
    check: Check
    seconds: float
    failure: str | None  # why it failed; None where it passed
    not_run: str | None = None  # what it would have needed

    @property
    def passed(self) -> bool:
        return self.failure is None and self.not_run is None

    @property
    def mark(self) -> str:
        if self.not_run is not None:
            return "--"
        return "ok" if self.passed else "FAIL"


def table(results: Sequence[Result]) -> str:
    """One line a check, what went wrong beneath it, and the sums."""
    lines = []
    module = ""
    for result in results:
        check = result.check
        if check.module != module:
            module = check.module
            lines.append(f"\n{module}")
            needed = {one.not_run for one in results if one.check.module == module} - {None}
            lines += [f"  not run: {why}" for why in needed]
        lines.append(f"  {result.mark:4}  {check.level:8}  {check.says}")
        if result.failure is not None:
            lines.append(f"        {check.name}: {result.failure}")
    levels = {level: [result for result in results if result.check.level is level] for level in Level}
    return "\n".join([*lines, "", *(_sum(level, mine) for level, mine in levels.items() if mine)])


def _sum(level: Level, results: Sequence[Result]) -> str:
    run = [result for result in results if result.not_run is None]
    left = f", {len(results) - len(run)} not run" if len(run) < len(results) else ""
    return f"{level:8}  {sum(result.passed for result in run)} of {len(run)} passed{left}"


def as_json(results: Sequence[Result]) -> str:
    return json.dumps([_shown(result) for result in results], indent=2)


def _shown(result: Result) -> dict[str, Any]:
    check = result.check
    return {
        "section": check.section,
        "module": check.module,
        "name": check.name,
        "level": check.level,
        "says": check.says,
        "passed": None if result.not_run else result.passed,
        "failure": result.failure,
        "not_run": result.not_run,
        "seconds": round(result.seconds, 3),
    }


def write_junit(results: Sequence[Result], path: Path) -> None:
    suite = ET.Element(
        "testsuite",
        name="AMTP conformance",
        tests=str(len(results)),
        failures=str(sum(result.failure is not None for result in results)),
        skipped=str(sum(result.not_run is not None for result in results)),
    )
    for result in results:
        check = result.check
        case = ET.SubElement(
            suite,
            "testcase",
            classname=f"conformance.{check.level}.{check.module}",
            name=check.name,
            time=f"{result.seconds:.3f}",
        )
        if result.failure is not None:
            failure = ET.SubElement(case, "failure", message=_printable(result.failure))
            failure.text = check.says
        if result.not_run is not None:
            ET.SubElement(case, "skipped", message=result.not_run)
    ET.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def _printable(text: str) -> str:
    """XML has no place for control characters, and an answer may hold any."""
    return "".join(character if character.isprintable() else "?" for character in text)


def progress(result: Result) -> None:
    """A point for each check, on the terminal alone."""
    if sys.stderr.isatty():
        sys.stderr.write({"ok": ".", "FAIL": "F"}.get(result.mark, "-"))
        sys.stderr.flush()
