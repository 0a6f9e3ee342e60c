"""Weights made integers piece by piece, against the same arithmetic on the whole tensor."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from qm.numerics import Grid, grid_for, group_grid
from qm.numerics import quantize as quantized
from qm.plugin import Scheme, UsageError
from qm_onnx.encode import Held, encode
from qm_onnx.weight import Weight

Array = NDArray[np.float32]
SHAPES = [(64, 48), (67, 33), (1, 1), (200, 2)]
"""Whole groups and cut ones, even and odd rows, and next to nothing."""
LYING = [*((shape, how) for shape in SHAPES for how in ("upright", "transposed")), ((3, 35, 21), "upright")]
"""Matrices may lie transposed in their file, stacks of them do not."""


def normal(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def whole(w: Array, scheme: Scheme, reduced: int) -> tuple[NDArray[np.integer], Grid]:
    """The integers and the grid of the tensor taken at once."""
    grid = (
        group_grid(w, bits=scheme.weight_bits, group=scheme.group, axis=reduced)
        if scheme.group
        else grid_for(w, bits=scheme.weight_bits, axis=2 * w.ndim - 3 - reduced)
    )
    return quantized(w, grid), grid


def values(tensor: TensorProto) -> NDArray[np.generic]:
    return np.asarray(numpy_helper.to_array(tensor))


@pytest.mark.parametrize("text", ["w8", "w4g32", "w4g128"])
@pytest.mark.parametrize(("shape", "how"), LYING)
@pytest.mark.parametrize("from_last", [0, 1])
def test_pieces_give_the_integers_of_the_whole(
    text: str, shape: tuple[int, ...], how: str, from_last: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("qm.numerics.piecewise", "qm_onnx.encode"):
        monkeypatch.setattr(f"{module}.PIECE", 260)
    scheme, w = Scheme.parse(text), normal(*shape)
    reduced = w.ndim - 1 - from_last
    weight = Weight("w", w, "w")
    if how == "transposed":
        weight = Weight("w", np.ascontiguousarray(w.T), "w").transposed
    encoded = encode(weight, scheme, Held(), layer="m", reduced=reduced)
    integers, grid = whole(w, scheme, reduced)
    assert np.array_equal(values(encoded.tensors[0]), integers)
    # Sums over the values of a group that stands alone may be taken in another order: a unit in the last place or two.
    np.testing.assert_allclose(values(encoded.tensors[1]), grid.scale, rtol=3e-7)
    assert encoded.axis == grid.axis and encoded.group == scheme.group
    if scheme.group:
        assert np.array_equal(values(encoded.tensors[2]), grid.zero_point)


@pytest.mark.parametrize("text", ["w8", "w4g32"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_refused_by_name(text: str, value: float) -> None:
    w = normal(64, 4)
    w[40, 2] = value
    with pytest.raises(UsageError, match="the weight 'head' holds NaN or infinity"):
        encode(Weight("head", w, "w"), Scheme.parse(text), Held(), layer="m", reduced=0)
