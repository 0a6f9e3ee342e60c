"""Caches emptied on purpose: what a model costs that shares the processor with other work."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import numpy as np

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
UNKNOWN_BYTES = 32 << 20
"""The last-level cache of a processor that does not tell: what a desktop has."""
MOST_BYTES = 512 << 20
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Eviction:
    """A buffer twice the size of the last-level cache; writing to all of it drives everything else out."""

    def __init__(self, nbytes: int | None = None) -> None:
        size = 2 * last_level_bytes() if nbytes is None else nbytes
        self._buffer = np.zeros(min(MOST_BYTES, size) // 8, np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes that are written to."""
        return int(self._buffer.nbytes)

    def evict(self) -> float:
        """Write to every cache line of the buffer; the seconds it took."""
        start = perf_counter()
        self._buffer += 1
        return perf_counter() - start


def last_level_bytes(caches: Path = _CACHES) -> int:
    """The size of the largest cache that the system tells of."""
    sizes = []
    for file in caches.glob("index*/size"):
        try:
            text = file.read_text(encoding="ascii").strip()
            sizes.append(int(text.rstrip("KMG")) * _UNITS.get(text[-1:], 1))
        except (OSError, ValueError):
            continue
    return max(sizes, default=UNKNOWN_BYTES)
