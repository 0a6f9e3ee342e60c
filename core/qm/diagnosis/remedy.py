"""What could be tried: the recipe as it was, and changes of it that the methods on the route offer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from qm import target as targets
from qm.choice import choices
from qm.diagnosis.trial import Trials
from qm.errors import QmError
from qm.plugin import Granularity, Recipe, Rule, Scheme

Candidate = tuple[str, str, Recipe]
"""The kind of remedy, what it is in words, and the recipe."""


def safe_recipe(recipe: Recipe) -> Recipe | None:
    """The recipe for a device like this machine whose kernels saturate; None where no target is known to be that."""
    host = targets.host()
    if host.pair_saturates and recipe.target != "host":
        return recipe.model_copy(update={"target": "host"})
    for found in targets.every():
        like_here = found.architecture == host.architecture
        if found.name != recipe.target and found.pair_saturates and like_here:
            return recipe.model_copy(update={"target": found.name})
    return None


def whole_model(trials: Trials, recipe: Recipe) -> Iterator[Candidate]:
    """Changes of the whole recipe."""
    yield from _other_options(trials, recipe)
    for name, what, changed in (
        ("granularity", "one scale per channel instead of per tensor", _per_channel),
        ("activations", "more bits for activations", _wider_activations),
        ("weights", "more bits for weights", _wider_weights),
    ):
        made = _changed(trials, recipe, changed)
        if made is not None:
            yield name, f"{what} ({made[1]})", made[0]


def for_layers(trials: Trials, recipe: Recipe, names: tuple[str, ...]) -> Iterator[Candidate]:
    """Changes of some layers alone."""
    shown = " and ".join(map(repr, names))
    yield "layer", f"{shown} in float", without(recipe, names)
    for name, changed in (("granularity", _per_channel), ("activations", _wider_activations)):
        made = _changed(trials, recipe, changed, only=names)
        if made is not None:
            yield name, f"{shown} in {made[1]}", made[0]


def without(recipe: Recipe, names: tuple[str, ...]) -> Recipe:
    """The recipe with these layers in float."""
    return recipe.with_rules(*(Rule.exactly(name, "float") for name in names))


def _other_options(trials: Trials, recipe: Recipe) -> Iterator[Candidate]:
    """Every other value of the options that are a choice among a few, such as how ranges are taken."""
    for leg in trials.route(recipe).quantizers:
        stage = next(i for i, s in enumerate(recipe.stages) if s.plugin == leg.found.plugin)
        for name, values in choices(leg.found.card.options).items():
            for value in values:
                if value != getattr(leg.options, name):
                    yield "option", f"{name}={value}", _with_option(recipe, stage, name, value)


def _with_option(recipe: Recipe, index: int, name: str, value: object) -> Recipe:
    stage = recipe.stages[index]
    changed = stage.model_copy(update={"options": {**stage.options, name: value}})
    return recipe.model_copy(update={"stages": (*recipe.stages[:index], changed, *recipe.stages[index + 1 :])})


def _changed(
    trials: Trials, recipe: Recipe, change: Callable[[Scheme, Scheme], bool], *, only: tuple[str, ...] = ()
) -> tuple[Recipe, str] | None:
    """The recipe with the next better scheme for each layer that has one, and these schemes in words."""
    try:
        plan = trials.plan(recipe)
        better = {}
        for layer in trials.layers:
            if only and layer.name not in only:
                continue
            offered = [s for s in trials.offers(recipe, layer) if change(plan[layer.name], s)]
            if not plan[layer.name].is_float and offered:
                better[layer.name] = min(offered, key=lambda s: (s.weight_bits, s.activation_bits))
    except QmError:
        return None
    if not better:
        return None
    schemes = sorted({str(s) for s in better.values()})
    if not recipe.rules and len(schemes) == 1 and better.keys() == plan.quantized().keys():
        return recipe.model_copy(update={"scheme": schemes[0]}), schemes[0]
    rules = [Rule.exactly(name, scheme) for name, scheme in better.items()]
    return recipe.with_rules(*rules), ", ".join(schemes)


def _per_channel(now: Scheme, other: Scheme) -> bool:
    return now.granularity is Granularity.TENSOR and other == replace(now, granularity=Granularity.CHANNEL)


def _wider_activations(now: Scheme, other: Scheme) -> bool:
    wider = other.activation_bits > now.activation_bits and other.activations is now.activations
    return wider and other.granularity is now.granularity and other.weight_bits == now.weight_bits


def _wider_weights(now: Scheme, other: Scheme) -> bool:
    alike = (other.activations, other.activation_bits) == (now.activations, now.activation_bits)
    return now.weight_bits < other.weight_bits < 16 and alike
