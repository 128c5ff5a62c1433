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


def table(results: Sequence[Result]) -> str:
    """One line a check, what went wrong beneath it, and the sums."""
    lines = []
    module = ""
    for result in results:
        check = result.check
        if check.module != module:
            module = check.module
            lines.append(f"\n{module}")
        mark = "ok  " if result.failure is None else "FAIL"
        lines.append(f"  {mark}  {check.level:8}  {check.says}")
        if result.failure is not None:
            lines.append(f"        {check.name}: {result.failure}")
    return "\n".join([*lines, "", *map(_sum, *zip(*_sums(results), strict=True))])


def _sums(results: Sequence[Result]) -> list[tuple[Level, int, int]]:
    sums = []
    for level in Level:
        mine = [result for result in results if result.check.level is level]
        if mine:
            sums.append((level, sum(result.failure is None for result in mine), len(mine)))
    return sums or [(Level.CORE, 0, 0)]


def _sum(level: Level, passed: int, count: int) -> str:
    return f"{level:8}  {passed} of {count} passed"


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
        "passed": result.failure is None,
        "failure": result.failure,
        "seconds": round(result.seconds, 3),
    }


def write_junit(results: Sequence[Result], path: Path) -> None:
    failures = sum(result.failure is not None for result in results)
    suite = ET.Element("testsuite", name="AMTP conformance", tests=str(len(results)), failures=str(failures))
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
    ET.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def _printable(text: str) -> str:
    """XML has no place for control characters, and an answer may hold any."""
    return "".join(character if character.isprintable() else "?" for character in text)


def progress(result: Result) -> None:
    """A point for each check, on the terminal alone."""
    if sys.stderr.isatty():
        sys.stderr.write("." if result.failure is None else "F")
        sys.stderr.flush()
