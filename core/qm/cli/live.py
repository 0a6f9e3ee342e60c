"""The table of a comparison while it is being measured, on standard error where that is a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live as Display
from rich.text import Text

from qm.cli.show_contest import contest_table
from qm.clock import Round
from qm.contest import Contest
from qm.interval import of_rounds
from qm.meet import Meet

T = TypeVar("T")


class Live:
    """Rows that fill up, and a line that says what is being done.

    It is drawn between measurements only: a thread that draws would be timed along.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, markup=False, highlight=False, emoji=False)
        self._display = Display(console=self._console, auto_refresh=False, transient=True)
        self._contest: Contest | None = None
        self._doing = ""

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.stop()

    def watch(self, meet: Meet, name: str, what: str) -> None:
        """Take in how far the comparison is."""
        if self._console.is_terminal:
            self._contest = meet.contest()
            self._doing = f"{name}: {what}"
            self._draw("")

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """The items, one by one, while the line says how many are done, and of timings what they amount to so far."""
        rounds: list[Round] = []
        drawn = 0.0
        for done, item in enumerate(items):
            if isinstance(item, Round):
                rounds.append(item)
                self._draw(_so_far(rounds))
            elif self._console.get_time() - drawn > 0.2:
                drawn = self._console.get_time()
                self._draw(f"{done}/{total}" if total else str(done))
            yield item

    def _draw(self, how_far: str) -> None:
        if not self._console.is_terminal:
            return
        parts: list[RenderableType] = [contest_table(self._contest), ""] if self._contest else []
        self._display.update(Group(*parts, Text(f"{self._doing} {how_far}".strip(), style="dim")), refresh=True)


def _so_far(rounds: list[Round]) -> str:
    found = of_rounds([r.ratios() for r in rounds], np.random.default_rng(0)).exp()
    return f"round {len(rounds)}, {found.estimate:.2f}x the speed so far ({found.low:.2f} to {found.high:.2f})"
