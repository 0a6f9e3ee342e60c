"""The steps of the pipe, each sent through its hook and its result held against what the card promised."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qm.catalog import Found
from qm.errors import PluginError, UsageError
from qm.file import disk_errors
from qm.manager import Manager
from qm.plugin import (
    Activation,
    Artifact,
    Benchmark,
    BenchmarkJob,
    Can,
    Dataset,
    Exporter,
    ExportJob,
    Loader,
    LoadJob,
    Memo,
    Model,
    Notes,
    Plan,
    Progress,
    QuantizeJob,
    Session,
    Step,
    Target,
)
from qm.route import QuantizeLeg


def load_model(
    manager: Manager,
    found: Found[Loader],
    path: Path,
    told: Mapping[str, Any] | None = None,
    notes: Notes | None = None,
    *,
    streamed: bool = False,
) -> Model:
    """The model in a file, or that a function makes, by the loader that the route chose; ``told`` are its options."""
    options = found.options(dict(told or {}))
    job = LoadJob(path=path, options=options, notes=Notes() if notes is None else notes, streamed=streamed)
    model = manager.perform("load", Step(found.plugin, job, lambda: found.card.implementation()(job)), Model)
    if model.format != found.card.gives:
        raise PluginError(found.plugin, f"it gave a model of format {model.format!r}, not {found.card.gives!r}")
    return model


def check_float(found: Found[Loader], model: Model, source: Path) -> None:
    """Raise UsageError where the model is quantized already, or has nothing to quantize."""
    if Can.SCHEMES in found.card.can:
        done = {name: s for name, s in model.schemes().items() if not s.is_float}
        if done:
            name, scheme = next(iter(done.items()))
            raise UsageError(
                f"{str(source)!r} is quantized already: {len(done)} of its layers, such as {name!r} in {scheme}",
                hint="Start from the float model.",
            )
    if Can.LAYERS in found.card.can and not model.layers():
        raise UsageError(
            f"{str(source)!r} has no layers with weights, so there is nothing to quantize", hint="See qm inspect."
        )


def quantize_model(
    manager: Manager,
    legs: Sequence[QuantizeLeg],
    plans: Sequence[Plan],
    model: Model,
    *,
    data: Dataset | None,
    target: Target,
    seed: int,
    progress: Progress,
    notes: Notes,
    activations: list[Activation] | None = None,
    scratch: Path | None = None,
    memo: Memo | None = None,
) -> Model:
    """The model after every quantizer that has something to do, in the pipe's order.

    What calibration saw is added to ``activations``; ``scratch`` is where a run that is cut off can go on;
    ``memo`` is of this model and data, for other plans of the same run.
    """
    given = model
    for leg, plan in zip(legs, plans, strict=True):
        if not plan.quantized():
            continue
        job = QuantizeJob(
            model=model,
            plan=plan,
            data=data,
            target=target,
            options=leg.options,
            seed=seed,
            progress=progress,
            notes=notes,
            activations=[] if activations is None else activations,
            scratch=scratch,
            # What another method made of the model differs from plan to plan.
            memo=memo.part(leg.found.plugin) if memo is not None and model is given else Memo.forgetful(),
        )
        model = _quantized(manager, leg, job)
    return model


def _quantized(manager: Manager, leg: QuantizeLeg, job: QuantizeJob) -> Model:
    found = leg.found

    def make() -> Model:
        # As in export_model: large results are written on the way.
        with disk_errors(job.scratch or Path(tempfile.gettempdir())):
            made: Model = found.card.implementation()(job)
            return made

    model = manager.perform("quantize", Step(found.plugin, job, make), Model)
    promised = found.card.gives or job.model.format
    if model.format != promised:
        raise PluginError(found.plugin, f"it gave a model of format {model.format!r}, and its card says {promised!r}")
    if model is job.model:
        raise PluginError(found.plugin, "it gave back the model it was handed")
    return model


def export_model(
    manager: Manager, found: Found[Exporter], model: Model, to: Path, *, named: Path | None = None
) -> Artifact:
    """Write the model to a temporary path; whoever calls renames it (``qm.file.written``) to ``named``.

    Raises:
        UsageError: the disk is full, or forbids it; the sentence has the name that the user knows.
    """
    job: ExportJob = ExportJob(model=model, path=to, options=found.options({}))

    def write() -> Artifact:
        # Inside the step: a full disk is the user's matter, and must not be blamed on the plugin.
        with disk_errors(named or to):
            artifact: Artifact = found.card.implementation()(job)
            return artifact

    manager.perform("export", Step(found.plugin, job, write), Artifact)
    if not to.exists():
        raise PluginError(found.plugin, f"export wrote no file {to.name!r}")
    return Artifact(path=to, format=found.card.gives)


def open_session(manager: Manager, found: Found[Benchmark], artifact: Artifact, *, threads: int = 1) -> Session:
    """The artifact opened by its real runtime, in this process."""
    job: Any = BenchmarkJob(artifact=artifact, threads=threads, options=found.options({}))
    return manager.perform("benchmark", Step(found.plugin, job, lambda: found.card.implementation()(job)), Session)
