"""What would help where a goal was missed."""

from __future__ import annotations

from collections.abc import Iterator

from qm.catalog import Catalog
from qm.plugin import Planner
from qm.tuning.goal import Verdict
from qm.tuning.space import Cost, Space


def remedies(
    space: Space, catalog: Catalog, verdict: Verdict, *, untried: int, labelled: bool, by_answers: bool
) -> Iterator[str]:
    """What to do, the surest first; ``verdict`` is on the nearest model, ``by_answers`` says what it counts."""
    if verdict.needed is not None and verdict.likely:
        kind = "labelled samples" if labelled else "samples"
        yield f"give more samples: it takes about {verdict.needed:,} {kind} that judge to tell"
    if untried:
        yield f"give it more time: {untried} things to try were not begun, and the same command goes on from here"
    if by_answers and not labelled:
        yield "give labels: without them each answer that changes counts as lost, even where it was wrong before"
    if not any(c.cost is Cost.TRAINING for c in space.candidates):
        reason = next((r for name, r in space.left_out.items() if name.endswith(".qat")), "no installed method does")
        yield f"train: quantization-aware training wins back what rounding loses ({reason})"
    if any(f.plugin == "mixed.sensitivity" and not f.lacking() for f in catalog.all(Planner)):
        yield "mix schemes: keep the layers that lose most in a better one, by -p mixed.sensitivity before the method"
