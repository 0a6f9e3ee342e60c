"""From outcomes per sample to the figures of a report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qm.evaluation import Evaluation
from qm.report import Outcomes, Quality, rounded
from qm.verdict import accuracy, agreement


def quality_of(
    evaluation: Evaluation, *, synthetic: bool = False, indices: Sequence[int] = (), margin: float | None = None
) -> Quality:
    """The figures of one evaluation: accuracy where there are labels, agreement where the outputs are scores.

    ``indices`` says which of the whole set the samples are, where they are not the first ones; ``margin`` is the loss
    of accuracy that a verdict is wanted against.
    """
    comparison = evaluation.comparison
    cosines = [t.cosine for t in comparison.outputs.values() if t.cosine == t.cosine]
    complete = len(evaluation.before) == comparison.samples > 0
    return Quality(
        n=comparison.samples,
        sqnr_db=rounded(comparison.sqnr_db),
        cosine=rounded(min(cosines), 6) if cosines else None,
        agreement=agreement(evaluation.before, evaluation.after) if complete else None,
        accuracy=accuracy(evaluation.labels, evaluation.before, evaluation.after, margin=margin)
        if complete and evaluation.labels
        else None,
        synthetic=synthetic,
        outcomes=outcomes_of(evaluation, indices),
    )


def outcomes_of(evaluation: Evaluation, indices: Sequence[int] = ()) -> Outcomes | None:
    """What became of each sample, None where nothing was compared."""
    count = evaluation.comparison.samples
    if not count:
        return None
    whole = len(evaluation.before) == count
    return Outcomes(
        index=tuple(int(i) for i in indices) if len(indices) == count else tuple(range(count)),
        label=tuple(evaluation.labels) if len(evaluation.labels) == count else (),
        before=tuple(evaluation.before) if whole else (),
        after=tuple(evaluation.after) if whole else (),
        sqnr_db=_worst_by_sample(evaluation),
        **_columns("loss", evaluation.losses, count),
        **_columns("metric", evaluation.values, count),
    )


def _columns(name: str, pairs: Sequence[tuple[float, float]], count: int) -> dict[str, tuple[float, ...]]:
    """Two columns to six digits, none where a sample has no value."""
    if len(pairs) != count:
        return {}
    return {f"{name}_{side}": tuple(float(f"{p[i]:.6g}") for p in pairs) for i, side in enumerate(("before", "after"))}


def _worst_by_sample(evaluation: Evaluation) -> tuple[float | None, ...]:
    """By sample, the SQNR of its worst output; integers count where no output is float."""
    tallies = evaluation.comparison.outputs.values()
    rows = [t.sample_sqnr_db for t in [t for t in tallies if t.is_float] or tallies]
    if len({len(row) for row in rows}) != 1:
        return ()
    # What cannot be said of one output cannot be said of the sample: NaN wins.
    return tuple(rounded(float(value), 2) for value in np.minimum.reduce(rows))
