"""The data set that goes with a model: the one that the report beside it names, or the one that has its name."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qm.errors import UsageError

Use = Literal["make", "judge"]
"""To make a model with, or to judge one by."""

_ARRAYS: dict[Use, tuple[str, ...]] = {"make": ("x_train", "x_calib"), "judge": ("x_test",)}
_PICK = re.compile(r"(?P<path>.+\.npz)(?::[^/\\]*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Beside:
    """What to give as ``--data``, and where it was found."""

    data: str
    how: str


def data_beside(model: Path, use: Use) -> Beside | None:
    """The data set of a model, None where there is none.

    ``mnist.npz`` goes with ``mnist.h5``, ``mnist_quantized.tflite`` and ``mnist.int8.tflite``.
    """
    if source := _reported(model):
        return Beside(fitting(source, use), "as the report beside the model names it")
    stems = {p.stem: p for p in sorted(model.parent.glob("*.npz"))}
    fit = [s for s in stems if model.stem == s or re.match(re.escape(s) + r"[._-]", model.stem)]
    if not fit:
        return None
    return Beside(fitting(str(stems[max(fit, key=len)]), use), "it has the model's name")


def fitting(data: str, use: Use) -> str:
    """Of an ``.npz`` with samples for training and others for tests, those that are for the use; else as it is."""
    from qm.data.archive import headers

    if not data.lower().endswith(".npz"):
        return data
    try:
        there = headers(Path(data))
    except (OSError, UsageError):
        return data  # What is wrong with it is said when it is opened.
    first = next((name for name in _ARRAYS[use] if name in there), None)
    if first is None:
        return data
    labels = "y" + first[1:]
    return f"{data}:{first},{labels}" if labels in there else f"{data}:{first}"


def _reported(model: Path) -> str | None:
    """The data that a model was made with, the choice of arrays left off; None where they are not to be found."""
    from qm.report import Report, report_path

    try:
        used = Report.read(report_path(model)).data
    except UsageError:
        return None
    if used is None:
        return None
    found = _PICK.fullmatch(used.source)
    source = Path(found["path"] if found else used.source)
    return next((str(p) for p in (source, model.parent / source.name) if os.path.exists(p)), None)
