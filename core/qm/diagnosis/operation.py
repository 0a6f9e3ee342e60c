"""Time by operation of both models, each profiled by its real runtime in a process of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from qm.catalog import Catalog
from qm.contender import apart, race, run_as, runnable
from qm.diagnosis.explanation import KindTime, LayerTime, Timing
from qm.errors import QmError
from qm.measurement import Ratio
from qm.plugin import Batch, Can, Notes, OpTime, Progress
from qm.worker import Worker


def timing(before: Path, after: Path, batch: Batch, *, catalog: Catalog, threads: int, notes: Notes) -> Timing | None:
    """Both profiles lined up; None where a runtime does not profile."""
    try:
        like = run_as(after, catalog)
        return lined_up(*(_profile(path, batch, catalog, threads, like) for path in (before, after)))
    except QmError as e:
        notes.say(f"nothing is said of time by operation: {e.message}")
        return None


def _profile(path: Path, batch: Batch, catalog: Catalog, threads: int, like: str) -> list[OpTime]:
    with runnable(path, catalog, like=like) as (artifact, loader):
        found = catalog.benchmark(artifact.format)
        if Can.PROFILE not in found.card.can:
            raise QmError(f"{found.plugin} does not profile operations")
        with Worker(artifact, benchmark=found.plugin, loader=loader.plugin, threads=threads) as worker:
            return worker.profile(batch)


def lined_up(before: list[OpTime], after: list[OpTime]) -> Timing:
    """The two profiles by layer and by kind of operation."""
    borders = [op for op in after if is_border(op)]
    first, second = _sums(before, "layer"), _sums(after, "layer")
    names = [name for name in dict.fromkeys([*first, *second]) if name]
    integer = {op.layer: op.integer for op in after if op.integer is not None}
    return Timing(
        before_us=_total(before),
        after_us=_total(after),
        border_us=_total(borders),
        borders=len(borders),
        layers=tuple(
            LayerTime(layer=n, before_us=first.get(n, 0.0), after_us=second.get(n, 0.0), integer=integer.get(n))
            for n in names
        ),
        kinds=_kinds(before, after),
        others=_kinds(*([op for op in ops if not op.layer and not is_border(op)] for ops in (before, after))),
    )


def _kinds(before: list[OpTime], after: list[OpTime]) -> tuple[KindTime, ...]:
    """Time by kind of operation, those that take most in either first."""
    first, second = _sums(before, "kind"), _sums(after, "kind")
    rows = [KindTime(kind=k, before_us=first.get(k, 0.0), after_us=second.get(k, 0.0)) for k in {**first, **second}]
    return tuple(sorted(rows, key=lambda row: -max(row.before_us, row.after_us)))


def is_border(op: OpTime) -> bool:
    """Whether the operation does nothing but take values to integers or back."""
    return op.integer is None and re.search("quantize", op.kind, re.IGNORECASE) is not None


def speed(
    before: Path, after: Path, batch: Batch, *, catalog: Catalog, threads: int, time_s: float, seed: int,
    notes: Notes, progress: Progress,
) -> Ratio | None:  # fmt: skip
    """How many times as fast the artifact is; None where that cannot be measured."""
    try:
        like = run_as(after, catalog)
        with runnable(before, catalog, like=like) as (one, _), runnable(after, catalog) as (other, _):
            if one.format != other.format:
                runtimes = catalog.benchmark(one.format).plugin, catalog.benchmark(other.format).plugin
                notes.say(apart(before, runtimes, catalog, other.format))
            return race(
                one, other, batch, catalog=catalog, threads=threads, time_s=time_s, seed=seed, progress=progress
            )
    except QmError as e:
        notes.say(f"speed was not measured: {e.message}")
        return None


def _sums(ops: Iterable[OpTime], key: str) -> dict[str, float]:
    sums: dict[str, float] = {}
    for op in ops:
        name = getattr(op, key)
        sums[name] = sums.get(name, 0.0) + op.latency_us
    return sums


def _total(ops: Iterable[OpTime]) -> float:
    return round(sum(op.latency_us for op in ops), 2)
