"""Make machine-learning models small and fast, and prove that they are still right.

The same words as on the command line::

    import qm

    report = qm.quantize("net.onnx", ["onnx.ptq"], data="calib.npz", to="net.int8.onnx")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qm.api import benchmark, compare, explain, load, plan, quantize, tune
    from qm.errors import AuditFailed, PluginError, QmError, UsageError
    from qm.plugin import Plan
    from qm.recipe import Recipe, Rule, Stage
    from qm.report import Report
    from qm.scheme import Scheme

_HOMES = {
    "benchmark": "qm.api",
    "compare": "qm.api",
    "explain": "qm.api",
    "load": "qm.api",
    "plan": "qm.api",
    "quantize": "qm.api",
    "tune": "qm.api",
    "AuditFailed": "qm.errors",
    "PluginError": "qm.errors",
    "QmError": "qm.errors",
    "UsageError": "qm.errors",
    "Plan": "qm.plugin",
    "Recipe": "qm.recipe",
    "Rule": "qm.recipe",
    "Stage": "qm.recipe",
    "Report": "qm.report",
    "Scheme": "qm.scheme",
}

__all__ = [
    "AuditFailed",
    "Plan",
    "PluginError",
    "QmError",
    "Recipe",
    "Report",
    "Rule",
    "Scheme",
    "Stage",
    "UsageError",
    "benchmark",
    "compare",
    "explain",
    "load",
    "plan",
    "quantize",
    "tune",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'qm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
