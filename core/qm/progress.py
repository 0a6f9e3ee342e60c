"""Progress of long work: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """What a job reports its progress to."""

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """The items, one by one, while the bar named ``label`` advances."""
        ...


class Silent:
    """Progress that nobody watches."""

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """The items, one by one."""
        yield from items


class Bars:
    """Progress bars on standard error, where that is a terminal."""

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """The items, one by one, while a bar with a time estimate advances."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        if not console.is_terminal:
            yield from items
            return
        columns = (TextColumn("{task.description:<24}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
        with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bars:
            yield from bars.track(items, description=label, total=total)
