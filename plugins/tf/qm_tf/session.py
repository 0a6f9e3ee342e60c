"""A .tflite file opened by LiteRT with XNNPACK, and the time of each of its operations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from qm.plugin import Array, Batch, BenchmarkJob, OpTime, Session, TensorSpec, unique
from qm_tf import alone, runtime
from qm_tf.graph import Graph, Op
from qm_tf.layer import Found, find
from qm_tf.load import read
from qm_tf.model import LiteModel
from qm_tf.normalize import normalize
from qm_tf.operator import is_integer, operation_name
from qm_tf.runtime import Runner
from qm_tf.scheme import is_quantized

WITHOUT = " (no XNNPACK)"
"""What is added to the kind of an operation that XNNPACK has not taken."""


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
        return f"LiteRT {runtime.version()} {self._kernels}, {threads}"

    @cached_property
    def _kernels(self) -> str:
        run = alone.run_ops(self._model.graph)
        taken = sum(op.number in self._delegated for op in run)
        if taken == len(run):
            return "XNNPACK"
        return f"XNNPACK for {taken} of {len(run)} operations" if taken else "builtin kernels"

    @cached_property
    def _delegated(self) -> frozenset[int]:
        return alone.delegated(self._model.graph, self._interpreter)

    @cached_property
    def _loaded(self) -> Graph:
        """The main graph under the names that it has once the model is loaded."""
        native = self._model.native
        return self._model.graph if is_quantized(native) else Graph(normalize(native))

    @cached_property
    def _names(self) -> dict[int, str]:
        return {t: self._loaded.name(t) for t in (*self._loaded.inputs, *self._loaded.outputs)}

    @cached_property
    def _runner(self) -> Runner:
        return Runner(self._interpreter, self._names)

    def inputs(self) -> Sequence[TensorSpec]:
        return runtime.specs(self._runner.inputs)

    def run(self, batch: Batch) -> dict[str, Array]:
        return self._runner.restored(self._runner.run(batch))

    def profile(self, batch: Batch) -> list[OpTime]:
        """Time of each operation of the main graph, cut out and run alone on what reaches it, in execution order.

        Calls of other subgraphs and operations on text or resources are left out. Kernels are those of the whole model.
        """
        graph = self._model.graph
        ops = alone.timed_ops(graph)
        extra = sorted({t for op in ops for t in (*alone.fed(graph, op), *op.outputs) if t >= 0} - {*graph.inputs})
        whole = Runner(self._model.interpreter(threads=self._threads, extra_outputs=extra), self._names)
        values = whole.run(batch) | {d["index"]: runtime.fed(np.asarray(batch[d["name"]]), d) for d in whole.inputs}
        layers = {f.op.number: f for f in find(self._loaded)}
        names = unique(operation_name(graph, op, layers.get(op.number)) for op in ops)
        return [self._timed(op, n, layers.get(op.number), values) for op, n in zip(ops, names, strict=True)]

    def _timed(self, op: Op, text: str, layer: Found | None, values: dict[int, Array]) -> OpTime:
        graph = self._model.graph
        taken = op.number in self._delegated
        content = alone.cut(graph, op, {t: values[t].shape for t in (*op.inputs, *op.outputs) if t in values})
        interpreter = runtime.opened(content, f"{text} alone", threads=self._threads, xnnpack=taken)
        return OpTime(
            name=text,
            kind=op.kind + ("" if taken else WITHOUT),
            latency_us=alone.latency_us(interpreter, [values[t] for t in alone.fed(graph, op)]),
            layer=layer.name if layer else "",
            integer=is_integer(graph, layer) if layer else None,
            fast=taken,
        )
