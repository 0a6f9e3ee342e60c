"""An artifact and the model it was made of, lined up by layer name, with the recipe from the one to the other."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qm.catalog import Catalog, Found
from qm.errors import QmError, UsageError
from qm.file import sha256
from qm.plugin import Can, Layer, Loader, Model, Notes, Quantizer, Recipe, Rule, Scheme, Stage
from qm.report import File, Report, report_path
from qm.route import Route, find_route
from qm.source import check_there
from qm.step import load_model

SHOWN = 6


@dataclass(frozen=True)
class Side:
    """One of the two: where it lies, who loads it, and itself."""

    path: Path
    loader: Found[Loader]
    model: Model

    def can(self, *needed: Can) -> bool:
        """Whether its framework offers all of these."""
        return self.loader.card.can >= set(needed)


@dataclass
class Pair:
    """The two sides. ``layers`` are those of the baseline that the artifact has too, empty where either cannot tell."""

    before: Side
    after: Side
    layers: tuple[Layer, ...]
    schemes: dict[str, Scheme]
    report: Report | None
    recipe: Recipe | None


def open_pair(baseline: Path, artifact: Path, catalog: Catalog, notes: Notes) -> Pair:
    """Both loaded and lined up.

    Raises:
        UsageError: a file is missing or broken, or the two do not belong together.
    """
    before, after = _side(baseline, catalog), _side(artifact, catalog)
    _check_ends(before, after)
    layers = _common(before, after, notes)
    schemes = after.model.schemes() if after.can(Can.SCHEMES) else {}
    report = _report(artifact, before, notes)
    if schemes and all(s.is_float for s in schemes.values()):
        notes.say("no layer of the artifact is quantized")
    recipe = report.recipe if report is not None else _guess(before, layers, schemes, catalog, notes)
    return Pair(before, after, layers, schemes, report, recipe)


def _side(path: Path, catalog: Catalog) -> Side:
    check_there(path)
    loader = catalog.loader(path)
    loader.check_ready()
    return Side(path, loader, load_model(catalog.manager, loader, path))


def _check_ends(before: Side, after: Side) -> None:
    mine, theirs = [{s.name: s for s in side.model.inputs()} for side in (before, after)]
    if odd := sorted(mine.keys() ^ theirs.keys()):
        raise UsageError(
            f"{str(after.path)!r} and {str(before.path)!r} do not belong together: only one has an input {odd[0]!r}",
            hint="Name the float model that the artifact was made of with --baseline.",
        )
    counts = len(before.model.outputs()), len(after.model.outputs())
    if counts[0] != counts[1]:
        raise UsageError(
            f"{str(after.path)!r} and {str(before.path)!r} do not belong together: "
            f"the artifact has {counts[1]} outputs and the baseline {counts[0]}",
            hint="Name the float model that the artifact was made of with --baseline.",
        )


def _common(before: Side, after: Side, notes: Notes) -> tuple[Layer, ...]:
    """The layers of both, by name.

    Raises:
        UsageError: they have less than half of them in common.
    """
    lacking = [side for side in (before, after) if not side.can(Can.LAYERS)]
    if lacking:
        notes.say(f"{lacking[0].loader.plugin} does not list layers: nothing is said layer by layer")
        return ()
    layers, names = before.model.layers(), {layer.name for layer in after.model.layers()}
    common = tuple(layer for layer in layers if layer.name in names)
    missing = [layer.name for layer in layers if layer.name not in names]
    extra = sorted(names - {layer.name for layer in layers})
    if 2 * len(common) < len(layers):
        raise UsageError(
            f"{str(after.path)!r} and {str(before.path)!r} do not belong together: the artifact lacks "
            f"{len(missing)} of {len(layers)} layers ({some(missing)})" + (f" and has {some(extra)}" if extra else ""),
            hint="Name the float model that the artifact was made of with --baseline.",
        )
    if missing:
        notes.say(f"{len(missing)} layers of the baseline are not in the artifact: {some(missing)}")
    if extra:
        notes.say(f"{len(extra)} layers of the artifact are not in the baseline: {some(extra)}")
    return common


def _report(artifact: Path, before: Side, notes: Notes) -> Report | None:
    place = report_path(artifact)
    if not place.exists():
        return None
    try:
        report = Report.read(place)
    except UsageError as e:
        notes.say(f"the report beside the artifact is of no use: {e.message}")
        return None
    if report.model.sha256 != File.of_source(before.path, before.model).sha256:
        notes.say(f"by its report, the artifact was made of another file than {before.path}: {report.model.path}")
    if report.artifact.sha256 != sha256(artifact):
        notes.say("the artifact was changed after its report was written")
    return report


def _guess(
    before: Side, layers: Sequence[Layer], schemes: dict[str, Scheme], catalog: Catalog, notes: Notes
) -> Recipe | None:
    """A recipe that gives the schemes which the artifact has, by the first method that offers them."""
    there = {layer.name: schemes[layer.name] for layer in layers if layer.name in schemes}
    wanted = Counter(s for s in there.values() if not s.is_float)
    if not wanted:
        return None
    for found in catalog.all(Quantizer):
        offered = {Scheme.parse(text) for text in found.card.schemes}
        if before.model.format in found.card.takes and offered >= set(wanted) and not found.lacking():
            default = wanted.most_common(1)[0][0]
            rules = tuple(Rule.exactly(name, s) for name, s in there.items() if s != default)
            notes.say(f"no report beside the artifact: tries go by {found.plugin}, by the schemes of its layers")
            return Recipe(stages=(Stage(plugin=found.plugin),), scheme=str(default), rules=rules)
    notes.say("no report beside the artifact, and no installed method gives its schemes: nothing can be tried")
    return None


def route_of(pair: Pair, recipe: Recipe, catalog: Catalog) -> Route:
    """The route of a recipe, on the target that the artifact was made for where the recipe does not name another.

    Raises:
        RouteError: it cannot be carried out.
    """
    place = Path(tempfile.gettempdir()) / f"qm-explain{pair.after.path.suffix}"
    route = find_route(pair.before.path, recipe, catalog, to=place, has_data=True, force=True)
    report = pair.report
    if report is not None and recipe.target == report.recipe.target:
        return replace(route, target=report.target)
    return route


def watchable(side: Side, layers: Sequence[Layer], batch: object, notes: Notes) -> list[str]:
    """The layers whose activations can be seen."""
    if not layers or not side.can(Can.RUN, Can.ACTIVATIONS):
        return []
    names = [layer.name for layer in layers]
    if _runs(side.model, batch, names):
        return names
    seen = [name for name in names if _runs(side.model, batch, [name])]
    notes.say(f"{len(names) - len(seen)} layers of {side.path.name} cannot be watched")
    return seen


def _runs(model: Model, batch: object, names: list[str]) -> bool:
    try:
        model.run(batch, names)  # type: ignore[arg-type]
    except QmError:
        return False
    return True


def some(names: Sequence[str]) -> str:
    """The first of the names."""
    return ", ".join(map(repr, names[:SHOWN])) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def counted(layers: int) -> str:
    """``1 layer``, ``2 layers``."""
    return "1 layer" if layers == 1 else f"{layers} layers"


def units(layers: Sequence[Layer]) -> Iterator[tuple[str, ...]]:
    """Layers by name, those that share weights together: they share one scheme."""
    together: dict[str, list[str]] = {}
    for layer in layers:
        together.setdefault(f"tied {layer.tied}" if layer.tied else f"layer {layer.name}", []).append(layer.name)
    return map(tuple, together.values())
