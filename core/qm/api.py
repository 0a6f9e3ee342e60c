"""The Python API: the commands' words as functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from qm.bench import BenchmarkReport, compare
from qm.catalog import Catalog
from qm.errors import UsageError
from qm.manager import Manager
from qm.plugin import Model, Progress, Silent
from qm.recipe import Recipe, Rule, Stage
from qm.report import Report
from qm.runner import Request, Run
from qm.step import load_model
from qm.strict import complaint

Methods = Sequence[str | tuple[str, Mapping[str, Any]] | Stage]


def load(path: str | Path) -> Model:
    """The model in a file, by the plugin that knows its suffix and content.

    Raises:
        UsageError: no plugin loads it, or it is broken.
    """
    catalog = Catalog()
    found = catalog.loader(_existing(path))
    found.check_ready()
    return load_model(catalog.manager, found, Path(path))


def quantize(
    model: str | Path,
    methods: Methods = (),
    *,
    scheme: str | None = None,
    recipe: Recipe | str | Path | None = None,
    rules: Sequence[Rule] = (),
    data: Any = None,
    samples: int | None = None,
    target: str | None = None,
    seed: int | None = None,
    to: str | Path | None = None,
    force: bool = False,
    benchmark: bool = False,
    time_s: float = 20.0,
    progress: Progress | None = None,
    manager: Manager | None = None,
) -> Report:
    """Make a model smaller and faster, check it, and report.

    ``methods`` are full names, left to right; ``("onnx.ptq", {"ranges": "mse"})`` gives options. ``data`` is what
    ``--data`` takes, or arrays. What is not told is taken from ``recipe``, and what that does not tell from the method.

    Raises:
        RouteError: the request cannot be carried out; its ``problems`` hold each reason.
        UsageError: the model or the data are not what they should be.
        PluginError: a plugin failed.
        AuditFailed: the artifact does not keep what the plan promised.
    """
    told = _recipe(methods, recipe, rules, scheme=scheme, samples=samples, target=target, seed=seed)
    request = Request(
        model=Path(model),
        recipe=told,
        data=data,
        to=None if to is None else Path(to),
        force=force,
        benchmark=benchmark,
        time_s=time_s,
    )
    return Run(request, Catalog(manager), progress or Silent()).quantize()


def plan(
    model: str | Path,
    methods: Methods = (),
    *,
    scheme: str | None = None,
    recipe: Recipe | str | Path | None = None,
    data: Any = None,
    samples: int | None = None,
    target: str | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
    manager: Manager | None = None,
) -> Recipe:
    """The recipe that ``quantize`` would run after its planners have spoken, with a rule for every layer.

    Raises as ``quantize`` does, the audit aside.
    """
    told = _recipe(methods, recipe, (), scheme=scheme, samples=samples, target=target, seed=seed)
    run = Run(Request(model=Path(model), recipe=told, data=data, force=True), Catalog(manager), progress or Silent())
    return run.spelled_out()


def benchmark(
    artifact: str | Path,
    *,
    baseline: str | Path | None = None,
    data: Any = None,
    threads: int = 1,
    precision: float = 0.02,
    time_s: float = 60.0,
    seed: int = 0,
    progress: Progress | None = None,
    manager: Manager | None = None,
) -> BenchmarkReport:
    """Size, speed and accuracy of an artifact on its real runtime, against ``baseline`` where that is given.

    Raises:
        UsageError: a file is missing or no plugin runs it, or the data do not fit.
        PluginError: the runtime failed.
    """
    return compare(
        _existing(artifact),
        None if baseline is None else _existing(baseline),
        data=data,
        catalog=Catalog(manager),
        threads=threads,
        precision=precision,
        time_s=time_s,
        seed=seed,
        progress=progress or Silent(),
    )


def _existing(path: str | Path) -> Path:
    if not Path(path).exists():
        raise UsageError(f"model {str(path)!r} does not exist", hint="Check the path.")
    return Path(path)


def _recipe(methods: Methods, recipe: Recipe | str | Path | None, rules: Sequence[Rule], **told: Any) -> Recipe:
    base = Recipe.read(recipe) if isinstance(recipe, str | Path) else recipe or Recipe()
    values = base.model_dump() | {name: value for name, value in told.items() if value is not None}
    if isinstance(methods, str):
        raise UsageError(f"methods is the text {methods!r}, not a list", hint=f"Write [{methods!r}].")
    if methods:
        values["stages"] = [_stage(m).model_dump() for m in methods]
    values["rules"] = [*values["rules"], *(r.model_dump() for r in rules)]
    try:
        return Recipe.model_validate(values)
    except ValidationError as e:
        raise UsageError(f"argument {complaint(e)}", hint="See help(qm.quantize).") from e


def _stage(method: str | tuple[str, Mapping[str, Any]] | Stage) -> Stage:
    if isinstance(method, Stage):
        return method
    if isinstance(method, str):
        return Stage(plugin=method)
    name, options = method
    return Stage(plugin=name, options=dict(options))
