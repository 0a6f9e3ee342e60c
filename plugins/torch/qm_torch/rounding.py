"""Rounding that can be trained through: what integers make of weights and activations, and gradients past them.

Scales are learnt as factors, in their logarithm, so that one learning rate serves all of them.
Source: Jain et al., "Trained quantization thresholds for accurate and efficient fixed-point inference of deep neural
networks", 2020, section 3 and appendix B.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qm.numerics import Grid


class _Rounded(torch.autograd.Function):
    """The nearest values of a grid. Gradients pass where nothing is clipped, those of the scale by how steps round.

    Source: Esser et al., "Learned step size quantization", 2020, equations 1 to 3.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, steps: Tensor, zero: int, limits: tuple[int, int]) -> Tensor:
        whole = torch.round(steps) + zero
        kept = whole.clamp(*limits)
        inside = whole == kept
        kept -= zero
        ctx.shape = scale.shape
        ctx.save_for_backward(inside, torch.where(inside, kept - steps, kept))
        return kept * scale

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        inside, slope = ctx.saved_tensors
        grad = grads[0]
        return grad * inside, (grad * slope).sum_to_size(ctx.shape), None, None, None


class WeightRounding(nn.Module):
    """A weight as the integers of its channels stand for; takes nothing."""

    def __init__(self, weight: Tensor, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.weight = nn.Parameter(weight.clone())
        self.start: Tensor
        self.register_buffer("start", torch.from_numpy(grid.spread(grid.scale, tuple(weight.shape)).copy()))
        self.factor = nn.Parameter(torch.zeros_like(self.start))

    @property
    def scale(self) -> Tensor:
        """One step of each channel, in a form that broadcasts against the weight."""
        return self.start * self.factor.exp()

    def forward(self) -> Tensor:
        scale = self.scale
        # Divided as NumPy does it when the integers are written.
        steps = self.weight.detach() / scale.detach()
        made: Tensor = _Rounded.apply(self.weight, scale, steps, 0, self.grid.limits)
        return made


class ActivationRounding(nn.Module):
    """A tensor as the integers of its range stand for."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.limits = grid.limits
        self.zero = int(grid.zero_point)
        self.start: Tensor
        self.register_buffer("start", torch.from_numpy(np.array(grid.scale)))
        self.factor = nn.Parameter(torch.zeros(()))

    @property
    def scale(self) -> Tensor:
        """One step."""
        return self.start * self.factor.exp()

    def forward(self, x: Tensor) -> Tensor:
        scale = self.scale
        # Multiplied by the reciprocal, as the operation that is written does it.
        steps = x.detach() * (1.0 / scale.detach().double()).to(x.dtype)
        made: Tensor = _Rounded.apply(x, scale, steps, self.zero, self.limits)
        return made


class Kept(nn.Module):
    """A constant that is trained as it is; takes nothing."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value.clone())

    def forward(self) -> Tensor:
        return self.value
