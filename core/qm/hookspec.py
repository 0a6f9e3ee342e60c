"""One noun, five verbs.

``qm_cards`` declares; the five verbs do. The core's own implementation of each verb runs last and calls the
implementation of the card that the route chose, so a plugin that *wraps* a verb times, tracks or logs it, and one that
answers first is a cache. Work is chosen by name and format, never by whoever answers first.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from qm.plugin import (
    Artifact,
    BenchmarkJob,
    Card,
    ExportJob,
    LoadJob,
    Model,
    PlanJob,
    QuantizeJob,
    Recipe,
    Session,
    Step,
)

hookspec = pluggy.HookspecMarker("qm")


@hookspec
def qm_cards() -> Iterable[Card]:  # type: ignore[empty-body]
    """Declare what this plugin offers: loaders, planners, quantizers, exporters, benchmarks.

    Called once, when the namespace is first named. Import no framework here.
    """


@hookspec(firstresult=True)
def qm_load(step: Step[LoadJob, Model]) -> Model | None:
    """Load ``step.job.path``; return None to let the next implementation do it."""


@hookspec(firstresult=True)
def qm_plan(step: Step[PlanJob, Recipe]) -> Recipe | None:
    """Work out a better recipe than ``step.job.recipe``."""


@hookspec(firstresult=True)
def qm_quantize(step: Step[QuantizeJob, Model]) -> Model | None:
    """Quantize ``step.job.model`` as ``step.job.plan`` says; leave the model itself unchanged."""


@hookspec(firstresult=True)
def qm_export(step: Step[ExportJob, Artifact]) -> Artifact | None:
    """Write ``step.job.model`` to ``step.job.path``, a temporary path that the core renames."""


@hookspec(firstresult=True)
def qm_benchmark(step: Step[BenchmarkJob, Session]) -> Session | None:
    """Open ``step.job.artifact`` by its real runtime."""
