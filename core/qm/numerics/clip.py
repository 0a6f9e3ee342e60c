"""Which range of each row of a weight its integers cover."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_NEWTON_STEPS = 20
_SHRINK = np.linspace(1.0, 0.3, 71)


def weight_clips(rows: Floats, *, bits: int, method: str, power: Floats | None = None) -> Floats:
    """The magnitude ``(rows,)`` up to which the integers of each row of ``(rows, values)`` reach.

    ``minmax`` covers all. ``mse`` and ``octav`` keep the squared error of rounding and clipping least, by trial and by
    Newton's steps on a model of it. ``hessian`` is ``mse`` with each value's error weighed by the ``power`` of its
    input, the mean of its square, that broadcasts to ``rows``: the diagonal of the Hessian of the layer's results.

    Raises:
        ValueError: the method needs the power of the inputs, and there is none.
    """
    widest = np.abs(rows).max(axis=1, initial=0.0)
    if method == "hessian":
        if power is None:
            raise ValueError("method 'hessian' needs the power of the inputs")
        return _least(rows, widest, bits, power)
    return _METHODS[method](rows, widest, bits)


def _minmax(rows: Floats, widest: Floats, bits: int) -> Floats:
    return widest


def _octav(rows: Floats, widest: Floats, bits: int) -> Floats:
    """Newton's steps towards the clip of least squared error, rounding noise taken as uniform.

    Source: Sakr et al., "Optimal clipping and magnitude-aware differentiation for improved quantization-aware
    training", 2022, equation 6.
    """
    magnitude = np.abs(rows)
    noise = 4.0**-bits / 3
    clip = widest / 2
    for _ in range(_NEWTON_STEPS):
        outside = magnitude > clip[:, None]
        count = outside.sum(axis=1)
        weighed = noise * (rows.shape[1] - count) + count
        clip = (magnitude * outside).sum(axis=1) / np.maximum(weighed, np.finfo(np.float64).tiny)
    return np.where(clip > 0, np.minimum(clip, widest), widest)


def _mse(rows: Floats, widest: Floats, bits: int) -> Floats:
    return _least(rows, widest, bits, np.ones(1))


def _least(rows: Floats, widest: Floats, bits: int, power: Floats) -> Floats:
    """The clip of least weighed squared error, by trial."""
    high = (1 << (bits - 1)) - 1
    low = -high if bits >= 8 else -high - 1
    best, least = widest.copy(), np.full(len(rows), np.inf)
    for share in _SHRINK:
        step = np.maximum(widest * share / high, np.finfo(np.float64).tiny)[:, None]
        error = (power * np.square(np.clip(np.rint(rows / step), low, high) * step - rows)).sum(axis=1)
        better = error < least
        best[better], least[better] = widest[better] * share, error[better]
    return best


_METHODS: Mapping[str, Callable[[Floats, Floats, int], Floats]] = {"minmax": _minmax, "mse": _mse, "octav": _octav}
