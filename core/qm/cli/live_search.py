"""The front of a search while it goes on, on standard error where that is a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live as Display
from rich.text import Text

from qm.cli.show_tuning import front_table
from qm.tuning import Sight


class Searching:
    """Rows of the front, and a line that says what is under way."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, markup=False, highlight=False, emoji=False)
        self._display = Display(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.stop()

    def watch(self, sight: Sight) -> None:
        """Draw how far the search is."""
        if self._console.is_terminal:
            line = Text(sight.words, style="dim")
            self._display.update(Group(front_table(sight.points), "", line), refresh=True)
