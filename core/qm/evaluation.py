"""Two runs of the same samples, the float model's and the artifact's, compared as they come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qm.errors import UsageError
from qm.numerics import Comparison
from qm.types import Array, Batch
from qm.verdict import top1


@dataclass
class Evaluation:
    """What is known per sample: outputs are dropped, the comparison and the predictions are kept.

    ``before`` and ``after`` are predicted classes where the outputs are scores of classes, empty else.
    """

    comparison: Comparison = field(default_factory=Comparison)
    labels: list[int] = field(default_factory=list)
    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)

    def update(self, before: Batch, after: Batch, label: int | None) -> None:
        """Take in one sample's outputs."""
        self.comparison.update(before, after)
        if label is not None:
            self.labels.append(label)
        first, second = predicted(before, label), predicted(after, label)
        if first is not None and second is not None:
            self.before.append(first)
            self.after.append(second)


def evaluate(pairs: Iterable[tuple[Batch, Batch]], labels: Sequence[int] | NDArray[np.int64] | None) -> Evaluation:
    """Outputs before and after, sample by sample; ``labels``, where given, has one entry a sample.

    Raises:
        UsageError: there are labels, and the outputs are not scores of classes.
    """
    evaluation = Evaluation()
    for index, (before, after) in enumerate(pairs):
        evaluation.update(before, matched(before, after), None if labels is None else int(labels[index]))
    return evaluation


def matched(before: Batch, after: Batch) -> Batch:
    """The outputs of ``after`` under the names of ``before``: by name, and by position where names differ."""
    if set(before) == set(after) or len(before) != len(after):
        return after
    return dict(zip(before, after.values(), strict=True))


def predicted(outputs: Batch, label: int | None) -> int | None:
    """The class with the highest score, in the first output that is one row of scores, with one for the label.

    None where no output is a row of scores and there is no label.

    Raises:
        UsageError: there is a label, and no output that has a score for it.
    """
    least = 2 if label is None else max(label + 1, 2)
    scores = next((row for row in map(_row, outputs.values()) if row is not None and row.size >= least), None)
    if scores is not None:
        return int(top1(scores)[0])
    if label is None:
        return None
    shapes = ", ".join(f"{name} {list(np.shape(value))}" for name, value in outputs.items())
    raise UsageError(
        f"label {label} does not fit the model's outputs: {shapes}",
        hint="Give labels that count classes from 0, or leave them out: name the arrays, as in file.npz:x_test.",
    )


def _row(value: Array) -> Array | None:
    """The scores of one sample, where the output is one row of them."""
    flat = np.squeeze(np.asarray(value))
    return flat if flat.ndim == 1 else None
