"""Weights rounded so that the results of their layers stay, not each weight for itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_WAITING = 1 << 21
_DAMPING = 0.01


class Moments:
    """What a layer's inputs were: the means of each, and of the products of each two.

    Rows are multiplied many at a time: one product of matrices costs much, whatever its size, where others compute too.
    """

    def __init__(self, inputs: int) -> None:
        self._rows = 0
        self._total: Floats = np.zeros(inputs)
        self._products: Floats = np.zeros((inputs, inputs))
        self._waiting: list[NDArray[np.float32]] = []

    def update(self, inputs: NDArray[np.float32]) -> None:
        """Take in inputs ``(rows, inputs)``."""
        self._waiting.append(inputs)
        if sum(w.size for w in self._waiting) >= _WAITING:
            self._multiply()

    def means(self) -> tuple[Floats, Floats]:
        """Those of the inputs ``(inputs,)`` and of their products ``(inputs, inputs)``."""
        self._multiply()
        return self._total / self._rows, self._products / self._rows

    def _multiply(self) -> None:
        if self._waiting:
            rows = np.concatenate(self._waiting)
            self._waiting = []
            self._rows += len(rows)
            self._total += rows.sum(axis=0, dtype=np.float64)
            self._products += rows.T @ rows


def nearest_results(weight: Floats, products: Floats, steps: Floats, high: int) -> Floats:
    """The weight ``(out, in)`` on the grid of ``steps`` ``(out,)``, column by column, the worst inputs first.

    ``products`` are the means of the products of each two inputs ``(in, in)``.
    Source: Frantar et al., "GPTQ: accurate post-training quantization for generative pre-trained transformers", 2023,
    section 3, columns in the order of their inputs' power.
    """
    low = -high if high >= 127 else -high - 1
    power = np.diag(products)
    damped = products + np.diag(np.where(power == 0, 1.0, 0.0) + _DAMPING * (power.mean() or 1.0))
    order = np.argsort(-power, kind="stable")
    upper = np.linalg.cholesky(np.linalg.inv(damped[order][:, order])).T
    rest, made = weight[:, order].copy(), np.empty_like(weight)
    for i in range(weight.shape[1]):
        column = np.clip(np.rint(rest[:, i] / steps), low, high) * steps
        made[:, order[i]] = column
        rest[:, i:] -= np.outer((rest[:, i] - column) / upper[i, i], upper[i, i:])
    return made
