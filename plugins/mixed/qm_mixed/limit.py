"""The limits of a plan, from what the user gave."""

from __future__ import annotations

from qm.plugin import Bench


def byte_limit(bench: Bench, max_bytes: int | None, max_ratio: float | None) -> float | None:
    """The tighter of the two, in bytes; None where neither is given."""
    given = [] if max_bytes is None else [float(max_bytes)]
    if max_ratio is not None:
        given.append(max_ratio * bench.float_nbytes)
    return min(given, default=None)
