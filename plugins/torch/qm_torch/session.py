"""Artifacts opened by their real runtimes: packages of AOTInductor, and .pte files by ExecuTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from qm.plugin import Array, Batch, BenchmarkJob, Session, TensorSpec
from qm_torch.aoti import Package
from qm_torch.manifest import Manifest


class Runner(Protocol):
    """An artifact that runs."""

    manifest: Manifest

    def run(self, batch: Batch) -> dict[str, Array]: ...


class CompiledSession(Session):
    """One artifact, opened."""

    def __init__(self, runner: Runner, runtime: str, threads: int) -> None:
        self._runner = runner
        self._runtime = f"{runtime}, {threads} thread{'' if threads == 1 else 's'}"

    @property
    def runtime(self) -> str:
        return self._runtime

    def inputs(self) -> Sequence[TensorSpec]:
        return tuple(port.spec for port in self._runner.manifest.inputs)

    def run(self, batch: Batch) -> dict[str, Array]:
        return self._runner.run(batch)


def open_package(job: BenchmarkJob) -> CompiledSession:
    """A package of AOTInductor, opened."""
    package = Package(job.artifact.path, threads=job.threads)
    return CompiledSession(package, f"AOTInductor torch {torch.__version__.partition('+')[0]}", job.threads)
