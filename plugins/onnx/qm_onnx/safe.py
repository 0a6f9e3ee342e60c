"""Weight scales that are right for the kernels of the target.

Which products a kernel of ONNX Runtime adds in pairs, on x86 without VNNI (measured on 1.22.1, 1.31.1 and 1.32.0, AVX2
and AVX-512 kernels alike): columns 0 and 1, 2 and 3 ... of the weights as ``kernel_rows`` lays them out, an odd last
one alone. A depthwise convolution, a product with the weights on the left, 16-bit activations and ConvTranspose run on
other kernels, which do not saturate.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from qm.numerics import (
    SAFE_SUM,
    Grid,
    grid_for,
    grid_for_range,
    pair_safe_scales,
    quantize,
    weight_clips,
    worst_pair_sum,
)
from qm.plugin import Array, Notes, Target
from qm_onnx.graph import integer
from qm_onnx.site import Site


def kernel_rows(site: Site, w: Array) -> Array | None:
    """The weights as ``(rows, k)``, adjacent columns added in pairs; None where the kernel does not saturate."""
    kind = site.node.op_type
    if not site.is_integer or w.size == 0:
        return None
    if kind == "Conv":
        if is_depthwise(site.node, w):
            return None
        return np.moveaxis(w, 1, -1).reshape(len(w), -1)  # (kh, kw, in): a pair may straddle positions
    if kind == "Gemm":
        return w if integer(site.node, "transB", 0) else w.T
    return w[None] if w.ndim == 1 else np.swapaxes(w, -1, -2).reshape(-1, w.shape[-2])


def is_depthwise(node: NodeProto, w: Array) -> bool:
    """Whether each output channel of a convolution sees one input channel, and each input channel makes one."""
    return bool(w.shape[1] == 1 and len(w) == integer(node, "group", 1))


def weight_grid(site: Site, w: Array, *, pair_safe: bool, ranges: str = "minmax", power: Array | None = None) -> Grid:
    """The symmetric grid for the weights, with no pair of them able to saturate where ``pair_safe``.

    ``ranges`` is how far the grid of each channel reaches, and ``power`` that of the inputs, in a form that broadcasts
    to the weights: see ``qm.numerics.weight_clips``. The finest grid that covers all is that of minmax.
    """
    axis, bits = site.axis(w), site.scheme.weight_bits
    narrow = bits >= 8
    grid = grid_for(w, bits=bits, axis=axis)
    if ranges != "minmax" and w.size:
        weighed = None if power is None else _channels(np.broadcast_to(power, w.shape), axis)
        reach = weight_clips(_channels(w, axis), bits=bits, method=ranges, power=weighed).reshape(grid.scale.shape)
        grid = grid_for_range(-reach, reach, bits=bits, symmetric=True, signed=True, narrow=True, axis=axis)
    rows = kernel_rows(site, w) if pair_safe and narrow else None  # Pairs of fewer bits cannot saturate.
    scale = grid.scale if rows is None else np.maximum(grid.scale, _safe(rows, grid))
    return Grid(scale=_quiet_channels(scale, w, axis), zero_point=grid.zero_point, bits=bits, narrow=narrow, axis=axis)


def _channels(w: Array, axis: int | None) -> NDArray[np.float64]:
    """The weights as ``(channels, values)``."""
    rows = w.reshape(1, -1) if axis is None else np.moveaxis(w, axis, 0).reshape(w.shape[axis], -1)
    return rows.astype(np.float64)


def is_safe(site: Site, integers: Array) -> bool:
    """Whether no pair of the integer weights can saturate."""
    rows = kernel_rows(site, integers)
    return rows is None or worst_pair_sum(rows) <= SAFE_SUM


def wants_pair_safe(target: Target) -> bool:
    """Whether weights should be pair-safe: where the kernels saturate, and where that is not known.

    Pair-safe scales cost 0.2 to 0.6 dB where they were not needed; full range costs 5 to 12 dB where they were.
    """
    return target.pair_saturates is not False


def explain(sites: list[Site], weights: Mapping[str, Array], target: Target, notes: Notes) -> None:
    """Note how the weights are scaled, and why."""
    paired = sum(kernel_rows(s, weights[s.weight]) is not None for s in sites)
    rest = len(sites) - paired
    if not wants_pair_safe(target):
        notes.say(f"full-range weights in {layers(len(sites))}: kernels of {target.name} sum 8-bit products in 32 bits")
        return
    if paired:
        reason = (
            f"kernels of {target.name} add pairs of products in 16 bits"
            if target.pair_saturates
            else f"whether kernels of {target.name} saturate is not known, and being safe costs less than 1 dB"
        )
        notes.say(f"pair-safe weights in {layers(paired)}: {reason}")
    if rest:
        notes.say(f"full-range weights in {layers(rest)}, depthwise or not on 8-bit kernels, which do not saturate")


def layers(count: int) -> str:
    """How many, in words."""
    return "1 layer" if count == 1 else f"{count} layers"


def _safe(rows: Array, grid: Grid) -> Array:
    """Pair-safe scales of the channels, in the shape of the grid's."""
    scales = pair_safe_scales(rows)
    if grid.axis is None:
        scale = scales.max()
        # The largest scale is safe for its own row; rounding may take another row over the limit by a hair.
        while worst_pair_sum(quantize(rows, Grid(scale=np.asarray(scale), narrow=True))) > SAFE_SUM:
            scale = np.nextafter(scale, np.float32(np.inf))
        return np.asarray(scale)
    return scales


def _quiet_channels(scale: Array, w: Array, axis: int | None) -> Array:
    """Give channels of nothing but zeros the finest scale of the others: their bias is stored in steps of it."""
    if axis is None:
        return scale
    silent = ~w.any(axis=tuple(i for i in range(w.ndim) if i != axis))
    if silent.any() and not silent.all():
        scale = np.where(silent, scale[~silent].min(), scale).astype(np.float32)
    return scale
