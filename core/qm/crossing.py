"""A float model brought from one format to another, and held against what it was."""

from __future__ import annotations

import shutil
import tempfile
from itertools import islice
from pathlib import Path
from weakref import finalize

from qm.errors import PluginError
from qm.manager import Manager
from qm.numerics import Comparison
from qm.plugin import Array, Batch, Model, Notes
from qm.route import Bridge
from qm.split import made_up
from qm.step import export_model, load_model

SAME_DB = 60.0
"""From here two float models count as the same: rounding in another order leaves about 120 dB."""


def cross(manager: Manager, bridge: Bridge, model: Model, notes: Notes) -> Model:
    """The model on the other side of the bridge, by way of a file that goes with it: it may read from there for long.

    Raises:
        PluginError: what was written does not answer as the model does.
    """
    folder = tempfile.mkdtemp(prefix="qm-bridge-")
    try:
        made = export_model(manager, bridge.exporter, model, Path(folder) / f"float{bridge.exporter.card.suffix}")
        other = load_model(manager, bridge.loader, made.path, notes=notes)
        _check(bridge, model, other)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finalize(other, shutil.rmtree, folder, ignore_errors=True)
    return other


def _check(bridge: Bridge, model: Model, other: Model) -> None:
    names = [spec.name for spec in other.inputs()]
    compared = Comparison()
    for batch in islice(made_up(model, seed=0).judging, 1):
        renamed = dict(zip(names, batch.values(), strict=False))
        compared.update(_placed(model.run(batch)), _placed(other.run(renamed)))
    if compared.samples and not compared.sqnr_db >= SAME_DB:
        raise PluginError(
            bridge.exporter.plugin,
            f"what it wrote does not answer as the model does: {compared.sqnr_db:.1f} dB, of {SAME_DB:.0f} at least",
        )


def _placed(outputs: Batch) -> dict[str, Array]:
    """Outputs by place, as formats rename them."""
    return {str(place): value for place, value in enumerate(outputs.values())}
