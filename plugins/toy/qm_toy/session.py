"""A toy file opened by its runtime, which is NumPy."""

from __future__ import annotations

from time import perf_counter

import numpy as np

from qm.plugin import Array, Batch, BenchmarkJob, LoadJob, OpTime, Session, TensorSpec
from qm_toy.model import ToyModel
from qm_toy.store import load


class ToySession(Session):
    """A toy model ready to be timed."""

    def __init__(self, model: ToyModel) -> None:
        self._model = model

    @property
    def runtime(self) -> str:
        """NumPy's version."""
        return f"numpy {np.__version__}"

    def inputs(self) -> list[TensorSpec]:
        """What to feed."""
        return self._model.inputs()

    def run(self, batch: Batch) -> dict[str, Array]:
        """The outputs."""
        return self._model.run(batch)

    def profile(self, batch: Batch) -> list[OpTime]:
        """Time in each layer."""
        times = []
        start = perf_counter()
        for layer, _ in self._model.walk(batch):
            end = perf_counter()
            times.append(
                OpTime(
                    name=layer.name,
                    kind="Dense",
                    latency_us=(end - start) * 1e6,
                    layer=layer.name,
                    integer=layer.is_integer,
                )
            )
            start = end
        return times


def connect(job: BenchmarkJob) -> ToySession:
    """Open a ``.toy`` file."""
    return ToySession(load(LoadJob(path=job.artifact.path)))
