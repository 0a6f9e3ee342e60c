"""From what was measured to sentences: causes in order, each with its evidence and the next command."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qm.diagnosis.explanation import Cause, Exclusion, LayerError, Remedy, Saturation, Timing
from qm.diagnosis.pair import Pair, counted, some
from qm.diagnosis.remedy import without
from qm.diagnosis.slowness import slower
from qm.measurement import Ratio
from qm.plugin import Recipe, Scheme

CONCENTRATED = 0.5
"""Share of the noise from which on layers are to blame, and not the scheme as a whole."""
FEW = 3
CHANGED_DB = 3.0
"""The same recipe gives nearly the same error: by more than this, the artifact is not what it gives."""
WORTH_DB = 1.0
DEFECTS = ("saturation", "changed", "lost float")
"""Causes that are mistakes: named before those that are choices."""


@dataclass(frozen=True)
class Command:
    """What the user typed, to build the next command from."""

    artifact: Path
    baseline: Path
    data: Any
    recipe_to: Path | None

    def run(self, recipe: Recipe, *, recommended: bool = False) -> str:
        """What to do to quantize by the recipe; the one recommended is in ``recipe_to`` where that is told."""
        words = ["qm", "quantize", str(self.baseline)]
        if recommended and self.recipe_to is not None:
            words += ["--recipe", str(self.recipe_to)]
        elif recommended and recipe.rules:
            return f"Add --recipe FILE to this command to have it written; then: {shlex.join(words)} --recipe FILE"
        elif recipe.rules:
            last = recipe.rules[-1]
            return f"Add a rule to the recipe that qm plan writes: layers = {last.layers!r}, scheme = {last.scheme!r}"
        else:
            words += _flags(recipe)
        words += ["--data", self.data] if isinstance(self.data, str) else []
        return shlex.join([*words, "--to", str(self.artifact.with_suffix(f".fixed{self.artifact.suffix}"))])


def _flags(recipe: Recipe) -> list[str]:
    """The flags that spell a recipe without rules."""
    words = []
    for stage in recipe.stages:
        words += ["-p", stage.plugin]
        words += [word for name, value in stage.options.items() for word in ("-o", f"{name}={value}")]
    words += ["--scheme", recipe.scheme] if recipe.scheme else []
    words += ["--target", recipe.target] if recipe.target != "host" else []
    words += ["--seed", str(recipe.seed)] if recipe.seed else []
    return words + (["--samples", str(recipe.samples)] if recipe.samples else [])


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that was measured."""

    question: Command
    pair: Pair
    sqnr_db: float
    errors: Sequence[LayerError]
    saturation: Saturation | None
    timing: Timing | None
    speed: Ratio | None
    remedies: Sequence[Remedy]
    exclusion: Exclusion | None
    base: Recipe | None
    synthetic: bool

    def remedy(self, name: str) -> Remedy | None:
        """The best of those tried of a kind."""
        known = [r for r in self.remedies if r.name == name and r.gain_db is not None]
        return max(known, key=lambda r: r.gain_db or 0.0, default=None)

    @property
    def base_db(self) -> float:
        """Error of the recipe that the other remedies change."""
        base = self.remedy("safe") or self.remedy("again")
        return self.sqnr_db if base is None or base.sqnr_db is None else base.sqnr_db


def ranked(facts: Facts) -> tuple[Cause, ...]:
    """Causes of error, mistakes first and then by what mending them gains; then causes of slowness."""
    worse = list(_worse(facts))
    order = {name: i for i, name in enumerate((*DEFECTS, "layers"))}
    worse.sort(key=lambda c: (order.get(c.name, len(order)), -(c.gain_db or 0.0)))
    return (*worse, *slower(facts.timing, facts.speed, facts.pair.schemes, saturates=facts.saturation is not None))


def recommended(facts: Facts) -> Recipe | None:
    """The recipe to go on with: safe scales, and the layers of the list in float; else the best single remedy.

    A list of more than half the layers is no remedy.
    """
    listed = facts.exclusion.layers if facts.exclusion is not None else None
    if facts.base is not None and listed is not None and 2 * len(listed) <= len(facts.pair.layers):
        return without(facts.base, listed) if listed else facts.base
    others = (r for r in facts.remedies if r.name != "excluded" and (r.gain_db or 0.0) > WORTH_DB)
    best = max(others, key=lambda r: r.gain_db or 0.0, default=None)
    return best.recipe if best is not None else facts.base


def _worse(facts: Facts) -> Iterator[Cause]:
    for made in (_saturation(facts), _changed(facts), lost_float(facts.timing, facts.pair.schemes), _layers(facts)):
        if made is not None:
            yield made
    for name, text in (
        ("granularity", "One scale for a whole tensor is coarse for this model"),
        ("option", "Another setting serves this model better"),
        ("activations", "Activations have few bits for this model"),
        ("weights", "The weights have few bits for this model"),
    ):
        found = facts.remedy(name)
        if found is not None and found.sqnr_db is not None and found.sqnr_db - facts.base_db >= WORTH_DB:
            yield _choice(facts, text, found, found.sqnr_db - facts.base_db)


