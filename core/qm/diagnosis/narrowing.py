"""The smallest part of a list that still does: delta debugging, with the likely members first."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TypeVar

T = TypeVar("T")

Search = Generator[tuple[T, ...], bool, tuple[T, ...]]
"""Yields what to try, is sent whether it does, and returns the answer."""


def narrowed(ranked: Sequence[T]) -> Search[T]:
    """A smallest part of ``ranked`` that does, the whole being known to.

    The shortest beginning of the list that does is found first, then no single member of the answer can be spared.
    """
    start = yield from _beginning(ranked)
    return (yield from _minimized(start))


def _beginning(ranked: Sequence[T]) -> Search[T]:
    """The shortest beginning that does, by doubling and halving."""
    low, high = 0, 1
    while high < len(ranked):
        if (yield tuple(ranked[:high])):
            break
        low, high = high, 2 * high
    high = min(high, len(ranked))
    while high - low > 1:
        middle = (low + high) // 2
        if (yield tuple(ranked[:middle])):
            high = middle
        else:
            low = middle
    return tuple(ranked[:high])


def _minimized(items: tuple[T, ...]) -> Search[T]:
    """Members that are all needed.

    Source: Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002, figure 3 (ddmin).
    """
    count = 2
    failed: set[tuple[T, ...]] = set()
    while len(items) >= 2:
        chunks = [items[i * len(items) // count : (i + 1) * len(items) // count] for i in range(count)]
        rests = [tuple(x for x in items if x not in chunk) for chunk in chunks]
        smaller = yield from _first([*chunks, *rests], failed)
        if smaller is not None:
            count = 2 if smaller in chunks else count - 1
            items = smaller
        elif count >= len(items):
            break
        else:
            count = min(2 * count, len(items))
    return items


def _first(
    candidates: Sequence[tuple[T, ...]], failed: set[tuple[T, ...]]
) -> Generator[tuple[T, ...], bool, tuple[T, ...] | None]:
    """The first that does; those that do not join ``failed``, and are not asked for again."""
    for candidate in candidates:
        if candidate in failed:
            continue
        if (yield candidate):
            return candidate
        failed.add(candidate)
    return None
