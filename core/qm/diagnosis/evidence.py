"""The samples that explanations rest on: those that calibrate, and others that judge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qm.data import Samples, open_data
from qm.diagnosis.pair import Pair
from qm.errors import UsageError
from qm.plugin import Batch, Dataset, Notes
from qm.recipe import Recipe
from qm.split import Batches, divided, made_up

JUDGED = 32
FEW = 32
"""Samples that calibrate where layers are only ranked."""


@dataclass(frozen=True)
class Listed:
    """Batches as a data set without labels."""

    items: Sequence[Batch]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.items)

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """None."""
        return None


@dataclass(frozen=True)
class Evidence:
    """What calibrates the trials, and what judges them; ``fingerprint`` says which samples these are."""

    calibration: Dataset
    judging: Batches
    synthetic: bool
    fingerprint: str

    @property
    def few(self) -> Dataset:
        """Some of those that calibrate."""
        return self.calibration.take(FEW) if isinstance(self.calibration, Samples) else self.calibration


def gathered(pair: Pair, data: Any, *, samples: int | None, seed: int, notes: Notes) -> Evidence:
    """The samples: those that calibrated the artifact calibrate the trials, where its report tells.

    Raises:
        UsageError: the data do not fit, or nothing can be made up that the model takes.
    """
    if data is None:
        made = list(made_up(pair.before.model, seed).judging)
        if not made:
            raise UsageError("no inputs that the model takes could be made up", hint="Give samples with --data.")
        notes.say("no data: inputs are made up, so that only where error arises can be said, not how much; give --data")
        return Evidence(Listed(made), made, synthetic=True, fingerprint=f"made up {seed}")
    whole = open_data(data, pair.before.model.inputs())
    for note in whole.notes:
        notes.say(note)
    calibration, rest = _divided(pair, whole, seed)
    judging = rest.take(samples or JUDGED, seed)
    key = f"{whole.fingerprint} {calibration.indices} {judging.indices}"
    return Evidence(calibration, judging, synthetic=False, fingerprint=key)


def _divided(pair: Pair, whole: Samples, seed: int) -> tuple[Samples, Samples]:
    used = pair.report.data if pair.report is not None else None
    if used is not None and used.fingerprint == whole.fingerprint:
        calibrated = [i for i, index in enumerate(whole.indices) if index in set(used.calibrated)]
        seen = {*used.calibrated, *used.tried}
        rest = [i for i, index in enumerate(whole.indices) if index not in seen]
        if calibrated and rest:
            return whole.subset(calibrated), whole.subset(rest)
    split = divided(whole, Recipe(seed=seed))
    return split.calibration or whole, split.judged or whole
