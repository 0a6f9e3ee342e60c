"""Layers behind others that are rounded already: their inputs have moved, and their weights can follow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qm.numerics.rounding import Moments, damped
from qm.types import Array

Floats = NDArray[np.float64]

RIDGE = 1.0
"""What is added to each input's own power before weights follow, as a share of the mean power. With less they also
follow what happens to be in the samples."""


class Drift:
    """What a layer's inputs were in the float model, what they are ``now``, and how their movement goes with that."""

    def __init__(self, inputs: int, groups: int = 0, *, crossed: bool = True) -> None:
        self.now = Moments(inputs, groups, crossed=crossed)
        self._before = Moments(inputs, groups, crossed=False)
        self._rows = 0
        self._moved: Floats = np.zeros(self.now.shape)

    def update(self, before: NDArray[np.float32], now: NDArray[np.float32]) -> None:
        """Take in the same inputs ``(rows, inputs)`` as they were and as they are, groups in front of them."""
        self.now.update(now)
        self._before.update(before)
        self._rows += now.shape[-2]
        if self._moved.size:
            self._moved += np.swapaxes(before - now, -1, -2) @ now

    def before(self) -> Floats:
        """The means ``(inputs,)`` in the float model, groups in front of them."""
        return self._before.means()[0]

    def moved(self) -> Floats:
        """The means ``(inputs, inputs)`` of each input's way back to where it was times each input as it is now.

        Raises:
            ValueError: there were no inputs.
        """
        if not self._rows:
            raise ValueError("there are no means of no inputs")
        return self._moved / self._rows


def followed(weight: Array, moved: Floats, products: Floats, *, ridge: float = RIDGE) -> Floats:
    """The weight ``(out, in)`` whose results of the inputs as they are come closest to those it had of what they were.

    ``moved`` and ``products`` are those of ``Drift`` and of its moments now, all with a dimension of groups in front or
    none. ``ridge`` times the mean power is added to each input's own: with none weights follow all the way.
    Source: ridge regression of ``W x - V y`` over V: ``V = W + W E[(x - y) y'] (E[y y'] + r I)**-1``; Li et al.,
    "GPTAQ: efficient finetuning-free quantization for asymmetric calibration", 2025, rounds towards the same with r 0.
    """
    pull = weight.astype(np.float64) @ moved
    steady = damped(products, ridge)
    made: Floats = weight + np.swapaxes(np.linalg.solve(steady, np.swapaxes(pull, -1, -2)), -1, -2)
    return made
