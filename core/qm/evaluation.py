"""Two runs of the same samples, one model's and another's, compared as they come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qm.errors import UsageError
from qm.metric import Metric
from qm.numerics import Comparison
from qm.types import Array, Batch
from qm.verdict import NO_CLASS, top1

LEAST_PROBABILITY = 1e-9
"""A probability of zero, as quantized scores have it, would make the loss infinite."""


@dataclass(frozen=True)
class Outcome:
    """What one model made of one sample; None where the outputs or the lack of a label do not tell."""

    prediction: int | None = None
    loss: float | None = None
    value: float | None = None


@dataclass
class Evaluation:
    """What is known per sample: outputs are dropped, the comparison and the outcomes are kept.

    ``before`` and ``after`` are predicted classes where the outputs are scores of classes, empty else; so are
    ``losses``, and ``values`` of the user's metric. ``notes`` says how outputs were matched where their names differ.
    """

    comparison: Comparison = field(default_factory=Comparison)
    labels: list[int] = field(default_factory=list)
    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)
    losses: list[tuple[float, float]] = field(default_factory=list)
    values: list[tuple[float, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def update(self, before: Batch, after: Batch, label: int | None, *, outcomes: tuple[Outcome, Outcome]) -> None:
        """Take in one sample's outputs, under the same names, and what they amount to."""
        self.comparison.update(before, after)
        if label is not None:
            self.labels.append(label)
        first, second = outcomes
        if first.prediction is not None and second.prediction is not None:
            self.before.append(first.prediction)
            self.after.append(second.prediction)
        if first.loss is not None and second.loss is not None:
            self.losses.append((first.loss, second.loss))
        if first.value is not None and second.value is not None:
            self.values.append((first.value, second.value))


def evaluate(
    pairs: Iterable[tuple[Batch, Batch]],
    labels: Sequence[int] | NDArray[np.int64] | None,
    *,
    metric: Metric | None = None,
    indices: Sequence[int] | None = None,
) -> Evaluation:
    """Outputs before and after, sample by sample; ``labels`` and ``indices``, where given, have one entry a sample.

    Raises:
        UsageError: there are labels, and the outputs are not scores of classes; or the outputs cannot be matched.
    """
    evaluation = Evaluation()
    for position, (before, other) in enumerate(pairs):
        label = None if labels is None else int(labels[position])
        after = matched(before, other)
        if not position and (note := matching(before, other)):
            evaluation.notes.append(note)
        index = position if indices is None else indices[position]
        outcomes = outcome(before, label, index, metric), outcome(after, label, index, metric)
        evaluation.update(before, after, label, outcomes=outcomes)
    return evaluation


def outcome(outputs: Batch, label: int | None, index: int, metric: Metric | None = None) -> Outcome:
    """What the outputs for the sample of that index amount to; with a metric, they need not be scores of classes.

    Raises:
        UsageError: there is a label, no metric, and no output that has a score for it; or the metric failed.
    """
    value = None if metric is None else metric(outputs, label, index)
    scores = scores_of(outputs, label)
    if scores is None:
        return Outcome(prediction=None if metric is not None else predicted(outputs, label), value=value)
    loss = None if label is None or scores.dtype.kind != "f" else cross_entropy(scores, label)
    return Outcome(prediction=int(top1(scores)[0]), loss=loss, value=value)


def matched(before: Batch, after: Batch) -> Batch:
    """The outputs of ``after`` under the names of ``before``: by name, and by position where names differ.

    Raises:
        UsageError: they are not as many, and some names are lacking.
    """
    if set(before) <= set(after):
        return {name: after[name] for name in before}
    if len(before) == len(after):
        return dict(zip(before, after.values(), strict=True))
    raise UsageError(
        f"the outputs {', '.join(after)} cannot be matched with {', '.join(before)}: other names, and not as many",
        hint="Export both models with the same outputs.",
    )


def matching(before: Batch, after: Batch) -> str:
    """How the outputs were matched, where that was not by name alone."""
    if set(before) == set(after):
        return ""
    if set(before) <= set(after):
        return f"outputs left out of the comparison: {', '.join(name for name in after if name not in before)}"
    pairs = (f"{theirs!r} for {name!r}" for name, theirs in zip(before, after, strict=True) if name != theirs)
    return f"outputs matched by position: {', '.join(pairs)}"


def predicted(outputs: Batch, label: int | None) -> int | None:
    """The class with the highest score, in the first output that is one row of scores, with one for the label.

    None where no output is a row of scores and there is no label.

    Raises:
        UsageError: there is a label, and no output that has a score for it.
    """
    scores = scores_of(outputs, label)
    if scores is not None:
        return int(top1(scores)[0])
    if label is None:
        return None
    shapes = ", ".join(f"{name} {list(np.shape(value))}" for name, value in outputs.items())
    raise UsageError(
        f"label {label} does not fit the model's outputs: {shapes}",
        hint="Give labels that count classes from 0, or leave them out: name the arrays, as in file.npz:x_test.",
    )


def scores_of(outputs: Batch, label: int | None) -> Array | None:
    """The first output that is one row of scores, with one for the label."""
    least = 2 if label is None else max(label + 1, 2)
    return next((row for row in map(_row, outputs.values()) if row is not None and row.size >= least), None)


def cross_entropy(scores: Array, label: int) -> float:
    """The loss of one sample in nats, of scores that are probabilities or logits; the worst there is for NaN."""
    values = scores.astype(np.float64)
    if top1(values)[0] == NO_CLASS:
        return float(-np.log(LEAST_PROBABILITY))
    if values.min() < 0 or abs(values.sum() - 1) > 0.02:
        values = np.exp(values - values.max())
        values /= values.sum()
    return float(-np.log(max(values[label], LEAST_PROBABILITY)))


def _row(value: Array) -> Array | None:
    """The scores of one sample, where the output is one row of them."""
    flat = np.squeeze(np.asarray(value))
    return flat if flat.ndim == 1 else None