def _saturation(facts: Facts) -> Cause | None:
    seen = facts.saturation
    if seen is None:
        return None
    safe, names = facts.remedy("safe"), [layer.layer for layer in seen.layers]
    tried = f"; quantized again with safe scales it has {_db(safe.sqnr_db)}" if safe is not None else ""
    first = f" ({seen.layers[0].layer!r}: {seen.layers[0].seen})" if names else ""
    return Cause(
        about="worse",
        name="saturation",
        sentence=f"Integer kernels of this machine saturate: {seen.real_db:.1f} dB by the real kernels, "
        f"{seen.exact_db:.1f} dB by exact ones, in {counted(len(names))}{first}{tried}.",
        layers=tuple(names),
        gain_db=round(seen.lost_db, 2),
        next=facts.question.run(safe.recipe) if safe is not None else "Quantize with --target host on this machine.",
    )


def _changed(facts: Facts) -> Cause | None:
    again = facts.remedy("again")
    # Ranges from real samples do not suit made-up inputs: nothing follows from new ones that do.
    if facts.synthetic or again is None or not (again.gain_db or 0.0) >= CHANGED_DB:
        return None
    worst = max(facts.errors, key=_added, default=None)
    if facts.pair.report is None:
        what = "The artifact is worse than its scheme need be"
    else:
        what = "The artifact is not what its recipe gives"
    where = f"; the error arises in {worst.layer!r}, whose output has {_db(worst.sqnr_db)}" if worst else ""
    return Cause(
        about="worse",
        name="changed",
        sentence=f"{what}: it has {_db(facts.sqnr_db)}, and {_db(again.sqnr_db)} when it is quantized again{where}.",
        layers=(worst.layer,) if worst else (),
        gain_db=again.gain_db,
        next=facts.question.run(again.recipe),
    )


def lost_float(timing: Timing | None, schemes: Mapping[str, Scheme]) -> Cause | None:
    """Layers that the file has in float and that the runtime, to join their neighbours, makes integers of."""
    rows = timing.layers if timing is not None else ()
    names = tuple(t.layer for t in rows if t.integer and t.layer in schemes and schemes[t.layer].is_float)
    if not names:
        return None
    return Cause(
        about="worse",
        name="lost float",
        sentence=f"The runtime multiplies integers in {counted(len(names))} that the file has in float "
        f"({some(names)}), with scales of its own.",
        layers=names,
        next="Leave the layer after it in float too, or quantize it on purpose.",
    )


def _layers(facts: Facts) -> Cause | None:
    """A few layers that make most of the error."""
    known = sorted((e for e in facts.errors if e.share is not None), key=lambda e: -(e.share or 0.0))
    listed = facts.exclusion.layers if facts.exclusion is not None else None
    for count in range(1, min(FEW, len(known) - 1) + 1):
        share = sum(e.share or 0.0 for e in known[:count])
        if share >= CONCENTRATED:
            names = tuple(e.layer for e in known[:count])
            break
    else:
        if not listed or len(listed) > FEW:
            return _spread(facts, known[0]) if known else None
        names, share = listed, None
    return _blamed(facts, names, share)


def _takes(exclusion: Exclusion | None) -> str:
    """What the list of layers brings, as a clause."""
    if exclusion is None or not exclusion.layers:
        return ""
    if len(exclusion.layers) > FEW:
        return f"; it takes {len(exclusion.layers)} in float to reach {_db(exclusion.goal_db)}"
    return f"; with {some(exclusion.layers)} in float the artifact has {_db(exclusion.sqnr_db)}"


def _onward(facts: Facts) -> str:
    """The command for what is recommended, where that is not what the artifact is already."""
    recipe = recommended(facts)
    if recipe is None:
        return ""
    if recipe == facts.pair.recipe:
        return "Nothing that was tried is worth what it costs: keep the artifact, or ask for less with --goal."
    return facts.question.run(recipe, recommended=True)


def _spread(facts: Facts, worst: LayerError) -> Cause:
    """No layer stands out."""
    return Cause(
        about="worse",
        name="spread",
        sentence=f"The error is spread over the layers: the worst, {worst.layer!r}, makes "
        f"{worst.share or 0.0:.0%} of it{_takes(facts.exclusion)}.",
        layers=(worst.layer,),
        next=_onward(facts),
    )


def _blamed(facts: Facts, names: tuple[str, ...], share: float | None) -> Cause:
    exclusion = facts.exclusion
    one = len(names) == 1
    part = (
        f"make{'s' if one else ''} {share:.0%} of the error"
        if share is not None
        else f"carr{'ies' if one else 'y'} the error"
    )
    gain = None
    if exclusion is not None and exclusion.layers and exclusion.sqnr_db is not None:
        gain = round(exclusion.sqnr_db - facts.sqnr_db, 2)
    return Cause(
        about="worse",
        name="layers",
        sentence=f"{'Layer' if one else 'Layers'} {some(names)} {part}{_takes(exclusion)}.",
        layers=names,
        gain_db=gain,
        next=_onward(facts),
    )


def _choice(facts: Facts, text: str, found: Remedy, gain_db: float) -> Cause:
    speed = f", at {found.speed.ratio:.2f}x the artifact's speed" if found.speed is not None else ""
    return Cause(
        about="worse",
        name=found.name,
        sentence=f"{text}: {found.what} gives {_db(found.sqnr_db)} instead of {_db(facts.base_db)}{speed}.",
        gain_db=round(gain_db, 2),
        next=facts.question.run(found.recipe),
    )


def _added(row: LayerError) -> float:
    """Noise that a layer adds, as a share of its signal."""
    return row.arises * (10 ** (-row.sqnr_db / 10) if row.sqnr_db is not None else 0.0)


def _db(value: float | None) -> str:
    return "no error" if value is None or value == float("inf") else f"{value:.1f} dB"
