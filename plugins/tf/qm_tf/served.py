"""A model as a SavedModel of one form, in the process that has TensorFlow.

It has one signature of a fixed batch, whose inputs are called ``i000``, ``i001`` ... and whose outputs ``o000`` ..., so
that their order is kept; their own names are told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from qm.plugin import Array

SIGNATURE = "serving_default"
FREE_LENGTHS = (32, 224, 512, 16000)
"""Lengths to try where a model leaves one free."""

LOAD_ERRORS = (AttributeError, ImportError, IndexError, KeyError, OSError, RuntimeError, TypeError, ValueError)
"""What loading a model runs into that is damaged, or needs what is not there."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model written as a SavedModel in that form. ``run`` gives TensorFlow's own answers, outputs in order."""

    folder: Path
    specs: Sequence[Any]
    inputs: Sequence[str]
    outputs: Sequence[str]
    layers: Sequence[str]
    run: Callable[[Sequence[Array]], list[Array]]
    notes: Sequence[str] = ()


def fixed(shape: Sequence[int | None], dtype: Any, number: int) -> Any:
    lengths = [1 if at == 0 and n is None else n for at, n in enumerate(shape)]
    return tf.TensorSpec(lengths, dtype, name=f"i{number:03}")


def runner(answer: Callable[..., Any]) -> Callable[[Sequence[Array]], list[Array]]:
    def run(values: Sequence[Array]) -> list[Array]:
        made = answer(*map(tf.constant, values))
        return [np.asarray(made[key]) for key in sorted(made)]

    return run


def probed(served: Served, path: Path) -> bool:
    """Keep made-up inputs and TensorFlow's answers to them; whether it answers the same each time."""
    for length in FREE_LENGTHS:
        rng = np.random.default_rng(0)
        values = [_made_up(spec, rng, length) for spec in served.specs]
        try:
            first, second = served.run(values), served.run(values)
        except (ValueError, tf.errors.OpError):
            if length == FREE_LENGTHS[-1]:
                raise
            continue
        kept = {spec.name: v for spec, v in zip(served.specs, values, strict=True)}
        kept |= {f"o{number:03}": v for number, v in enumerate(first)}
        np.savez(path, **kept)  # type: ignore[arg-type]
        return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(first, second, strict=True))
    return False


def _made_up(spec: Any, rng: np.random.Generator, length: int) -> Array:
    shape = [length if n is None else n for n in spec.shape]
    if spec.dtype.is_floating:
        return rng.standard_normal(shape).astype(spec.dtype.as_numpy_dtype)
    return rng.integers(0, 2, shape).astype(spec.dtype.as_numpy_dtype)
