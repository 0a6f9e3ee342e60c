"""Where trials are carried out: the model and the samples opened once, then recipe after recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np

from qm.catalog import Catalog
from qm.crossing import cross
from qm.data import Samples, open_data
from qm.errors import PluginError, UsageError
from qm.evaluation import Evaluation, evaluate
from qm.plugin import Batch, Memo, Model, Notes, Session
from qm.route import Route, find_route
from qm.step import load_model
from qm.trial import build, opened
from qm.tuning.job import Measured, Subject, TrialJob, finite
from qm.verdict import NO_CLASS

KEPT_VALUES = 1 << 24
"""Of the float model's answers, as many values are kept for the next trial."""


@dataclass
class Bench:
    """The float model on one side of a bridge, its samples, and what it answered."""

    model: Model
    samples: Samples
    known: dict[int, Batch] = field(default_factory=dict)
    values: int = 0
    memo: Memo = field(default_factory=Memo)
    calibration: tuple[int, ...] = ()

    def memo_for(self, calibration: tuple[int, ...]) -> Memo:
        """What methods keep between trials that calibrate on these samples; those of an earlier rung are let go."""
        if calibration != self.calibration:
            self.calibration, self.memo = calibration, Memo()
        return self.memo

    def pairs(self, session: Session, indices: Sequence[int]) -> Iterator[tuple[Batch, Batch]]:
        """The outputs of the float model and of the session for the samples of these indices."""
        for index, batch in zip(indices, self.samples.subset(indices), strict=True):
            yield self._reference(index, batch), session.run(batch)

    def _reference(self, index: int, batch: Batch) -> Batch:
        if index in self.known:
            return self.known[index]
        made = self.model.run(batch)
        self.values += sum(np.asarray(value).size for value in made.values())
        if self.values <= KEPT_VALUES:
            self.known[index] = made
        return made


class Lab:
    """Carries out the trials of one subject, in this process."""

    def __init__(self, subject: Subject, catalog: Catalog | None = None) -> None:
        self._subject = subject
        self._catalog = catalog or Catalog()
        self._benches: dict[tuple[str, ...], Bench] = {}

    def run(self, job: TrialJob, folder: Path) -> Measured:
        """Make the artifact in ``folder``, and hold it against the float model on the samples that judge.

        Raises:
            QmError: the recipe cannot be carried out, or what it makes does not run as the model does.
        """
        start = perf_counter()
        route = find_route(
            self._subject.model,
            job.recipe,
            self._catalog,
            to=folder / job.name,
            has_data=True,
            force=True,
            load=self._subject.load,
        )
        bench = self._bench(route)
        data = bench.samples.subset(job.calibration)
        artifact = build(
            self._catalog,
            route,
            bench.model,
            job.recipe,
            data=data,
            folder=folder,
            name=job.name,
            memo=bench.memo_for(job.calibration),
        )
        session = opened(self._catalog, artifact)
        _check_inputs(bench.model, session)
        labels = bench.samples.subset(job.judging).labels
        evaluation = evaluate(bench.pairs(session, job.judging), labels)
        if not evaluation.comparison.finite:
            raise PluginError(route.quantizers[-1].found.plugin, f"{job.name!r} gives outputs that are not finite")
        lost, gained = _flips(evaluation)
        return Measured(
            nbytes=artifact.nbytes,
            sqnr_db=finite(evaluation.comparison.sqnr_db),
            samples=len(job.judging),
            lost=lost,
            gained=gained,
            labelled=labels is not None,
            seconds=round(perf_counter() - start, 3),
            runtime=session.runtime,
        )

    def _bench(self, route: Route) -> Bench:
        bridge = route.bridge
        key = (route.loader.plugin, *((bridge.exporter.plugin, bridge.loader.plugin) if bridge else ()))
        if key not in self._benches:
            manager = self._catalog.manager
            model = load_model(manager, route.loader, self._subject.model, self._subject.load)
            if bridge is not None:
                model = cross(manager, bridge, model, Notes())
            self._benches[key] = Bench(model, open_data(self._subject.data, model.inputs()))
        return self._benches[key]


def _flips(evaluation: Evaluation) -> tuple[int | None, int | None]:
    """Samples lost and gained."""
    count = evaluation.comparison.samples
    if len(evaluation.before) != count:
        return None, None
    before, after = np.array(evaluation.before), np.array(evaluation.after)
    if not evaluation.labels:
        return int(((before != after) | (before == NO_CLASS)).sum()), 0
    labels = np.array(evaluation.labels)
    right, still = before == labels, after == labels
    return int((right & ~still).sum()), int((~right & still).sum())


def _check_inputs(model: Model, session: Session) -> None:
    """A file that is fed otherwise is another product, however small: whoever wants it asks for it."""
    wanted = sorted(spec.dtype for spec in model.inputs())
    got = sorted(spec.dtype for spec in session.inputs())
    if wanted != got:
        raise UsageError(
            f"it takes {', '.join(got)} where the model takes {', '.join(wanted)}", hint="Ask for it by qm quantize."
        )
