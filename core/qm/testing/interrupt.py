"""Ctrl-C at a chosen moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Interrupt:
    """A progress bar whose watcher presses Ctrl-C after ``after`` steps."""

    def __init__(self, after: int) -> None:
        self._left = after
        self.pressed = False

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """The items, until it is enough."""
        for item in items:
            if self._left == 0:
                self.pressed = True
                raise KeyboardInterrupt
            self._left -= 1
            yield item
