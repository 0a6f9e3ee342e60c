"""What a planner may do: look at the layers, work recipes out, and try them on the real runtime."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

from qm.catalog import Catalog
from qm.journal import Journal
from qm.layout import merged, work_out
from qm.plugin import Artifact, Batch, Dataset, Layer, Memo, Model, Plan, Recipe, Scheme, Speed, Target, Trial
from qm.route import Route
from qm.split import Batches
from qm.stopwatch import Stopwatch
from qm.trial import build, compared, opened


class Workbench:
    """A bench over the stages that follow the planner.

    ``calibration`` is what the quantizers see and ``judging`` what the trials are measured on; the verdict on the
    final artifact is made on other samples than these where there are enough. ``memo`` is for what the quantizers need
    for every plan, such as what calibration sees.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        route: Route,
        model: Model,
        calibration: Dataset | None,
        judging: Batches,
        journal: Journal,
        seed: int = 0,
        memo: Memo | None = None,
    ) -> None:
        self._catalog = catalog
        self._route = route
        self._model = model
        self._calibration = calibration
        self._judging = judging
        self._journal = journal
        self._seed = seed
        self._memo = Memo() if memo is None else memo

    @cached_property
    def layers(self) -> Sequence[Layer]:
        """The model's layers, in execution order."""
        return tuple(self._model.layers())

    @property
    def target(self) -> Target:
        """The device planned for."""
        return self._route.target

    @cached_property
    def float_nbytes(self) -> int:
        """Bytes of the model as it is now."""
        return self._model.nbytes()

    def offers(self, layer: Layer) -> tuple[Scheme, ...]:
        """The schemes that the stages after the planner offer for the layer and the target may run, float aside."""
        every = {scheme for leg in self._route.quantizers for scheme in leg.found.card.offers(layer)}
        return tuple(sorted((s for s in every if self.target.runs(s) is not False), key=str))

    def plan(self, recipe: Recipe) -> Plan:
        """The recipe worked out, layer by layer, float layers included."""
        return merged(work_out(recipe, self.layers, self._route.quantizers), self.layers)

    def run(self, recipe: Recipe) -> Trial:
        """Quantize, export and run the recipe; a plan tried before is remembered, not tried again."""
        key = self._key(recipe)
        known = self._journal.get(key)
        if known is None:
            known = self._measure(recipe)
            self._journal.add(key, known)
        return Trial(recipe=recipe, **known)

    def time(self, recipe: Recipe) -> Speed:
        """Time what the recipe makes, in turns with the first recipe timed; what was timed before is remembered."""
        key = f"time {self._key(recipe)}"
        known = self._journal.get(key)
        if known is None:
            known = asdict(self._stopwatch.time(recipe))
            self._journal.add(key, known)
        speed = Speed(**known)
        self._stopwatch.begin(recipe, speed)
        return speed

    @cached_property
    def _stopwatch(self) -> Stopwatch:
        return Stopwatch(self._catalog, self._build, self._judging[0], seed=self._seed)

    def _build(self, recipe: Recipe, folder: Path) -> Artifact:
        return build(
            self._catalog,
            self._route,
            self._model,
            recipe.model_copy(update={"seed": self._seed}),
            data=self._calibration,
            folder=folder,
            memo=self._memo,
        )

    def _key(self, recipe: Recipe) -> str:
        plan = {name: str(scheme) for name, scheme in self.plan(recipe).layers.items()}
        stages = [stage.model_dump(mode="json") for stage in recipe.stages]
        return hashlib.sha256(json.dumps([plan, stages], sort_keys=True).encode()).hexdigest()

    @cached_property
    def _reference(self) -> list[Batch]:
        return [self._model.run(batch) for batch in self._judging]

    def _measure(self, recipe: Recipe) -> dict[str, float | int | None]:
        with tempfile.TemporaryDirectory(prefix="qm-trial-") as folder:
            artifact = self._build(recipe, Path(folder))
            comparison = compared(opened(self._catalog, artifact), self._judging, self._reference)
            agreement = comparison.agreement
            return {
                "nbytes": artifact.nbytes,
                "sqnr_db": comparison.sqnr_db,
                "agreement": None if agreement != agreement else agreement,
            }
