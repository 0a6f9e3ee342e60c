"""Recipes tried, and what becomes of those that a method, an exporter or a runtime refuses.

What each offers is said before anything is tried, layer by layer. That a scheme of one layer cannot go beside that of
its neighbours, or into this file, often shows only when the file is made: to a planner it is then not offered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from qm.plugin import PlanJob, Recipe, Scheme, Trial, Unsupported, UsageError
from qm_mixed.group import Group

Refused = Mapping[tuple[Group, Scheme], Unsupported]


def attempted(job: PlanJob, recipe: Recipe) -> Trial | None:
    """The recipe tried; None, with a note, where it is refused."""
    try:
        return job.bench.run(recipe)
    except Unsupported as e:
        job.notes.say(f"a plan was refused, and others are tried: {e.message}")
        return None


def leave_out(job: PlanJob, refused: Refused, tried: Iterable[tuple[Group, Scheme]]) -> None:
    """Say which schemes no layer, or not every layer, can have.

    Raises:
        UsageError: none is left.
    """
    by_scheme: dict[Scheme, list[Group]] = {}
    for group, scheme in refused:
        by_scheme.setdefault(scheme, []).append(group)
    for scheme, groups in by_scheme.items():
        count = sum(len(group.layers) for group in groups)
        layers = f"{str(groups[0])!r}" if len(groups) == 1 else f"{count} layers, such as {str(groups[0])!r}"
        job.notes.say(f"{scheme} is left out for {layers}: {refused[groups[0], scheme].message}")
    if refused and not any(tried):
        (group, scheme), why = next(iter(refused.items()))
        raise UsageError(
            f"every other scheme of every layer is refused, such as {scheme} for {str(group)!r}: {why.message}",
            hint=why.hint or "Name other schemes with -o ladder=.",
        )
