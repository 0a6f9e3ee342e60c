"""Weights rounded up or down, all of a row at once, so that the results of their layers stay."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qm.numerics.affine import Grid, quantize
from qm.numerics.rounding import result_error
from qm.numerics.saturation import SAFE_SUM
from qm.types import Array

Floats = NDArray[np.float64]
Halves = NDArray[np.float32]

STEPS = 400
"""Steps of gradient descent; with 1,000 the error of 400 inputs is 6 % less, in 2.5 times the time."""

_STRETCH = (-0.1, 1.1)
_RATE = 0.05
_WARM_UP = 0.2
_SHARPNESS = (20.0, 2.0)
_FIRMNESS = 12.0
_SWEEPS = 20
_TINY = 1e-30


def adaptive_results(weight: Array, products: Floats, grid: Grid, *, paired: bool = False, steps: int = STEPS) -> Array:
    """Integers of the grid for the weight ``(out, in)``, each next below or above it, those that keep results together.

    ``products`` are the means of the products of each two inputs ``(in, in)``; both may have a dimension of groups in
    front. Each weight starts between its two integers and is driven by Adam to one of them; then single weights change
    sides as long as that helps. No row has a larger ``result_error`` than the nearest integers give it. Where
    ``paired``, pairs of columns whose sum could saturate keep their nearest integers, which the grid has to make safe.
    Source: Nagel et al., "Up or down? Adaptive rounding for post-training quantization", 2020, equations 21 to 24; the
    error is taken from the products of inputs instead of from samples, as in its equation 13.
    """
    scale, zero = (np.broadcast_to(grid.spread(v, weight.shape), weight.shape) for v in (grid.scale, grid.zero_point))
    wide = scale.astype(np.float64)
    places = weight / wide + zero
    low, high = grid.limits
    nearest = quantize(weight, grid).astype(np.float64)
    down, up = np.clip(np.floor(places), low, high), np.clip(np.floor(places) + 1, low, high)
    start = (down - zero) * wide - weight
    room = (up - down) * wide
    driven = _driven(start, room, np.clip(places - down, 0, 1), products, steps)
    share = _descended(start, room, (driven >= 0.5).astype(np.float64), products)
    made = np.where(share > 0, up, down)
    if paired:
        made = np.where(_unsafe(made), nearest, made)
    errors = [result_error((q - zero) * wide - weight, products) for q in (made, nearest)]
    integers: Array = np.where((errors[0] < errors[1])[..., None], made, nearest).astype(grid.dtype)
    return integers


def _driven(start: Floats, room: Floats, first: Floats, products: Floats, steps: int) -> Halves:
    """How far up each weight goes, from 0 to 1, after that many steps of Adam from ``first``."""
    width = _STRETCH[1] - _STRETCH[0]
    # Each row's error is measured in that of weights which are off by a third of a step, each for itself.
    usual = ((room**2) @ np.diagonal(products, axis1=-2, axis2=-1)[..., None]) / 12
    per = (1 / np.maximum(usual, _TINY)).astype(np.float32)
    begin, reach, crossed = (v.astype(np.float32) for v in (start, room, products))
    logit = np.clip((first - _STRETCH[0]) / width, 0.05, 0.95)
    free = np.log(logit / (1 - logit)).astype(np.float32)
    speed, power = np.zeros_like(free), np.zeros_like(free)
    firmness = np.float32(_FIRMNESS / max(free.shape[-1], 1))
    warm = int(steps * _WARM_UP)
    for step in range(1, steps + 1):
        bent = 1 / (1 + np.exp(-free))
        share = np.clip(bent * width + _STRETCH[0], 0, 1)
        slope = 2 * ((begin + reach * share) @ crossed) * reach * per
        if step > warm:
            done = (step - warm) / max(steps - warm, 1)
            sharp = _SHARPNESS[1] + (_SHARPNESS[0] - _SHARPNESS[1]) * (1 + np.cos(np.pi * done)) / 2
            side = 2 * share - 1
            slope -= firmness * np.float32(2 * sharp) * np.sign(side) * np.abs(side) ** np.float32(sharp - 1)
        slope *= np.where((share > 0) & (share < 1), width * bent * (1 - bent), 0)
        speed += np.float32(0.1) * (slope - speed)
        power += np.float32(0.001) * (slope * slope - power)
        rate = _RATE * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
        free -= np.float32(rate) * speed / (np.sqrt(power) + np.float32(1e-12))
    made: Halves = np.clip(width / (1 + np.exp(-free)) + _STRETCH[0], 0, 1)
    return made


def _descended(start: Floats, room: Floats, share: Floats, products: Floats) -> Floats:
    """Shares of 0 and 1 of which none alone can change for less error, or after enough sweeps."""
    slope = (start + room * share) @ products
    own = np.diagonal(products, axis1=-2, axis2=-1)
    for _ in range(_SWEEPS):
        changed = False
        for i in range(share.shape[-1]):
            move = room[..., i] * (1 - 2 * share[..., i])
            gain = -move * (2 * slope[..., i] + move * own[..., i, None])
            move = np.where(gain > 1e-12 * np.abs(move * slope[..., i]), move, 0)
            if move.any():
                changed = True
                share[..., i] = np.where(move != 0, 1 - share[..., i], share[..., i])
                slope += move[..., None] * products[..., i, None, :]
        if not changed:
            break
    return share


def _unsafe(made: Floats) -> NDArray[np.bool_]:
    """Which columns are of a pair, 0 and 1, 2 and 3 ..., whose sum of integers of one sign can saturate."""
    even = made.shape[-1] // 2 * 2
    pairs = made[..., :even].reshape(*made.shape[:-1], -1, 2)
    over = np.maximum(np.maximum(pairs, 0).sum(-1), -np.minimum(pairs, 0).sum(-1)) > SAFE_SUM
    flags = np.zeros(made.shape, bool)
    flags[..., :even] = np.repeat(over, 2, axis=-1)
    return flags
