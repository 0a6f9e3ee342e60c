"""One operation as a model of its own: LiteRT does not tell from Python what each operation of a model takes."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from ai_edge_litert.interpreter import Interpreter

from qm.plugin import Array
from qm_tf import flat
from qm_tf.graph import CONTROL, Graph, Op

WARMUPS = 3
ROUNDS = 30
LEAST = 3
BUDGET_S = 0.05
"""An operation that takes long is run less often, ``LEAST`` times at least."""

_UNFED = frozenset({"RESOURCE", "STRING", "UNKNOWN", "VARIANT"})
"""Types of which no array can be fed."""


def run_ops(graph: Graph) -> list[Op]:
    """The operations that each run goes through; those of other subgraphs, and what calls them, are left out."""
    return [op for op in graph.ops if op.kind not in CONTROL and not graph.prepared.issuperset(op.outputs)]


def timed_ops(graph: Graph) -> list[Op]:
    """Those of ``run_ops`` that can be cut out."""

    def can_be_fed(op: Op) -> bool:
        return not any(graph.type(t) in _UNFED for t in (*op.inputs, *op.outputs) if t >= 0)

    return [op for op in run_ops(graph) if can_be_fed(op)]


def fed(graph: Graph, op: Op) -> list[int]:
    """The tensors that an operation reads and that change from run to run."""
    read = dict.fromkeys(t for t in op.inputs if t >= 0)
    return [t for t in read if not (graph.is_constant(t) or graph.tensor(t).isVariable or t in graph.prepared)]


def cut(graph: Graph, op: Op, shapes: Mapping[int, tuple[int, ...]]) -> bytes:
    """A model of one operation, with its constants and what prepares them, for tensors of these shapes.

    Its inputs are those that ``fed`` names, in that order.
    """
    ops = [*_preparing(graph, op), op]
    numbers = list(dict.fromkeys(t for o in ops for t in (*o.inputs, *_intermediates(o), *o.outputs) if t >= 0))
    place = {number: i for i, number in enumerate(numbers)} | {-1: -1}
    buffers = [graph.model.buffers[0]]
    tensors = []
    for number in numbers:
        tensor = copy.copy(graph.tensor(number))
        tensor.name = f"t{number}".encode()
        if number in shapes:
            tensor.shape, tensor.shapeSignature = list(shapes[number]), None
        if graph.is_constant(number):
            buffers.append(graph.model.buffers[tensor.buffer])
            tensor.buffer = len(buffers) - 1
        else:
            tensor.buffer = 0
        tensors.append(tensor)
    main = copy.copy(graph.native)
    main.tensors, main.operators = tensors, [_moved(o, place) for o in ops]
    main.inputs, main.outputs = [place[t] for t in fed(graph, op)], [place[t] for t in op.outputs if t >= 0]
    made = copy.copy(graph.model)
    made.subgraphs, made.buffers = [main], buffers
    made.signatureDefs = made.metadata = made.metadataBuffer = made.description = None
    return flat.serialize(made)


def latency_us(interpreter: Interpreter, values: Iterable[Array]) -> float:
    """Median time of a run on the given inputs, after a warm-up."""
    for details, value in zip(interpreter.get_input_details(), values, strict=True):
        interpreter.set_tensor(details["index"], value)
    for _ in range(WARMUPS):
        interpreter.invoke()
    end = time.perf_counter() + BUDGET_S
    times: list[float] = []
    while len(times) < ROUNDS and (len(times) < LEAST or time.perf_counter() < end):
        start = time.perf_counter_ns()
        interpreter.invoke()
        times.append((time.perf_counter_ns() - start) / 1e3)
    return median(times)


def delegated(graph: Graph, interpreter: Interpreter) -> frozenset[int]:
    """The numbers of the operations that delegates have taken: all between a delegate's inputs and its outputs."""
    taken: set[int] = set()
    for node in interpreter._get_ops_details():
        if node["op_name"] != "DELEGATE":
            continue
        border = {int(t) for t in node["inputs"]}
        reached = [int(t) for t in node["outputs"]]
        while reached:
            op = graph.producer.get(reached.pop())
            if op is not None and op.number not in taken:
                taken.add(op.number)
                reached += [t for t in op.inputs if t not in border]
    return frozenset(taken)


def _preparing(graph: Graph, op: Op) -> list[Op]:
    """The operations that prepare the constants of one, in execution order."""
    found: dict[int, Op] = {}
    waiting = [op]
    while waiting:
        for t in waiting.pop().inputs:
            before = graph.producer.get(t)
            if before is not None and before.number not in found and t in graph.prepared:
                found[before.number] = before
                waiting.append(before)
    return [found[n] for n in sorted(found)]


def _intermediates(op: Op) -> tuple[int, ...]:
    return tuple(int(t) for t in ([] if op.native.intermediates is None else op.native.intermediates))


def _moved(op: Op, place: Mapping[int, int]) -> Any:
    made = copy.copy(op.native)
    made.inputs, made.outputs = [place[t] for t in op.inputs], [place[t] for t in op.outputs]
    if op.native.intermediates is not None:
        made.intermediates = [place[t] for t in _intermediates(op)]
    return made
