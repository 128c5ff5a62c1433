"""What processes cost, read from /proc: CPU seconds and resident memory of a process with its children."""

import os
import resource
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds by the name of who used them."""

    seconds: dict[str, float]

    def since(self, earlier: "Cost") -> "Cost":
        return Cost({name: spent - earlier.seconds[name] for name, spent in self.seconds.items()})

    def microseconds_each(self, count: int) -> dict[str, float]:
        return {name: round(spent * 1e6 / max(count, 1), 1) for name, spent in self.seconds.items()}

    def shares(self, elapsed_seconds: float) -> dict[str, float]:
        """Percent of one core."""
        return {name: round(spent * 100 / elapsed_seconds, 1) for name, spent in self.seconds.items()}


def cost_of(**roots: int) -> Cost:
    """What each process and its descendants have used so far, and all children of the bench that have ended."""
    table = _processes()
    seconds = {name: sum(table[pid].cpu for pid in _tree(root, table)) for name, root in roots.items()}
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost({**seconds, "client": ended.ru_utime + ended.ru_stime})


def resident_bytes(root: int) -> int:
    table = _processes()
    return sum(table[pid].resident for pid in _tree(root, table))


@dataclass(frozen=True, slots=True)
class _Process:
    parent: int
    cpu: float
    resident: int


def _processes() -> dict[int, _Process]:
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(") ")[2].split()
        except OSError:  # it ended while we looked
            continue
        used, of_ended_children = sum(map(int, fields[11:13])), sum(map(int, fields[13:15]))
        found[int(folder.name)] = _Process(
            int(fields[1]), (used + of_ended_children) / TICKS, int(fields[21]) * PAGE_BYTES
        )
    return found


def _tree(root: int, table: dict[int, _Process]) -> list[int]:
    """The process and everything below it."""
    tree, unseen = [], [root]
    while unseen:
        pid = unseen.pop()
        if pid in table:
            tree.append(pid)
            unseen += [child for child, process in table.items() if process.parent == pid]
    return tree
