"""What is going on: a living table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from examples.demo.house import House
from examples.demo.traffic import Books

LINE_SECONDS = 2.0  # between two lines where there is no terminal


class Screen:
    """`tell` says what happens next; `show` draws the table anew."""

    def __init__(self, houses: Sequence[House], books: Books) -> None:
        self._houses = houses
        self._books = books
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._next_line = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.show(last=True)
        if self._live is not None:
            self._live.stop()

    def tell(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)
        self.show()

    def show(self, *, last: bool = False) -> None:
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
        elif last or time.monotonic() > self._next_line:
            self._next_line = time.monotonic() + LINE_SECONDS
            self._console.print(self._line(), markup=False, soft_wrap=True)

    def _table(self) -> Table:
        table = Table("Domain", "Gateway", "Killed", "Acknowledged for it", "Arrived in its inboxes")
        for house in self._houses:
            style = {"running": "green", "KILLED": "bold red"}.get(house.state, "yellow")
            table.add_row(
                house.domain,
                f"[{style}]{house.state}[/]",
                str(house.deaths),
                str(self._books.acknowledged_for(house.domain)),
                str(self._books.arrived_at(house.domain)),
            )
        return table

    def _line(self) -> str:
        return "; ".join(
            f"{house.domain} {house.state}: {self._books.arrived_at(house.domain)}"
            f" of {self._books.acknowledged_for(house.domain)} acknowledged messages arrived"
            for house in self._houses
        )
