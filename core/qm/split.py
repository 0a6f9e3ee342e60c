"""Which samples are for what: ranges, the trials of a planner, the verdict. They do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qm.data import Samples
from qm.errors import QmError, UsageError
from qm.plugin import Batch, Layer, Model
from qm.recipe import Recipe
from qm.synthetic import FREE_LENGTHS, synthetic

TRIAL_SAMPLES = 256
MOST_TRIAL_SAMPLES = 1024
TRIAL_MACS = 2**35
"""Multiply-accumulates that a trial may take beyond its least samples: a second or so on one core of today."""
JUDGED_SAMPLES = 512
SYNTHETIC_SAMPLES = 8


Batches = Samples | Sequence[Batch]
"""Batches of one sample; those of a data set are read again at each pass, and not kept."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Samples by use; ``judged`` and ``whole`` are None where the inputs are made up."""

    whole: Samples | None
    calibration: Samples | None
    trial: Batches
    judging: Batches
    judged: Samples | None
    tried: tuple[int, ...] = ()

    @property
    def synthetic(self) -> bool:
        """Whether the inputs are made up."""
        return self.whole is None

    @property
    def labels(self) -> Sequence[int] | None:
        """Labels of the samples that judge."""
        labels = None if self.judged is None else self.judged.labels
        return None if labels is None else [int(label) for label in labels]


def trial_samples(layers: Sequence[Layer]) -> int:
    """How many samples judge a trial of a model of these layers: the smaller it is, the more."""
    macs = sum(layer.macs for layer in layers)
    return min(MOST_TRIAL_SAMPLES, max(TRIAL_SAMPLES, TRIAL_MACS // macs)) if macs else TRIAL_SAMPLES


def divided(samples: Samples, recipe: Recipe, *, trials: int = 0, wanted: int | None = 128) -> Split:
    """Samples drawn by the recipe's seed: ``recipe.samples`` are for the methods, the rest judges.

    Where the recipe does not say, methods get half of all, at most ``wanted``; where that is None, all but a fifth, or
    but those that the verdict takes. A planner's trials take half of the rest, at most ``trials``: on few, the best of
    many plans looks better than it is. The verdict is on at most 512.

    Raises:
        UsageError: there are too few.
    """
    kept = min(JUDGED_SAMPLES, -(-len(samples) // 5))
    usual = len(samples) - kept if wanted is None else min(wanted, len(samples) // 2)
    count = recipe.samples or max(1, usual)
    if recipe.samples is not None and recipe.samples >= len(samples) > 1:
        raise UsageError(
            f"{recipe.samples} samples to calibrate leave none of {len(samples)} to judge the result on",
            hint=f"Give more samples, or --samples {len(samples) // 2}.",
        )
    calibration, rest = samples.split(count, recipe.seed)
    trial, tried = rest, tuple[int, ...]()
    if trials and len(rest) > 1:
        trial, rest = rest.split(min(trials, len(rest) // 2), recipe.seed)
        tried = trial.indices
    judged = rest.take(JUDGED_SAMPLES, recipe.seed)
    return Split(whole=samples, calibration=calibration, trial=trial, judging=judged, judged=judged, tried=tried)


def made_up(model: Model, seed: int) -> Split:
    """Made-up inputs; none where the model cannot be run on them, or may be too large to be run without need."""
    batches: list[Batch] = []
    for length in () if model.is_streamed else FREE_LENGTHS:
        tried: list[Batch] = list(synthetic(model.inputs(), SYNTHETIC_SAMPLES, seed, free_length=length))
        try:
            model.run(tried[0])
        except QmError:
            continue
        batches = tried
        break
    return Split(whole=None, calibration=None, trial=batches, judging=batches, judged=None)
