"""The Python API: the commands' words as functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from qm import bench, meet
from qm.bench import BenchmarkReport
from qm.catalog import Catalog
from qm.contender import Terms
from qm.contest import Contest
from qm.diagnosis import Explanation, Question
from qm.diagnosis import explain as answer
from qm.errors import UsageError
from qm.manager import Manager
from qm.meet import Watch
from qm.metric import find_metric
from qm.plugin import Model, Progress, Silent
from qm.recipe import Recipe, Rule, Stage
from qm.report import Report
from qm.request import Request
from qm.runner import Run
from qm.source import check_there
from qm.step import load_model
from qm.strict import complaint
from qm.tuning import Goal, Order, Tuner, Tuning
from qm.tuning import Watch as SearchWatch
from qm.types import Cache

Methods = Sequence[str | tuple[str, Mapping[str, Any]] | Stage]
Rules = Sequence[Rule] | Mapping[str, str]


def load(path: str | Path, **options: Any) -> Model:
    """The model in a file, or that ``package.module:function`` makes; ``options`` are those of its loader.

    Raises:
        UsageError: no plugin loads it, or it is broken.
    """
    catalog = Catalog()
    found = catalog.loader(_existing(path))
    found.check_ready()
    return load_model(catalog.manager, found, Path(path), options)


def quantize(
    model: str | Path,
    methods: Methods = (),
    *,
    scheme: str | None = None,
    recipe: Recipe | str | Path | None = None,
    rules: Rules = (),
    data: Any = None,
    load: Mapping[str, Any] | None = None,
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
    ``--data`` takes, or arrays; ``rules`` are ``{"conv1": "float"}``, or those of a recipe; ``load`` are options of the
    loader. What is not told is taken from ``recipe``, and what that does not tell from the method.

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
        load=load or {},
    )
    return Run(request, Catalog(manager), progress or Silent()).quantize()


def plan(
    model: str | Path,
    methods: Methods = (),
    *,
    scheme: str | None = None,
    recipe: Recipe | str | Path | None = None,
    data: Any = None,
    load: Mapping[str, Any] | None = None,
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
    request = Request(model=Path(model), recipe=told, data=data, load=load or {}, force=True)
    return Run(request, Catalog(manager), progress or Silent()).spelled_out()


def tune(
    model: str | Path,
    *,
    data: Any,
    max_drop: float = 0.01,
    min_sqnr_db: float | None = None,
    time_s: float | None = None,
    to: str | Path | None = None,
    target: str | None = None,
    suffix: str | None = None,
    samples: int | None = None,
    seed: int = 0,
    load: Mapping[str, Any] | None = None,
    executor: str = "processes",
    workers: int | None = None,
    resume: bool = False,
    page: bool = False,
    progress: Progress | None = None,
    watch: SearchWatch | None = None,
) -> Tuning:
    """The smallest model within an allowed loss, over all installed methods, their schemes and their options.

    ``to`` is the folder for the front, each point a file and its recipe, and for the chosen model, ``best``; the same
    call again goes on from there. ``max_drop`` is the loss of accuracy as a share, ``min_sqnr_db`` the least SQNR,
    where outputs are no scores of classes. ``suffix`` is the only kind of file wanted, such as ``.tflite``.
    ``executor`` is ``processes`` (by default as many as there are cores), ``inline`` or ``ray``. ``page`` asks for the
    chosen model's report as a page too.

    Raises:
        UsageError: the model, the data or the folder are not what they should be, or nothing can be tried.
        QmError: everything that was tried failed.
    """
    order = Order(
        model=_existing(model),
        data=data,
        goal=Goal(max_drop=_share(max_drop), min_sqnr_db=min_sqnr_db),
        to=None if to is None else Path(to),
        time_s=time_s,
        target=target or "host",
        suffix=suffix,
        samples=samples,
        seed=seed,
        load=load or {},
        executor=executor,
        workers=workers,
        resume=resume,
        page=page,
    )
    return Tuner(order, progress=progress, watch=watch).run()


def benchmark(
    artifact: str | Path,
    *,
    baseline: str | Path | None = None,
    data: Any = None,
    max_drop: float | None = None,
    metric: str | Callable[..., Any] | None = None,
    threads: int = 1,
    cache: Cache = "hot",
    precision: float = 0.02,
    time_s: float = 60.0,
    timeout_s: float = 120.0,
    seed: int = 0,
    progress: Progress | None = None,
    watch: Watch | None = None,
    manager: Manager | None = None,
) -> BenchmarkReport:
    """Size, speed and accuracy of an artifact on its real runtime, against ``baseline`` where that is given.

    ``metric`` is a function, or the name of one, that is called with a sample's outputs by name and its label, and
    returns a number: higher is better. ``max_drop`` is the loss that is allowed: of accuracy as a share (0.01, one
    point, where it is not told), of a metric in its own units.

    Raises:
        UsageError: a file is missing or no plugin runs it, or the data do not fit.
        PluginError: the runtime failed.
    """
    return bench.benchmark(
        _existing(artifact),
        None if baseline is None else _existing(baseline),
        data=data,
        catalog=Catalog(manager),
        terms=Terms(
            threads=threads,
            cache=cache,
            precision=precision,
            time_s=time_s,
            timeout_s=timeout_s,
            max_drop=_loss(max_drop, metric),
            seed=seed,
        ),
        metric=None if metric is None else find_metric(metric),
        progress=progress or Silent(),
        watch=watch,
    )


def compare(
    models: Sequence[str | Path],
    *,
    data: Any = None,
    max_drop: float | None = None,
    metric: str | Callable[..., Any] | None = None,
    threads: int = 1,
    cache: Cache = "hot",
    precision: float = 0.02,
    time_s: float = 60.0,
    timeout_s: float = 120.0,
    seed: int = 0,
    progress: Progress | None = None,
    watch: Watch | None = None,
    manager: Manager | None = None,
) -> Contest:
    """Any number of models, of any formats, on the same samples by the same clock; the others against the first.

    The words are those of ``benchmark``; ``time_s`` is for all of them together. Where one fails, its entry says so.

    Raises:
        UsageError: a file is missing, or the data do not fit any model.
        PluginError: no model could be run.
    """
    if isinstance(models, str | Path) or not models:
        raise UsageError(f"models is {models!r}, not a list of paths", hint="Write qm.compare([first, second]).")
    return meet.compare(
        [_existing(model) for model in models],
        data=data,
        catalog=Catalog(manager),
        terms=Terms(
            threads=threads,
            cache=cache,
            precision=precision,
            time_s=time_s,
            timeout_s=timeout_s,
            max_drop=_loss(max_drop, metric),
            seed=seed,
        ),
        metric=None if metric is None else find_metric(metric),
        progress=progress or Silent(),
        watch=watch,
    )


def explain(
    artifact: str | Path,
    baseline: str | Path,
    *,
    data: Any = None,
    samples: int | None = None,
    goal_db: float | None = None,
    tries: bool = True,
    times: bool = True,
    time_s: float = 120.0,
    threads: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
    manager: Manager | None = None,
) -> Explanation:
    """Why an artifact is slower or worse than the model it was made of, and what mends it.

    ``goal_db`` is the SQNR to bring it to, in dB; ``tries`` asks for remedies to be tried, ``times`` for speed too.

    Raises:
        UsageError: a file is missing, the two do not belong together, or the data do not fit.
        Unsupported: one of them does not run.
        PluginError: a runtime failed.
    """
    question = Question(
        artifact=_existing(artifact),
        baseline=_existing(baseline),
        data=data,
        samples=samples,
        time_s=time_s,
        goal_db=goal_db,
        tries=tries,
        times=times,
        threads=threads,
        seed=seed,
    )
    return answer(question, catalog=Catalog(manager), progress=progress)


def _loss(max_drop: float | None, metric: object) -> float | None:
    """The allowed loss, which is a share where it is of accuracy."""
    return max_drop if max_drop is None or (metric is not None and max_drop >= 0) else _share(max_drop)


def _share(max_drop: float) -> float:
    if 0 <= max_drop < 1:
        return max_drop
    raise UsageError(
        f"an allowed loss of {max_drop:g} is not a share from 0 to 1", hint="Give 0.01, or 1% on the command line."
    )


def _existing(path: str | Path) -> Path:
    check_there(Path(path))
    return Path(path)


def _recipe(methods: Methods, recipe: Recipe | str | Path | None, rules: Rules, **told: Any) -> Recipe:
    base = Recipe.read(recipe) if isinstance(recipe, str | Path) else recipe or Recipe()
    values = base.model_dump() | {name: value for name, value in told.items() if value is not None}
    if isinstance(methods, str):
        raise UsageError(f"methods is the text {methods!r}, not a list", hint=f"Write [{methods!r}].")
    if methods:
        values["stages"] = [_stage(m).model_dump() for m in methods]
    values["rules"] = [*values["rules"], *_rules(rules)]
    try:
        return Recipe.model_validate(values)
    except ValidationError as e:
        raise UsageError(f"argument {complaint(e)}", hint="See help(qm.quantize).") from e


def _rules(rules: Rules) -> list[Any]:
    if isinstance(rules, Mapping):
        return [{"layers": layers, "scheme": scheme} for layers, scheme in rules.items()]
    if not isinstance(rules, list | tuple) or not all(isinstance(r, Rule) for r in rules):
        raise UsageError(f"rules is {rules!r}, not a list of qm.plugin.Rule", hint="Write {'conv1': 'float'}.")
    return [r.model_dump() for r in rules]


def _stage(method: str | tuple[str, Mapping[str, Any]] | Stage) -> Stage:
    if isinstance(method, Stage):
        return method
    if isinstance(method, str):
        return Stage(plugin=method)
    name, options = method
    return Stage(plugin=name, options=dict(options))
