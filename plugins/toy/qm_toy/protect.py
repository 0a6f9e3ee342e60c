"""Find the layers that lose most, and keep them in a better scheme. It knows no framework: the bench does the work."""

from __future__ import annotations

from collections.abc import Iterator

from qm.plugin import Bench, Layer, PlanJob, Recipe, Rule, Scheme, UsageError


def plan(job: PlanJob) -> Recipe:
    """The recipe with rules that protect the ``count`` layers whose protection gains most.

    Raises:
        UsageError: no layer can get the better scheme, or all would be in float.
    """
    better = Scheme.parse(job.options.scheme)
    groups = [group for group in _groups(job.bench, job.recipe) if _can_get(job.bench, group, better)]
    if not groups:
        raise UsageError(
            f"no quantized layer can be protected in {str(better)!r}",
            hint="Name a scheme that the quantizer offers with -o scheme=, or leave it at float.",
        )
    if better.is_float and job.options.count >= len(groups):
        raise UsageError(
            f"leaving {job.options.count} layers in float would leave nothing to quantize",
            hint=f"Ask for fewer: -o count={len(groups) - 1}." if len(groups) > 1 else "Leave the planner out.",
        )
    given = job.bench.run(job.recipe).sqnr_db
    gains = {}
    for group in job.progress.track(groups, "try layers", len(groups)):
        gains[group] = job.bench.run(job.recipe.with_rules(*_rules(group, better))).sqnr_db - given
    worst = sorted(gains, key=lambda group: gains[group], reverse=True)[: job.options.count]
    for group in worst:
        job.notes.say(f"{' and '.join(group)} in {better}: {gains[group]:+.1f} dB")
    return job.recipe.with_rules(*(rule for group in worst for rule in _rules(group, better)))


def _groups(bench: Bench, recipe: Recipe) -> Iterator[tuple[str, ...]]:
    """The quantized layers by name, those that share a weight together."""
    quantized = bench.plan(recipe).quantized()
    together: dict[str, list[str]] = {}
    for layer in bench.layers:
        if layer.name in quantized:
            together.setdefault(f"tied {layer.tied}" if layer.tied else f"layer {layer.name}", []).append(layer.name)
    return map(tuple, together.values())


def _can_get(bench: Bench, group: tuple[str, ...], scheme: Scheme) -> bool:
    layers: list[Layer] = [layer for layer in bench.layers if layer.name in group]
    return scheme.is_float or all(scheme in bench.offers(layer) for layer in layers)


def _rules(group: tuple[str, ...], scheme: Scheme) -> list[Rule]:
    return [Rule.exactly(name, scheme) for name in group]
