"""Recipes tried on the real runtime, remembered, until time is up."""

from __future__ import annotations

import hashlib
import json
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any, Literal

from qm.catalog import Catalog
from qm.diagnosis.evidence import Evidence
from qm.diagnosis.explanation import Remedy, Speed
from qm.diagnosis.pair import Pair, route_of
from qm.errors import QmError
from qm.journal import Journal
from qm.layout import merged, work_out
from qm.plugin import Artifact, Batch, Dataset, Layer, Plan, Recipe, Scheme, Trial
from qm.report import rounded
from qm.route import Route
from qm.trial import build, compared, opened
from qm.worker import Worker

PAIRS = 5
BLOCK_S = 0.1
MOST_RUNS = 10


How = Literal["plain", "rough", "timed"]


class Late(Exception):
    """Time is up."""


class Trials:
    """Tries recipes against the artifact. ``deadline`` is on the monotonic clock; ``times`` asks for speed too."""

    def __init__(
        self, pair: Pair, evidence: Evidence, journal: Journal, catalog: Catalog, *, deadline: float, threads: int = 1
    ) -> None:
        self.deadline = deadline
        self.count = 0
        self.times = True
        self.failures: list[str] = []
        self._pair, self._evidence, self._journal, self._catalog = pair, evidence, journal, catalog
        self._threads = threads
        self._routes: dict[str, Route] = {}
        self._reference: list[Batch] | None = None

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The baseline's layers."""
        return tuple(self._pair.before.model.layers())

    def route(self, recipe: Recipe) -> Route:
        """How the recipe is carried out; raises RouteError where it cannot be."""
        bare = recipe.model_copy(update={"rules": ()})
        if bare.text() not in self._routes:
            self._routes[bare.text()] = route_of(self._pair, recipe, self._catalog)
        return self._routes[bare.text()]

    def offers(self, recipe: Recipe, layer: Layer) -> tuple[Scheme, ...]:
        """The schemes that the recipe's methods offer for the layer."""
        legs = self.route(recipe).quantizers
        return tuple(sorted({s for leg in legs for s in leg.found.card.offers(layer)}, key=str))

    def plan(self, recipe: Recipe) -> Plan:
        """The recipe worked out."""
        return merged(work_out(recipe, self.layers, self.route(recipe).quantizers), self.layers)

    def run(self, recipe: Recipe, *, rough: bool = False) -> Trial | None:
        """The trial, None where the recipe cannot be carried out; a rough one is calibrated on a few samples.

        Raises:
            Late: it is not known yet, and time is up.
        """
        found = self._known(recipe, "rough" if rough else "plain")
        return None if found is None else _trial(recipe, found)

    def remedy(self, name: str, what: str, recipe: Recipe, against_db: float) -> Remedy | None:
        """The recipe tried and timed against the artifact, None where it cannot be carried out.

        Raises:
            Late: it is not known yet, and time is up.
        """
        found = self._known(recipe, "timed" if self.times else "plain")
        if found is None:
            return None
        sqnr = _number(found["sqnr_db"])
        return Remedy(
            name=name,
            what=what,
            sqnr_db=rounded(sqnr, 2),
            gain_db=rounded(sqnr - against_db, 2),
            agreement=found["agreement"],
            nbytes=found["nbytes"],
            speed=None if found.get("speed") is None else Speed(**found["speed"]),
            recipe=recipe,
        )

    def _known(self, recipe: Recipe, how: How) -> dict[str, Any] | None:
        try:
            key = f"{self._key(recipe)} {how}"
            known = self._journal.get(key)
            if known is None:
                if monotonic() > self.deadline:
                    raise Late
                known = self._measure(recipe, how)
                self._journal.add(key, known)
        except QmError as e:
            self.failures.append(e.message)
            return None
        self.count += 1
        return known

    def _key(self, recipe: Recipe) -> str:
        plan = {name: str(scheme) for name, scheme in self.plan(recipe).layers.items()}
        stages = [stage.model_dump(mode="json") for stage in recipe.stages]
        target = self.route(recipe).target.model_dump(mode="json")
        subject = [self._evidence.fingerprint, recipe.seed, target, stages, plan]
        return hashlib.sha256(json.dumps(subject, sort_keys=True).encode()).hexdigest()

    def _measure(self, recipe: Recipe, how: How) -> dict[str, Any]:
        if self._reference is None:
            self._reference = [self._pair.before.model.run(batch) for batch in self._evidence.judging]
        calibration = self._evidence.few if how == "rough" else self._evidence.calibration
        with self._built(recipe, calibration) as artifact:
            comparison = compared(opened(self._catalog, artifact), self._evidence.judging, self._reference)
            found: dict[str, Any] = {
                "nbytes": artifact.nbytes,
                "sqnr_db": repr(float(comparison.sqnr_db)),
                "agreement": rounded(comparison.agreement),
            }
            if how == "timed":
                with suppress(QmError):
                    found["speed"] = self._speed(artifact).model_dump(mode="json")
            return found

    @contextmanager
    def _built(self, recipe: Recipe, calibration: Dataset) -> Iterator[Artifact]:
        with tempfile.TemporaryDirectory(prefix="qm-trial-") as folder:
            model = self._pair.before.model
            yield build(self._catalog, self.route(recipe), model, recipe, data=calibration, folder=Path(folder))

    def _speed(self, tried: Artifact) -> Speed:
        """A few blocks of the artifact and of what was tried, in turn."""
        fmt = self._pair.after.loader.card.gives
        artifact = Artifact(path=self._pair.after.path, format=fmt)
        batch = self._evidence.judging[0]
        names = self._catalog.benchmark(fmt).plugin, self._catalog.benchmark(tried.format).plugin
        with (
            Worker(artifact, benchmark=names[0], threads=self._threads) as one,
            Worker(tried, benchmark=names[1], threads=self._threads) as other,
        ):
            start = perf_counter()
            other.block(batch, runs=1, drop=1)
            runs = max(1, min(MOST_RUNS, int(BLOCK_S / max(perf_counter() - start, 1e-9))))
            ratios = [_median(one, batch, runs) / _median(other, batch, runs) for _ in range(PAIRS)]
        return Speed(ratio=round(statistics.median(ratios), 3), low=round(min(ratios), 3), high=round(max(ratios), 3))


def _median(worker: Worker, batch: Batch, runs: int) -> float:
    return statistics.median(worker.block(batch, runs=runs, drop=1))


def _trial(recipe: Recipe, found: dict[str, Any]) -> Trial:
    return Trial(recipe=recipe, nbytes=found["nbytes"], sqnr_db=_number(found["sqnr_db"]), agreement=found["agreement"])


def _number(text: str) -> float:
    """A decibel figure, which may be infinite or none, as JSON cannot hold."""
    return float(text)
