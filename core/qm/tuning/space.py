"""What could be tried: every installed method that makes a file of the model that runs, its schemes and its options."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from qm.catalog import Catalog, Found
from qm.choice import choices
from qm.errors import NotReady, RouteError, UsageError
from qm.plugin import Exporter, Needs, Quantizer, Scheme, Stage
from qm.recipe import Recipe
from qm.route import find_route

MOST_COMBINED = 16
"""Up to here all combinations of options are tried; where there are more, one option is changed at a time."""


class Cost(IntEnum):
    """How dear a method is, from cheap to dear."""

    NOTHING = 0
    SAMPLES = 1
    TRAINING = 2


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One thing to try. ``name`` is that of its file; ``base`` is the name of the same with no option told."""

    name: str
    base: str
    recipe: Recipe
    cost: Cost

    @property
    def method(self) -> str:
        """The method's full name."""
        return self.recipe.stages[0].plugin

    @property
    def options(self) -> dict[str, Any]:
        """What the method is told."""
        return self.recipe.stages[0].options

    @property
    def words(self) -> str:
        """For people: ``onnx.ptq w8a8 ranges=mse``."""
        told = "".join(f" {name}={value}" for name, value in self.options.items())
        return f"{self.method} {self.recipe.scheme}{told}"


@dataclass(frozen=True)
class Space:
    """The candidates from cheap to dear, and by method why it is left out."""

    candidates: tuple[Candidate, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def trains(self) -> bool:
        """Whether a method trains."""
        return any(c.cost is Cost.TRAINING for c in self.candidates)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the space is for: ``suffix`` is the only kind of file that is wanted, where it is told."""

    model: Path
    load: Mapping[str, Any]
    target: str
    seed: int
    samples: int | None
    suffix: str | None
    labelled: bool


def space(request: Request, catalog: Catalog) -> Space:
    """Everything worth trying.

    Raises:
        UsageError: no installed method makes a runnable file of the model; each reason is told.
    """
    found: list[Candidate] = []
    left_out: dict[str, str] = {}
    for method in catalog.all(Quantizer):
        if not _concerns(method, request, catalog):
            continue
        try:
            found += _candidates(method, request, catalog)
        except UsageError as e:
            left_out[method.plugin] = e.message
    left_out |= {name: error.message for name, error in catalog.broken.items()}
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise UsageError(
            f"no installed method makes a file of {str(request.model)!r} that runs" + (f" ({reasons})" * bool(reasons)),
            hint="See qm plugins --methods.",
        )
    return Space(tuple(sorted(found, key=lambda c: (c.cost, bool(c.options)))), left_out)


def _concerns(method: Found[Quantizer], request: Request, catalog: Catalog) -> bool:
    """Whether it takes such models at all, over a bridge or not."""
    takes = frozenset(method.card.takes)
    given = catalog.loader(request.model, gives=takes).card.gives
    return given in takes or any(catalog.bridges(given, takes))


def _candidates(method: Found[Quantizer], request: Request, catalog: Catalog) -> list[Candidate]:
    """The method's own.

    Raises:
        UsageError: it has none.
    """
    method.check_ready()
    if method.card.needs == Needs.LABELS and not request.labelled:
        raise UsageError(f"{method.plugin} needs labels")
    made: list[Candidate] = []
    problems: list[UsageError] = []
    suffixes = _suffixes(method, catalog, request.suffix)
    if not suffixes:
        raise UsageError(f"it makes no {request.suffix} file" if request.suffix else "nothing writes what it makes")
    for scheme in sorted(method.card.schemes, key=lambda s: (s != method.card.default, s)):
        for suffix in suffixes:
            base = _base(method, scheme, request)
            try:
                route = find_route(
                    request.model,
                    base,
                    catalog,
                    to=Path(f"qm-tune{suffix}").absolute(),
                    has_data=True,
                    force=True,
                    load=request.load,
                )
                if route.benchmark is None:
                    raise UsageError(f"no installed plugin runs {suffix} files")
                route.benchmark.check_ready()
            except RouteError as e:
                problems += [p for p in e.problems if isinstance(p, UsageError)] or [UsageError(e.message)]
                continue
            except UsageError as e:
                problems.append(e)
                continue
            made += _varied(method, base, suffix, scheme)
    if not made:
        raise next((p for p in problems if isinstance(p, NotReady)), problems[0])
    return made


def _suffixes(method: Found[Quantizer], catalog: Catalog, wanted: str | None) -> list[str]:
    """The kinds of files that what it gives can be written as."""
    formats = {method.card.gives} if method.card.gives else set(method.card.takes)
    able = [f.card for f in catalog.all(Exporter) if formats & set(f.card.takes) and not f.card.float_only]
    return sorted({card.suffix for card in able if wanted in (None, card.suffix)})


def _base(method: Found[Quantizer], scheme: str, request: Request) -> Recipe:
    return Recipe(
        stages=(Stage(plugin=method.plugin),),
        scheme=scheme,
        target=request.target,
        seed=request.seed,
        samples=request.samples,
    )


def _varied(method: Found[Quantizer], base: Recipe, suffix: str, scheme: str) -> Iterator[Candidate]:
    """The recipe with no option told, and with every other value of those that are a choice."""
    card = method.card
    cost = (
        Cost.TRAINING
        if card.samples is None
        else Cost.SAMPLES
        if card.needs_data(Scheme.parse(scheme))
        else Cost.NOTHING
    )
    first = f"{method.plugin}-{scheme}"
    for told in ({}, *_variations(choices(card.options), alone=cost is Cost.TRAINING)):
        stage = Stage(plugin=method.plugin, options=told)
        tail = re.sub(r"[^\w.=+-]", "_", "".join(f"-{name}={value}" for name, value in told.items()))
        yield Candidate(
            name=first + tail + suffix,
            base=first + suffix,
            recipe=base.model_copy(update={"stages": (stage,)}),
            cost=cost,
        )


def _variations(options: Mapping[str, tuple[object, ...]], *, alone: bool) -> Iterator[dict[str, Any]]:
    """What to tell beside the defaults: all combinations of few, one option at a time of many."""
    if alone or prod(map(len, options.values())) > MOST_COMBINED:
        yield from ({name: value} for name, values in options.items() for value in values[1:])
        return
    for values in product(*options.values()):
        told = {name: value for name, value in zip(options, values, strict=True) if value != options[name][0]}
        if told:
            yield told
