"""How long the recipes of a planner take, each timed in turns with the first, so that a machine's moods fall out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median

from qm import clock
from qm.catalog import Catalog
from qm.plugin import Artifact, Batch, Can, OpTime, Recipe, Speed
from qm.worker import Worker

FIRST_S = 3.0
EACH_S = 6.0
"""Seconds that timing takes at least where processes start fast: the first alone, every other against the first."""
PRECISION = 0.02
PROFILES = 3

Build = Callable[[Recipe, Path], Artifact]


class Stopwatch:
    """Times what ``build`` makes of recipes in processes of their own, one thread, on one sample."""

    def __init__(self, catalog: Catalog, build: Build, batch: Batch, *, seed: int = 0) -> None:
        self._catalog, self._build, self._batch, self._seed = catalog, build, batch, seed
        self._folder = tempfile.TemporaryDirectory(prefix="qm-first-")
        self._first: tuple[Recipe, float] | None = None
        self._first_artifact: Artifact | None = None

    def begin(self, recipe: Recipe, speed: Speed) -> None:
        """Take the recipe for the first, where there is none yet: its time is known from before."""
        self._first = self._first or (recipe, speed.latency_us)

    def time(self, recipe: Recipe) -> Speed:
        """Time of one run, and of each layer in it.

        Raises:
            QmError: the recipe cannot be carried out, or what it makes does not run.
        """
        with tempfile.TemporaryDirectory(prefix="qm-timed-") as folder:
            artifact = self._build(recipe, Path(folder))
            latency_us = self._alone(artifact) if self._first is None else self._in_turns(artifact)
            speed = Speed(latency_us=latency_us, layers_us=self._by_layer(artifact))
        self.begin(recipe, speed)
        return speed

    def _open(self, artifact: Artifact) -> Worker:
        return Worker(artifact, benchmark=self._catalog.benchmark(artifact.format).plugin)

    def _alone(self, artifact: Artifact) -> float:
        with self._open(artifact) as worker:
            return clock.measure(worker, self._batch, precision=PRECISION, time_s=FIRST_S, seed=self._seed).latency_us

    def _in_turns(self, artifact: Artifact) -> float:
        assert self._first is not None
        recipe, latency_us = self._first
        if self._first_artifact is None:
            self._first_artifact = self._build(recipe, Path(self._folder.name))
        ratio = clock.compare(
            partial(self._open, self._first_artifact),
            partial(self._open, artifact),
            self._batch,
            precision=PRECISION,
            time_s=EACH_S,
            noise=0.0,
            seed=self._seed,
        )
        return latency_us / ratio.ratio

    def _by_layer(self, artifact: Artifact) -> dict[str, float]:
        if Can.PROFILE not in self._catalog.benchmark(artifact.format).card.can:
            return {}
        with self._open(artifact) as worker:
            profiles = [_sums(worker.profile(self._batch)) for _ in range(PROFILES)]
        return {name: median(p.get(name, 0.0) for p in profiles) for name in profiles[0]}


def _sums(operations: Iterable[OpTime]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for operation in operations:
        if operation.layer:
            sums[operation.layer] = sums.get(operation.layer, 0.0) + operation.latency_us
    return sums
