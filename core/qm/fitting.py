"""Weights fitted to what their inputs are: the options of it, and what is alike whatever framework runs the model.

A plugin says how the weight of a layer is a matrix and shows what flows into it. Here is decided how far its integers
reach, which they are, and what a bias has to make good.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from qm.card import Options
from qm.numerics import (
    DAMPING,
    DAMPING_BEHIND,
    Drift,
    Grid,
    Moments,
    adaptive_results,
    dequantize,
    followed,
    grid_for_range,
    nearest_results,
    quantize,
    weight_clips,
)
from qm.types import Array

SAMPLES = 256
"""How many samples are looked at, at most."""

POSITIONS = 256
"""How many places of an image are looked at for one sample."""

WIDEST = 4096
"""Weights with more inputs to one output are rounded to the nearest: the work grows with the third power."""

_MEMORY = 1 << 25
"""How many products are kept at a time, in numbers of 8 bytes."""

_FEW = 8
"""Weights of fewer bits are rounded with care unless something else is asked for."""


class FittingOptions(Options):
    """How static quantization chooses the integers of weights."""

    weights: Literal["auto", "minmax", "mse", "octav", "hessian"] = Field(
        default="auto",
        description="how the range of each channel of a weight is chosen; hessian is mse with errors weighed by what "
        "the layer's inputs are; auto is minmax for 8 bits and hessian for 4",
    )
    rounding: Literal["auto", "nearest", "gptq", "adaround"] = Field(
        default="auto",
        description="how weights are rounded: each to the nearest, or so that a layer's results stay, one column after "
        "another (gptq) or all together (adaround, slower); auto is gptq for 4 bits and nearest for 8",
    )
    bias_correction: bool = Field(
        default=True, description="whether biases make good what the rounding of weights changes on average"
    )


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What is asked for, as ``FittingOptions`` say it: how weights are rounded, how far their grids reach, and whether
    biases make good what rounding changes; ``few`` is how far grids of fewer than 8 bits reach where nothing is said.
    """

    rounding: str
    ranges: str
    biases: bool
    few: str = "hessian"

    @classmethod
    def of(cls, options: FittingOptions, *, few: str = "hessian") -> Self:
        """Those of the options."""
        return cls(rounding=options.rounding, ranges=options.weights, biases=options.bias_correction, few=few)

    @property
    def method(self) -> str:
        """How weights are rounded that are not rounded each to the nearest."""
        return "gptq" if self.rounding == "auto" else self.rounding

    def keeps_results(self, bits: int) -> bool:
        """Whether weights of so many bits are rounded so that the results of their layers stay."""
        return bits < _FEW if self.rounding == "auto" else self.rounding != "nearest"

    def reach(self, bits: int) -> str:
        """How far the grids of weights of so many bits reach, as ``weight_clips`` has it."""
        if self.ranges != "auto":
            return self.ranges
        return "minmax" if bits >= _FEW else self.few

    def crosses(self, bits: int) -> bool:
        """Whether the products of inputs are needed, not their means alone."""
        return self.keeps_results(bits) or self.reach(bits) == "hessian"

    def watches(self, bits: int) -> bool:
        """Whether inputs have to be looked at."""
        return self.biases or self.crosses(bits)


