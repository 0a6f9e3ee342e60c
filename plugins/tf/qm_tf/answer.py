"""What a graph answers: its outputs, before the functions that squeeze them into probabilities."""

from __future__ import annotations

from dataclasses import dataclass

from qm_tf.graph import Graph

_SQUEEZE = {"SOFTMAX": "softmax", "LOGISTIC": "logistic"}
_PASSED = frozenset({"DEQUANTIZE", "QUANTIZE", "RESHAPE"})


@dataclass(frozen=True)
class Answer:
    """A tensor to learn; ``kind`` is ``softmax`` or ``logistic`` where that function follows it, else ``value``."""

    number: int
    kind: str

    @classmethod
    def of(cls, graph: Graph) -> list[Answer]:
        """One an output, in the order of the outputs."""
        return [cls._behind(graph, number) for number in graph.outputs]

    @classmethod
    def _behind(cls, graph: Graph, number: int) -> Answer:
        at = number
        while (op := graph.producer.get(at)) is not None and op.kind in _PASSED:
            at = op.inputs[0]
        if op is not None and op.kind in _SQUEEZE:
            return cls(op.inputs[0], _SQUEEZE[op.kind])
        return cls(number, "value")
