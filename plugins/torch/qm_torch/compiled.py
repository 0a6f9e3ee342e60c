"""Artifacts loaded again: what they say of themselves, and their answers from the real kernels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from qm.plugin import Array, Batch, Layer, LoadJob, Model, Scheme, TensorSpec, Unsupported
from qm_torch import aoti
from qm_torch.aoti import Package
from qm_torch.manifest import Manifest


class CompiledModel(Model):
    """An artifact, by its manifest."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    def inputs(self) -> Sequence[TensorSpec]:
        return tuple(port.spec for port in self.manifest.inputs)

    def outputs(self) -> Sequence[TensorSpec]:
        return tuple(port.spec for port in self.manifest.outputs)

    def nbytes(self) -> int:
        return self.path.stat().st_size

    def layers(self) -> Sequence[Layer]:
        return self.manifest.layers

    def schemes(self) -> dict[str, Scheme]:
        return dict(self.manifest.schemes)


class PackageModel(CompiledModel):
    """A package of AOTInductor. Its code is not loaded before it is run."""

    format: ClassVar[str] = "aoti"

    @cached_property
    def native(self) -> Package:
        return Package(self.path)

    def run(self, batch: Batch, watch: Sequence[str] = ()) -> dict[str, Array]:
        _refuse(watch, self.path)
        return self.native.run(batch)


class PteModel(CompiledModel):
    """A .pte file, opened for each run alone: no other may change ExecuTorch's threads while it is open."""

    format: ClassVar[str] = "pte"

    def __init__(self, path: Path) -> None:
        opened = self._opened(path)
        super().__init__(path, opened.manifest)
        self._is_ours: bool = opened.is_ours

    @staticmethod
    def _opened(path: Path) -> Any:
        from qm_torch.pte import Pte  # Imports ExecuTorch, which an installation may lack.

        return Pte(path)

    @property
    def native(self) -> Any:
        return self._opened(self.path)

    def layers(self) -> Sequence[Layer]:
        self._check_ours("layers")
        return super().layers()

    def schemes(self) -> dict[str, Scheme]:
        self._check_ours("schemes")
        return super().schemes()

    def run(self, batch: Batch, watch: Sequence[str] = ()) -> dict[str, Array]:
        _refuse(watch, self.path)
        made: dict[str, Array] = self.native.run(batch)
        return made

    def _check_ours(self, what: str) -> None:
        if not self._is_ours:
            raise Unsupported(
                f"{str(self.path)!r} was written by others and does not tell its {what}",
                hint="Export it with qm quantize --to net.pte.",
            )


def load_package(job: LoadJob) -> PackageModel:
    """The model in a package of AOTInductor; raises UsageError where the file is none."""
    return PackageModel(job.path, aoti.read(job.path))


def load_pte(job: LoadJob) -> PteModel:
    """The model in a .pte file; raises UsageError where the file is none."""
    return PteModel(job.path)


def _refuse(watch: Sequence[str], path: Path) -> None:
    if watch:
        raise Unsupported(
            f"{str(path)!r} is compiled, and does not show what is inside",
            hint="Watch the layers of the program that it was made of.",
        )
