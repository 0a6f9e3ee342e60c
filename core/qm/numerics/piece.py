"""Large arrays in pieces, so that what is made of them on the way stays small."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product


def pieces(shape: tuple[int, ...], most: int) -> Iterator[tuple[slice, ...]]:
    """Slices of at most ``most`` elements that cover an array of ``shape``, one after another as they lie in memory."""
    steps: list[int] = []
    for n in reversed(shape):
        steps.insert(0, max(1, min(n, most)))
        most //= max(1, n)
    for starts in product(*(range(0, n, step) for n, step in zip(shape, steps, strict=True))):
        yield tuple(slice(start, min(start + step, n)) for start, step, n in zip(starts, steps, shape, strict=True))
