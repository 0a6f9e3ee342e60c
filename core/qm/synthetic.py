"""Inputs made up where the user gives none: enough to see that a model runs, never enough to judge its accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qm.types import Array, Batch, TensorSpec

FREE_LENGTH = 32


def synthetic(inputs: Sequence[TensorSpec], count: int, seed: int) -> list[Batch]:
    """``count`` batches of one: normal noise for float inputs, zeros and ones for integer ones, ``False`` for flags.

    A free first axis gets length 1, any other free axis ``FREE_LENGTH``.
    """
    rng = np.random.default_rng(seed)
    return [{spec.name: _values(spec, rng) for spec in inputs} for _ in range(count)]


def _values(spec: TensorSpec, rng: np.random.Generator) -> Array:
    shape = tuple((1 if i == 0 else FREE_LENGTH) if n is None else n for i, n in enumerate(spec.shape))
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind in "iu":
        return rng.integers(0, 2, shape).astype(dtype)
    return np.zeros(shape, dtype)
