"""Inputs made up where the user gives none: enough to see that a model runs, never enough to judge its accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qm.types import Array, Batch, TensorSpec

FREE_LENGTHS = (32, 1, 512, 224, 16000)
"""Lengths to try for axes that a model leaves free; one that suits a convolution's or a codec's needs is among them."""


def synthetic(
    inputs: Sequence[TensorSpec], count: int, seed: int, *, free_length: int = FREE_LENGTHS[0]
) -> list[Batch]:
    """``count`` batches of one: normal noise for float inputs, zeros and ones for integer ones, ``False`` for flags.

    A free first axis gets length 1, any other free axis ``free_length``.
    """
    rng = np.random.default_rng(seed)
    return [{spec.name: _values(spec, rng, free_length) for spec in inputs} for _ in range(count)]


def _values(spec: TensorSpec, rng: np.random.Generator, free_length: int) -> Array:
    shape = tuple((1 if i == 0 else free_length) if n is None else n for i, n in enumerate(spec.shape))
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind in "iu":
        return rng.integers(0, 2, shape).astype(dtype)
    return np.zeros(shape, dtype)
