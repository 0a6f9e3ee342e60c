"""A recipe worked out for one model: which layer gets which scheme, by which stage."""

from __future__ import annotations

from collections.abc import Sequence

from qm.errors import UsageError
from qm.plugin import Plan
from qm.recipe import Recipe, Rule
from qm.route import QuantizeLeg
from qm.scheme import FLOAT, Scheme
from qm.types import Layer


def work_out(recipe: Recipe, layers: Sequence[Layer], legs: Sequence[QuantizeLeg]) -> tuple[Plan, ...]:
    """One plan a stage. A layer goes to the first stage that offers it the scheme asked for.

    Where no rule speaks of a layer, it gets the scheme asked for all, or the default of the first stage that quantizes
    its kind, or what that stage puts in its place for such a layer; where no stage does, it stays in float.

    Raises:
        UsageError: a rule matches no layer, or none that can take its scheme; tied layers disagree; nothing is left to
            quantize.
    """
    _check_rules(recipe.rules, layers, legs)
    plans: list[dict[str, Scheme]] = [{} for _ in legs]
    for layer in layers:
        said = [r for r in recipe.rules if r.matches(layer.name)]
        for leg, plan in zip(legs, plans, strict=True):
            scheme = Scheme.parse(said[-1].scheme) if said else leg.default
            if scheme.is_float:
                break
            card = leg.found.card
            given = scheme if scheme in card.offers(layer) else None if said else card.nearest(layer, scheme)
            if given is not None:
                plan[layer.name] = given
                break
    _check_tied(recipe.rules, layers, plans)
    if not any(plans):
        names = " and ".join(leg.found.plugin for leg in legs)
        kinds = ", ".join(sorted({layer.kind for layer in layers})) or "none"
        raise UsageError(
            f"{names} has no layer to quantize in this model",
            hint=f"The kinds of layers with weights are: {kinds}. See qm inspect.",
        )
    return tuple(Plan(plan) for plan in plans)


def merged(plans: Sequence[Plan], layers: Sequence[Layer]) -> Plan:
    """The plans of all stages as one, float layers included, in the model's order."""
    every = {name: scheme for plan in plans for name, scheme in plan.layers.items()}
    return Plan({layer.name: every.get(layer.name, FLOAT) for layer in layers})


def left_out(recipe: Recipe, layers: Sequence[Layer]) -> frozenset[str]:
    """The layers that a rule wants in float."""
    last = {layer.name: [r for r in recipe.rules if r.matches(layer.name)][-1:] for layer in layers}
    return frozenset(name for name, rules in last.items() if rules and Scheme.parse(rules[0].scheme).is_float)


def _check_rules(rules: Sequence[Rule], layers: Sequence[Layer], legs: Sequence[QuantizeLeg]) -> None:
    _check_known(rules, layers)
    for rule in rules:
        matched = [layer for layer in layers if rule.matches(layer.name)]
        scheme = Scheme.parse(rule.scheme)
        offered = [layer for layer in matched if any(scheme in leg.found.card.offers(layer) for leg in legs)]
        if not scheme.is_float and not offered:
            kinds = ", ".join(sorted({layer.kind for layer in matched}))
            raise UsageError(
                f"rule {rule.layers!r} asks for {rule.scheme}, which no stage offers for {kinds} layers",
                hint="Ask for another scheme, or write float; qm show METHOD lists the schemes.",
            )


def _check_known(rules: Sequence[Rule], layers: Sequence[Layer]) -> None:
    """Name every rule that matches no layer: a recipe for another model has many."""
    unknown = [repr(rule.layers) for rule in rules if not any(rule.matches(layer.name) for layer in layers)]
    if not unknown:
        return
    said = "rules {} match no layer" if len(unknown) > 1 else "rule {} matches no layer"
    raise UsageError(
        said.format(_shown(unknown, 8)), hint=f"The layers are: {_shown([layer.name for layer in layers], 12)}."
    )


def _shown(names: Sequence[str], most: int) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _check_tied(rules: Sequence[Rule], layers: Sequence[Layer], plans: Sequence[dict[str, Scheme]]) -> None:
    """Layers that share weights share a scheme; where defaults alone part them, all stay in float."""
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        if layer.tied is not None:
            groups.setdefault(layer.tied, []).append(layer)
    for group in groups.values():
        schemes = [next((plan[m.name] for plan in plans if m.name in plan), FLOAT) for m in group]
        odd = next((i for i, scheme in enumerate(schemes) if scheme != schemes[0]), None)
        if odd is None:
            continue
        if any(rule.matches(m.name) for rule in rules for m in group):
            raise UsageError(
                f"layers {group[0].name!r} and {group[odd].name!r} share their weights, "
                f"and are given {schemes[0]} and {schemes[odd]}",
                hint="Give both the same scheme.",
            )
        for plan in plans:
            for m in group:
                plan.pop(m.name, None)
