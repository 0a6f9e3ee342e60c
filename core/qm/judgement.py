"""From outcomes per sample to the figures of a report."""

from __future__ import annotations

from qm.evaluation import Evaluation
from qm.report import Quality, rounded
from qm.verdict import accuracy, agreement


def quality_of(evaluation: Evaluation, *, synthetic: bool = False) -> Quality:
    """The figures of one evaluation: accuracy where there are labels, agreement where the outputs are scores."""
    comparison = evaluation.comparison
    cosines = [t.cosine for t in comparison.outputs.values() if t.cosine == t.cosine]
    complete = len(evaluation.before) == comparison.samples > 0
    return Quality(
        n=comparison.samples,
        sqnr_db=rounded(comparison.sqnr_db),
        cosine=rounded(min(cosines), 6) if cosines else None,
        agreement=agreement(evaluation.before, evaluation.after) if complete else None,
        accuracy=accuracy(evaluation.labels, evaluation.before, evaluation.after)
        if complete and evaluation.labels
        else None,
        synthetic=synthetic,
    )
