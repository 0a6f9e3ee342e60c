"""A file of weights as a model: matrices that can be quantized, and no graph that could be run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qm.plugin import Layer, Model, Scheme, TensorSpec
from qm_tensors import layout
from qm_tensors.filling import Filling
from qm_tensors.header import Header


class TensorsModel(Model):
    """The tensors of the file at ``path``; ``filling`` is what made it, kept for as long as the file is needed."""

    format = "safetensors"

    def __init__(self, path: Path, header: Header, filling: Filling | None = None) -> None:
        self.path, self.header, self._filling = path, header, filling

    @property
    def native(self) -> Header:
        return self.header

    @property
    def is_streamed(self) -> bool:
        return True

    def inputs(self) -> Sequence[TensorSpec]:
        return ()

    def outputs(self) -> Sequence[TensorSpec]:
        return ()

    def nbytes(self) -> int:
        return self.path.stat().st_size

    def layers(self) -> Sequence[Layer]:
        """The matrices, in the order of their names."""
        found = {name: layout.shape(self.header, name) for name in layout.matrices(self.header)}
        return [Layer(name=name, kind="matrix", weights=rows * columns) for name, (rows, columns) in found.items()]

    def schemes(self) -> dict[str, Scheme]:
        return {name: layout.scheme(self.header, name) for name in layout.matrices(self.header)}
