"""Arrays by name turned into the tensors that an artifact takes, in its order, and its results into arrays by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from qm.plugin import Array, Batch, UsageError
from qm_torch.manifest import Manifest, Port


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
        arrays = []
        sizes: dict[str, int] = {}
        for port in self._manifest.inputs:
            if port.name not in batch:
                raise UsageError(
                    f"the samples lack the input {port.name!r} of {str(self._path)!r}",
                    hint=f"They have {', '.join(map(repr, sorted(batch)))}; give arrays by the model's own names.",
                )
            # A copy where it must be one: memory of others may be read-only or go in any order.
            value = np.require(batch[port.name], dtype=port.dtype, requirements=["C", "W"])
            self._check(port, value, sizes)
            arrays.append(value)
        return [torch.from_numpy(array) for array in arrays]

    def _check(self, port: Port, value: Array, sizes: dict[str, int]) -> None:
        fits = len(value.shape) == len(port.shape)
        for size, here in zip(port.shape, value.shape, strict=False):
            if isinstance(size, int):
                fits &= size == here
                continue
            low, high = self._manifest.limits.get(size, (0, here))
            fits &= low <= here <= high and sizes.setdefault(size, here) == here
        if not fits:
            given = ", ".join(map(str, value.shape))
            raise UsageError(
                f"the samples have {port.name!r} as [{given}], and {str(self._path)!r} takes {self._told(port)}",
                hint="Give samples of that shape, or export the model with torch.export.Dim for a length that varies.",
            )

    def _told(self, port: Port) -> str:
        return f"{port.dtype} [{', '.join(map(self._range, port.shape))}]"

    def _range(self, size: int | str) -> str:
        if isinstance(size, int):
            return str(size)
        low, high = self._manifest.limits.get(size, (0, 0))
        return f"{low} to {high}" if 0 < high < 1 << 31 else "any"

    def arrays(self, made: Sequence[torch.Tensor]) -> dict[str, Array]:
        """The results by name, in memory of their own."""
        return {
            port.name: np.array((t.float() if t.dtype is torch.bfloat16 else t).detach().numpy(), copy=True)
            for port, t in zip(self._manifest.outputs, made, strict=True)
        }
