"""A .tflite file opened by LiteRT with XNNPACK."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qm.plugin import Array, Batch, BenchmarkJob, Session, TensorSpec
from qm_tf import runtime
from qm_tf.load import read
from qm_tf.model import LiteModel


def open_session(job: BenchmarkJob) -> LiteSession:
    """The artifact, opened."""
    return LiteSession(job.artifact.path, threads=job.threads)


class LiteSession(Session):
    """One .tflite file in LiteRT's interpreter, with the XNNPACK delegate, on the CPU."""

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        self._threads = threads
        self._model = LiteModel(read(path), name=str(path))
        self._interpreter = self._model.interpreter(threads=threads)

    @property
    def runtime(self) -> str:
        threads = "1 thread" if self._threads == 1 else f"{self._threads} threads"
        return f"LiteRT {runtime.version()} XNNPACK, {threads}"

    def inputs(self) -> Sequence[TensorSpec]:
        return runtime.specs(self._interpreter.get_input_details())

    def run(self, batch: Batch) -> dict[str, Array]:
        values = runtime.run(self._interpreter, batch)
        details = self._interpreter.get_output_details()
        return {d["name"]: runtime.restored(values[d["index"]], d) for d in details}