@dataclass(frozen=True)
class Product:
    """A weight as matrices ``rows`` ``(groups, out, in)`` of ``bits`` to be, and what the inputs of its layers were, by
    the tensor that holds them; ``damping`` is that of ``qm.numerics.nearest_results``."""

    rows: NDArray[np.float64]
    bits: int
    moments: dict[Hashable, Moments] = field(default_factory=dict)
    damping: float = DAMPING

    @classmethod
    def of(cls, rows: Array, bits: int, tensors: Iterable[Hashable], wishes: Wishes) -> Self:
        """The product with room for what its inputs are, as far as the wishes need it."""
        groups, _, inputs = rows.shape
        crossed = wishes.crosses(bits) and inputs <= WIDEST
        seen = set(tensors) if wishes.watches(bits) else set()
        return cls(rows.astype(np.float64), bits, {t: Moments(inputs, groups, crossed=crossed) for t in seen})

    @property
    def size(self) -> int:
        """How many products of inputs are kept."""
        return sum(m.size for m in self.moments.values())

    def products(self) -> NDArray[np.float64]:
        """The means of the products of each two inputs ``(groups, in, in)``, over all layers."""
        return np.asarray(np.mean([m.means()[1] for m in self.moments.values()], axis=0))

    def power(self) -> NDArray[np.float64] | None:
        """The mean square of the input that each weight meets, in the shape of the rows; None where it is not kept."""
        if not self.size:
            return None
        diagonal = np.diagonal(self.products(), axis1=-2, axis2=-1)[:, None, :]
        return np.broadcast_to(diagonal, self.rows.shape)

    def grid(self, wishes: Wishes) -> Grid:
        """The symmetric grid of the rows, one scale for each of ``(groups * out,)`` along axis 0."""
        method, power = wishes.reach(self.bits), None
        flat = self.rows.reshape(-1, self.rows.shape[-1])
        if method == "hessian":
            power = self.power()
            method = "mse" if power is None else method
        if power is not None:
            power = power.reshape(flat.shape)
        reach = weight_clips(flat, bits=self.bits, method=method, power=power)
        return grid_for_range(
            -reach, reach, bits=self.bits, symmetric=True, signed=True, narrow=self.bits >= _FEW, axis=0
        )

    def integers(self, grid: Grid, wishes: Wishes) -> Array:
        """The integers of the rows on a grid such as ``grid`` gives, in their shape."""
        if wishes.keeps_results(self.bits) and self.size:
            if wishes.method == "adaround":
                return adaptive_results(self.rows, self.products(), self._stacked(grid))
            return nearest_results(self.rows, self.products(), self._stacked(grid), damping=self.damping)
        return quantize(self.rows.reshape(-1, self.rows.shape[-1]), grid).reshape(self.rows.shape)

    def values(self, integers: Array, grid: Grid) -> NDArray[np.float32]:
        """What the integers stand for, in the shape of the rows."""
        return dequantize(integers, self._stacked(grid))

    def shift(self, integers: Array, grid: Grid, tensor: Hashable) -> NDArray[np.float64]:
        """What the integers take off the results of the tensor's reader on average, ``(groups * out,)``."""
        mean, _ = self.moments[tensor].means()
        lost = self.rows - self.values(integers, grid)
        shifted: NDArray[np.float64] = (lost @ mean[..., None]).reshape(-1)
        return shifted

    def drifts(self) -> dict[Hashable, Drift]:
        """Room for how the inputs move that are looked at, by the tensor."""
        groups, _, inputs = self.rows.shape
        return {t: Drift(inputs, groups, crossed=bool(m.size)) for t, m in self.moments.items()}

    def behind(self, drifts: Mapping[Hashable, Drift], wishes: Wishes) -> Self:
        """The product behind layers that are rounded already, which have moved its inputs as ``drifts`` say.

        Where results are to stay its rows follow their inputs, see ``qm.numerics.followed``.
        """
        made = replace(self, moments={t: d.now for t, d in drifts.items()}, damping=DAMPING_BEHIND)
        if not made.size or not wishes.keeps_results(self.bits):
            return made
        moved = np.mean([d.moved() for d in drifts.values()], axis=0)
        return replace(made, rows=followed(self.rows, moved, made.products()))

    def lost(self, integers: Array, grid: Grid, drift: Drift) -> NDArray[np.float64]:
        """What the results of the integers, of the inputs as they are now, lack on average to those of these rows, of
        the inputs as they were, ``(groups * out,)``."""
        now, _ = drift.now.means()
        lacking = self.rows @ drift.before()[..., None] - self.values(integers, grid) @ now[..., None]
        made: NDArray[np.float64] = lacking.reshape(-1)
        return made

    def forget(self) -> None:
        """Let go of what the inputs were, once it is used."""
        self.moments.clear()

    def _stacked(self, grid: Grid) -> Grid:
        """The grid in a form that broadcasts against the rows."""
        scale = grid.scale.reshape(*self.rows.shape[:2], 1)
        return replace(grid, scale=scale, zero_point=np.zeros((), np.int32), axis=None)


def portions(products: Sequence[Product]) -> Iterator[list[int]]:
    """The places of the products, in parts whose moments fit in memory together."""
    part: list[int] = []
    taken = 0
    for number, one in enumerate(products):
        if part and taken + one.size > _MEMORY:
            yield part
            part, taken = [], 0
        part.append(number)
        taken += one.size
    if part:
        yield part
