"""Arrays by name turned into the tensors that an artifact takes, in its order, and its results into arrays by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from qm.plugin import Array, Batch
from qm_torch import shape
from qm_torch.manifest import Manifest


class Feed:
    """What goes into one artifact and what comes out of it."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._path = path
        self._manifest = manifest

    def tensors(self, batch: Batch) -> list[torch.Tensor]:
        """The tensors of a batch, in the artifact's order.

        Raises:
            UsageError: an input is missing, or of a shape that the artifact was not made for.
        """
        ports = self._manifest.inputs
        arrays = shape.taken(ports, self._manifest.limits, batch, str(self._path))
        # A copy where it must be one: memory of others may be read-only or go in any order.
        return [
            torch.from_numpy(np.require(array, dtype=port.dtype, requirements=["C", "W"]))
            for port, array in zip(ports, arrays, strict=True)
        ]

    def arrays(self, made: Sequence[torch.Tensor]) -> dict[str, Array]:
        """The results by name, in memory of their own."""
        return {
            port.name: np.array((t.float() if t.dtype is torch.bfloat16 else t).detach().numpy(), copy=True)
            for port, t in zip(self._manifest.outputs, made, strict=True)
        }
