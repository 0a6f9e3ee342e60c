"""Weights rounded so that the results of their layers stay, not each weight for itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qm.numerics.affine import Grid
from qm.numerics.saturation import SAFE_SUM
from qm.types import Array

Floats = NDArray[np.float64]

_WAITING = 1 << 20
_BLOCK = 64
_GOLDEN = (5**0.5 - 1) / 2

DAMPING = 0.01
"""What is added to each input's own power before products are inverted, as a share of the mean power."""

DAMPING_BEHIND = 0.03
"""The same for layers behind others that are rounded already: what they are fitted to is less certain."""


class Moments:
    """What a layer's inputs were: the means of each, and where they are ``crossed``, of the products of each two.

    Of a layer with ``groups`` each has its own. Rows are multiplied many at a time: one product of matrices costs much,
    whatever its size, where others compute too.
    """

    def __init__(self, inputs: int, groups: int = 0, *, crossed: bool = True) -> None:
        stack = (groups,) if groups else ()
        self._rows = 0
        self._total: Floats = np.zeros((*stack, inputs))
        self._products: Floats = np.zeros((*stack, inputs, inputs) if crossed else 0)
        self._waiting: list[NDArray[np.float32]] = []

    @property
    def size(self) -> int:
        """How many products are kept."""
        return self._products.size

    @property
    def nbytes(self) -> int:
        """Bytes that they take."""
        return self._total.nbytes + self._products.nbytes + sum(w.nbytes for w in self._waiting)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the products, that of nothing where they are not kept."""
        return self._products.shape

    def update(self, inputs: NDArray[np.float32]) -> None:
        """Take in inputs ``(rows, inputs)``, groups in front of them."""
        self._waiting.append(inputs)
        if sum(w.size for w in self._waiting) >= _WAITING:
            self._multiply()

    def means(self) -> tuple[Floats, Floats]:
        """Those of the inputs ``(inputs,)`` and of their products ``(inputs, inputs)``, groups in front of them.

        The products are empty where they are not kept.

        Raises:
            ValueError: there were no inputs.
        """
        self._multiply()
        if not self._rows:
            raise ValueError("there are no means of no inputs")
        return self._total / self._rows, self._products / self._rows

    def _multiply(self) -> None:
        if self._waiting:
            rows = np.concatenate(self._waiting, axis=-2)
            self._waiting = []
            self._rows += rows.shape[-2]
            self._total += rows.sum(axis=-2, dtype=np.float64)
            if self._products.size:
                self._products += np.swapaxes(rows, -1, -2) @ rows


def places(count: int, number: int, most: int) -> NDArray[np.intp]:
    """At most about ``most`` of ``count`` places, evenly spread, others for each ``number``."""
    step = -(-count // most)
    return np.arange(int(number * _GOLDEN % 1 * step), count, step)


def nearest_results(
    weight: Array, products: Floats, grid: Grid, *, paired: bool = False, damping: float = DAMPING
) -> Array:
    """Integers of the grid for the weight ``(out, in)``, column by column, the inputs of most power first.

    What a column loses in rounding the columns after it make good, by how their inputs go together: ``products`` are
    the means of the products of each two inputs ``(in, in)``. Both may have a dimension of groups in front. Where
    ``paired``, no pair of columns 0 and 1, 2 and 3 ... gets a sum that can saturate, see ``saturation``: of each the
    one that comes later gives way. ``damping`` is added to each input's own power, as a share of the mean: the
    more, the less is made of how inputs happen to go together in the samples.
    Source: Frantar et al., "GPTQ: accurate post-training quantization for generative pre-trained transformers", 2023,
    section 3 and algorithm 1, columns in the order of their inputs' power.
    """
    order, upper = _factors(damped(products, damping))
    ordered = order[..., None, :]
    scale, zero = (
        np.take_along_axis(np.broadcast_to(grid.spread(v, weight.shape), weight.shape).astype(np.float64), ordered, -1)
        for v in (grid.scale, grid.zero_point)
    )
    partner = _partners(order) if paired else None
    rest = np.take_along_axis(weight.astype(np.float64), ordered, -1)
    made, count = np.zeros_like(rest), weight.shape[-1]
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        lost = np.zeros((*weight.shape[:-1], stop - start))
        for i in range(start, stop):
            low, high = grid.limits if partner is None else _room(made, partner[..., i], grid.limits)
            made[..., i] = np.clip(np.rint(rest[..., i] / scale[..., i]) + zero[..., i], low, high)
            column = (made[..., i] - zero[..., i]) * scale[..., i]
            lost[..., i - start] = (rest[..., i] - column) / upper[..., None, i, i]
            rest[..., i:stop] -= lost[..., i - start, None] * upper[..., None, i, i:stop]
        rest[..., stop:] -= lost @ upper[..., start:stop, stop:]
    integers: Array = np.take_along_axis(made, np.argsort(order, axis=-1)[..., None, :], -1).astype(grid.dtype)
    return integers


def result_error(change: Array, products: Floats) -> Floats:
    """The mean square of what a change of the weight ``(out, in)`` makes of each result, ``(out,)``."""
    error: Floats = np.maximum(((change @ products) * change).sum(axis=-1), 0)
    return error


def damped(products: Floats, share: float) -> Floats:
    """The products with that share of their mean power added to each input's own, so that they can be inverted."""
    power = np.diagonal(products, axis1=-2, axis2=-1)
    mean = power.mean(axis=-1, keepdims=True)
    missing = np.where(power == 0, 1.0, 0.0) + share * np.where(mean > 0, mean, 1.0)
    made: Floats = products + missing[..., None] * np.eye(products.shape[-1])
    return made


def _factors(products: Floats) -> tuple[NDArray[np.intp], Floats]:
    """The order of the columns, and the upper Cholesky factor of the inverse of the products in that order."""
    order = np.argsort(-np.diagonal(products, axis1=-2, axis2=-1), axis=-1, kind="stable")
    sorted_rows = np.take_along_axis(products, order[..., None], -2)
    ordered = np.take_along_axis(sorted_rows, order[..., None, :], -1)
    return order, np.swapaxes(np.linalg.cholesky(np.linalg.inv(ordered)), -1, -2)


def _partners(order: NDArray[np.intp]) -> NDArray[np.intp]:
    """Where in the order the column is that each is paired with; an odd last one is with itself, and so alone."""
    other = order ^ 1
    other = np.where(other < order.shape[-1], other, order)
    return np.take_along_axis(np.argsort(order, axis=-1), other, -1)


def _room(made: Floats, partner: NDArray[np.intp], limits: tuple[int, int]) -> tuple[Floats, Floats]:
    """The limits of a column's integers, by those of its partner, which are 0 until they are made."""
    other = np.take_along_axis(made, partner[..., None, None], -1)[..., 0]
    low = np.where(other < 0, np.maximum(limits[0], -SAFE_SUM - other), limits[0])
    high = np.where(other > 0, np.minimum(limits[1], SAFE_SUM - other), limits[1])
    return low, high
