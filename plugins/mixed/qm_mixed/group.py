"""Layers that must move together, and the schemes each may have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qm.plugin import FLOAT, Bench, Granularity, Layer, Recipe, Scheme, UsageError


@dataclass(frozen=True, kw_only=True)
class Group:
    """Layers of one scheme: one alone, or those that share a weight. ``start`` is what they have in the recipe."""

    layers: tuple[Layer, ...]
    start: Scheme
    choices: tuple[Scheme, ...]
    """The schemes they may get, the start among them."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(layer.name for layer in self.layers)

    def __str__(self) -> str:
        return " and ".join(self.names)

    def macs_bits(self, scheme: Scheme) -> float:
        """Multiply-accumulates of one sample, times the bits of the weights and of the activations.

        Source: Wang et al., "Differentiable joint pruning and quantization", 2020, equation 8 ("bit operations").
        """
        return float(sum(layer.macs for layer in self.layers)) * scheme.weight_bits * scheme.activation_bits


def groups(bench: Bench, recipe: Recipe, ladder: str) -> tuple[Group, ...]:
    """The groups that there is a choice for; layers that a rule of the recipe leaves in float stay there.

    Raises:
        UsageError: the ladder has a scheme that nobody offers, or there is no choice for any layer.
    """
    steps = tuple(Scheme.parse(text.strip()) for text in ladder.split(",") if text.strip())
    _check_offered(bench, steps)
    plan = bench.plan(recipe)
    made = []
    for layers in _together(bench.layers):
        start = plan[layers[0].name]
        if start.is_float and any(rule.matches(layer.name) for rule in recipe.rules for layer in layers):
            continue
        offered = [s for s in bench.offers(layers[0]) if all(s in bench.offers(layer) for layer in layers)]
        choices = {start, *(_chosen(offered, steps) if steps else _alike(offered, start))}
        if len(choices) > 1:
            made.append(Group(layers=layers, start=start, choices=tuple(sorted(choices, key=_size))))
    if not made:
        raise UsageError(
            "there is no layer with a choice of schemes",
            hint="Name more schemes with -o ladder=, or take out the rules that leave layers in float.",
        )
    return tuple(made)


def _together(layers: Sequence[Layer]) -> Iterator[tuple[Layer, ...]]:
    together: dict[tuple[str, str], list[Layer]] = {}
    for layer in layers:
        key = ("tied", layer.tied) if layer.tied else ("layer", layer.name)
        together.setdefault(key, []).append(layer)
    return map(tuple, together.values())


def _chosen(offered: Sequence[Scheme], steps: Sequence[Scheme]) -> set[Scheme]:
    return {s for s in steps if s.is_float or s in offered}


def _alike(offered: Sequence[Scheme], start: Scheme) -> set[Scheme]:
    """Schemes whose activations are those of the start, so that neighbours go on exchanging integers; and float."""
    alike = {s for s in offered if (s.activations, s.activation_bits) == (start.activations, start.activation_bits)}
    if start.granularity is not Granularity.TENSOR:
        alike = {s for s in alike if s.granularity is not Granularity.TENSOR}
    return {*alike, FLOAT}


def _size(scheme: Scheme) -> tuple[int, int, str]:
    return scheme.weight_bits, scheme.activation_bits, str(scheme)


def _check_offered(bench: Bench, steps: Sequence[Scheme]) -> None:
    every = {s for layer in bench.layers for s in bench.offers(layer)}
    for step in steps:
        if not step.is_float and step not in every:
            raise UsageError(
                f"the ladder has {str(step)!r}, which no method after the planner offers for any layer",
                hint=f"They offer {', '.join(sorted(map(str, every)))} and float.",
            )
