"""Another commit's gateway measured in turn with this one: the ratio of CPU per message says what a change costs.

Rates swing by half with the machine's minutes, and CPU per message by some percent. So each row is measured by turns,
A B A B, each time on a fresh database, and medians are compared. The load is this tree's for both, the libraries too.
"""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.figures import Figure, line
from tests.bench.site import ROOT

RATIO_MAX = 1.10  # of CPU per message; what is above costs more than noise explains
LOAD = ("client", "webhook")  # no part of what is measured


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A folder with that commit's files, for as long as the block lasts."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE)
    if archive.returncode:
        raise SystemExit(f"git knows no commit {commit}")
    with TemporaryDirectory(prefix="amtp-bench-") as folder:
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder)


@dataclass(frozen=True, slots=True)
class Pair:
    """A row measured for both."""

    here: Figure
    there: Figure

    @property
    def ratios(self) -> dict[str, float]:
        """CPU per message here against there, by process; of a row without messages, the figures themselves."""
        here, there = _microseconds(self.here), _microseconds(self.there)
        if not here:
            return {"figure": self.here.value / self.there.value} if self.there.value > 0 else {}
        return {name: here[name] / there[name] for name in here if there.get(name)}

    @property
    def costly(self) -> bool:
        return bool(_microseconds(self.here)) and max(self.ratios.values(), default=0) > RATIO_MAX

    def record(self) -> dict[str, Any]:
        return {"here": self.here.record(), "there": self.there.record(), "ratios": self.ratios}


def _microseconds(figure: Figure) -> dict[str, float]:
    return {name: spent for name, spent in figure.middle.microseconds.items() if name not in LOAD}


def paired(here: Sequence[Sequence[Figure]], there: Sequence[Sequence[Figure]]) -> list[Pair]:
    """The same rows of both, with the runs of all rounds."""
    return [Pair(*both) for both in zip(_merged(here), _merged(there), strict=True)]


def _merged(rounds: Sequence[Sequence[Figure]]) -> list[Figure]:
    return [
        replace(figures[0], runs=[run for figure in figures for run in figure.runs])
        for figures in zip(*rounds, strict=True)
    ]


def lines(pair: Pair, commit: str) -> str:
    """Both figures, this one beside its floor, and the ratios."""
    there = replace(pair.there, name=f"... {commit}", floor=None, aim=None)
    ratios = "  ".join(f"{name} {ratio:.3f}" for name, ratio in pair.ratios.items())
    verdict = "MORE" if pair.costly else "    "
    return "\n".join((line(pair.here), line(there), f"{verdict} ... here against there: {ratios or '-'}"))
