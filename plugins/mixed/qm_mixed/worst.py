"""What each layer costs, one at a time, and a recipe in which the worst have a better scheme."""

from __future__ import annotations

import csv
from pathlib import Path

from qm.plugin import PlanJob, Recipe, Scheme, UsageError, written
from qm_mixed.cost import Cost, Costs, decibel, measure, noise, rules
from qm_mixed.group import Group
from qm_mixed.picture import picture

SHOWN = 10


def plan(job: PlanJob) -> Recipe:
    """The recipe with better schemes for the ``count`` groups that gain most from one.

    Raises:
        UsageError: there is nothing to choose, nothing would be left to quantize, or the table cannot be written.
    """
    options = job.options
    if options.table and Path(options.table).suffix != ".csv":
        raise UsageError(f"the table {options.table!r} is no .csv file", hint="Give it a name that ends in .csv.")
    costs = measure(job, options.ladder)
    job.charts.append(picture(costs))
    if options.table:
        _write(costs, Path(options.table))
    gains = sorted(_gains(costs), key=lambda gain: gain[2].noise)
    for group, scheme, cost in gains[:SHOWN]:
        job.notes.say(
            f"{group} in {scheme} instead of {group.start}: {_gained(costs, cost)}, {cost.nbytes:+,.0f} bytes"
        )
    if len(gains) > SHOWN:
        job.notes.say(f"and {len(gains) - SHOWN} more layers, which gain less; -o table=FILE.csv has them all")
    chosen = [(g, s) for g, s, cost in gains[: options.count] if cost.noise < 0]
    quantized = sum(not s.is_float for s in job.bench.plan(job.recipe).layers.values())
    if sum(len(g.layers) for g, s in chosen if s.is_float) >= quantized:
        raise UsageError(
            f"leaving {options.count} layers in float would leave nothing to quantize",
            hint="Ask for fewer with -o count=.",
        )
    return job.recipe.with_rules(*(rule for g, s in chosen for rule in rules(g, s)))


def _gains(costs: Costs) -> list[tuple[Group, Scheme, Cost]]:
    """The best other scheme of each group."""
    made = []
    for group, options in zip(costs.groups, costs.by_group, strict=True):
        others = {s: c for s, c in options.items() if s != group.start}
        if others:
            scheme = min(others, key=lambda s: (others[s].noise, others[s].nbytes))
            made.append((group, scheme, others[scheme]))
    return made


def _gained(costs: Costs, cost: Cost) -> str:
    return f"{decibel(noise(costs.start) + cost.noise) - decibel(noise(costs.start)):+.2f} dB"


def _write(costs: Costs, path: Path) -> None:
    """One row a layer and scheme; the layers of a group have the same numbers."""
    with written(path, force=True) as temporary, temporary.open("w", newline="", encoding="utf-8") as f:
        table = csv.writer(f)
        table.writerow(["layer", "kind", "weights", "macs", "scheme", "sqnr_db", "agreement", "nbytes"])
        for group, options in zip(costs.groups, costs.by_group, strict=True):
            for layer in group.layers:
                for scheme, cost in options.items():
                    t = cost.trial
                    agreed = "" if t.agreement is None else f"{t.agreement:.6f}"
                    table.writerow(
                        [
                            layer.name,
                            layer.kind,
                            layer.weights,
                            layer.macs,
                            scheme,
                            f"{t.sqnr_db:.4f}",
                            agreed,
                            t.nbytes,
                        ]
                    )
