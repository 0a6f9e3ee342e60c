"""The door for plugin authors: cards, jobs, options, and everything an implementation needs.

A plugin is a module with one hook implementation that returns cards::

    from qm.plugin import Loader, Quantizer, hookimpl

    @hookimpl
    def qm_cards():
        yield Quantizer(
            name="ternary", impl="qm_ternary.quantize:quantize", takes={"toy"}, schemes={"w2"}, default="w2"
        )

named in the distribution's metadata, where the entry point's name becomes the namespace of its cards::

    [project.entry-points."qm.v1"]
    acme = "qm_ternary.plugin"
"""

from __future__ import annotations

import pluggy
from pydantic import Field

from qm import cache, fitting, function, training
from qm.card import Benchmark, Card, Exporter, Loader, Needs, Options, Planner, Quantizer
from qm.chart import Chart
from qm.errors import NotReady, PluginError, QmError, Unsupported, UsageError
from qm.file import contents, locked, sha256, written
from qm.job import Bench, BenchmarkJob, ExportJob, LoadJob, Notes, PlanJob, QuantizeJob, Speed, Step, Trial
from qm.journal import Journal
from qm.memo import Memo
from qm.progress import Progress, Silent
from qm.recipe import Recipe, Rule, Stage
from qm.scheme import F16, FLOAT, Activations, Granularity, Scheme
from qm.target import Target
from qm.types import (
    Activation,
    Array,
    Artifact,
    Batch,
    Can,
    Dataset,
    Hazard,
    Layer,
    Model,
    Operator,
    OpTime,
    Plan,
    Session,
    TensorSpec,
    unique,
)

__all__ = [
    "F16",
    "FLOAT",
    "GROUP",
    "Activation",
    "Activations",
    "Array",
    "Artifact",
    "Batch",
    "Bench",
    "Benchmark",
    "BenchmarkJob",
    "Can",
    "Card",
    "Chart",
    "Dataset",
    "ExportJob",
    "Exporter",
    "Field",
    "Granularity",
    "Hazard",
    "Journal",
    "Layer",
    "LoadJob",
    "Loader",
    "Memo",
    "Model",
    "Needs",
    "Notes",
    "NotReady",
    "Operator",
    "OpTime",
    "Options",
    "Plan",
    "PlanJob",
    "Planner",
    "PluginError",
    "Progress",
    "QmError",
    "QuantizeJob",
    "Quantizer",
    "Recipe",
    "Rule",
    "Scheme",
    "Session",
    "Silent",
    "Speed",
    "Stage",
    "Step",
    "Target",
    "TensorSpec",
    "Trial",
    "Unsupported",
    "UsageError",
    "cache",
    "contents",
    "fitting",
    "function",
    "hookimpl",
    "locked",
    "sha256",
    "training",
    "unique",
    "written",
]

GROUP = "qm.v1"
"""The entry-point group. It carries the major version of this contract."""

hookimpl = pluggy.HookimplMarker("qm")
