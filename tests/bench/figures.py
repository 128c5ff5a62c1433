"""Figures: what a row of the bench says, and how it is printed."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement."""

    value: float
    microseconds: dict[str, float] = field(default_factory=dict)  # of CPU for each message, by process
    shares: dict[str, float] = field(default_factory=dict)  # percent of a core, by process


@dataclass(frozen=True, slots=True)
class Figure:
    """A row: the median of its runs beside its floor."""

    name: str
    unit: str
    runs: Sequence[Run]
    floor: float | None = None  # for what should be small: a ceiling
    aim: float | None = None
    small: bool = False  # less is better
    note: str = ""
    load: float = field(default_factory=lambda: round(os.getloadavg()[0], 1))

    @property
    def middle(self) -> Run:
        """The medians of its runs, of each process by itself."""
        return Run(
            median(run.value for run in self.runs),
            _medians([run.microseconds for run in self.runs]),
            _medians([run.shares for run in self.runs]),
        )

    @property
    def value(self) -> float:
        return self.middle.value

    @property
    def met(self) -> bool | None:
        if self.floor is None:
            return None
        return self.value <= self.floor if self.small else self.value >= self.floor

    def record(self) -> dict[str, Any]:
        return {**asdict(self), "value": self.value, "met": self.met}


def _medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: median(run[name] for run in runs) for name in runs[0]}


def heading(facts: dict[str, str]) -> str:
    """What must be known to read the figures."""
    return "\n".join(f"{name}: {value}" for name, value in facts.items())


def line(figure: Figure) -> str:
    verdict = {True: "ok  ", False: "MISS", None: "    "}[figure.met]
    sign = "<=" if figure.small else ">="
    floor = f"{sign} {figure.floor:,g}" if figure.floor is not None else ""
    aim = f"aim {figure.aim:,g}" if figure.aim is not None else ""
    middle = figure.middle
    costs = " ".join(
        f"{name} {middle.microseconds.get(name, '-')} µs {share:g} %" for name, share in middle.shares.items()
    )
    spread = "/".join(f"{run.value:,.6g}" for run in figure.runs) if len(figure.runs) > 1 else ""
    parts = (
        f"{verdict} {figure.name:58} {figure.value:>12,.6g} {figure.unit:8} {floor:10} {aim:11}",
        costs,
        f"load {figure.load}",
        f"[{spread}]" if spread else "",
        figure.note,
    )
    return "  ".join(part for part in parts if part)


def rendered(facts: dict[str, str], records: Sequence[dict[str, Any]]) -> str:
    """Everything as one JSON document."""
    return json.dumps({"machine": facts, "figures": records}, indent=2)
