"""Small models and data sets for tests, made from a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qm.plugin import Array, ExportJob
from qm_toy.model import Dense, ToyModel
from qm_toy.store import save
from qm_toy.weight import Float

INPUTS, HIDDEN, OUTPUTS = 16, 64, 10


def make(path: str | Path, seed: int = 0, *, tied: bool = False) -> Path:
    """Write a model of three float layers, ``first``, ``second`` and ``head``, and return its path.

    Every row of ``second`` holds an outlier, so that few bits serve it badly. With ``tied``, a layer ``third`` shares
    the weight of ``second``.
    """
    path = Path(path)
    save(ExportJob(model=model(seed, tied=tied), path=path))
    return path


def make_data(path: str | Path, seed: int = 0, *, samples: int = 64) -> Path:
    """Write an ``.npz`` of inputs ``x`` ``(samples, 16)`` and of labels ``y``, those that ``model(seed)`` gives."""
    path = Path(path)
    x = np.random.default_rng([seed, 1]).normal(size=(samples, INPUTS)).astype(np.float32)
    labels = model(seed).run({"x": x})["y"].argmax(axis=1)
    with path.open("wb") as file:
        np.savez(file, x=x, y=labels)
    return path


def model(seed: int = 0, *, tied: bool = False) -> ToyModel:
    """The model that ``make`` writes."""
    rng = np.random.default_rng(seed)
    first = _dense(rng, "first", HIDDEN, INPUTS)
    second = _dense(rng, "second", HIDDEN, HIDDEN, outlier=8.0)
    head = _dense(rng, "head", OUTPUTS, HIDDEN, relu=False)
    if not tied:
        return ToyModel([first, second, head])
    third = Dense(name="third", tensor=second.tensor, weight=second.weight, bias=-second.bias, relu=True)
    return ToyModel([first, second, third, head])


def _dense(
    rng: np.random.Generator, name: str, outputs: int, inputs: int, *, relu: bool = True, outlier: float = 1.0
) -> Dense:
    w: Array = rng.normal(scale=(2 / inputs) ** 0.5, size=(outputs, inputs)).astype(np.float32)
    w[np.arange(outputs), rng.integers(inputs, size=outputs)] *= outlier
    bias = rng.normal(scale=0.1, size=outputs).astype(np.float32)
    return Dense(name=name, tensor=name, weight=Float(array=w), bias=bias, relu=relu)
