"""One subgraph of a .tflite model: who makes a tensor, who reads it, what is constant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from qm.plugin import Array
from qm_tf import flat

CONTROL = frozenset({"CALL", "CALL_ONCE", "IF", "STABLEHLO_COMPOSITE", "STABLEHLO_WHILE", "WHILE"})
"""Operations that run other subgraphs."""


@dataclass(frozen=True)
class Op:
    """An operation where it stands. ``inputs`` and ``outputs`` are tensor numbers, -1 for one left out."""

    number: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    native: Any = field(compare=False, repr=False)


class Graph:
    """A subgraph, the main one where none is named."""

    def __init__(self, model: Any, number: int = 0) -> None:
        self.model = model
        self.number = number
        self.native = model.subgraphs[number]
        self.ops = tuple(
            Op(i, flat.operator(model, op), _numbers(op.inputs), _numbers(op.outputs), op)
            for i, op in enumerate(self.native.operators or ())
        )
        self.producer = {t: op for op in self.ops for t in op.outputs}
        self.consumers: dict[int, list[Op]] = {}
        for op in self.ops:
            for t in dict.fromkeys(op.inputs):
                self.consumers.setdefault(t, []).append(op)

    @property
    def inputs(self) -> tuple[int, ...]:
        return _numbers(self.native.inputs)

    @property
    def outputs(self) -> tuple[int, ...]:
        return _numbers(self.native.outputs)

    def tensor(self, number: int) -> Any:
        """The tensor of that number."""
        return self.native.tensors[number]

    def name(self, number: int) -> str:
        """The tensor's name."""
        return flat.text(self.tensor(number).name)

    def type(self, number: int) -> str:
        """The name of the tensor's true type."""
        return flat.type_name(self.tensor(number))

    def shape(self, number: int) -> tuple[int, ...]:
        """The tensor's shape, a free length as 1."""
        return flat.shape(self.tensor(number))

    def is_constant(self, number: int) -> bool:
        """Whether the tensor's values are stored."""
        if number < 0:
            return False
        data = self.model.buffers[self.tensor(number).buffer].data
        return data is not None and len(data) > 0 and number not in self.producer

    def array(self, number: int) -> Array | None:
        """The stored values of a constant; None where the tensor is none."""
        return flat.array(self.model, self.tensor(number)) if self.is_constant(number) else None

    def source(self, number: int) -> tuple[int, tuple[str, ...]]:
        """The constant behind a tensor, -1 for none, and the kinds of the operations between them.

        Those are DEQUANTIZE of weights stored as integers or halves, and RESHAPE or TRANSPOSE of constants.
        """
        passed: list[str] = []
        while number >= 0 and not self.is_constant(number):
            op = self.producer.get(number)
            if op is None or op.kind not in ("DEQUANTIZE", "RESHAPE", "TRANSPOSE"):
                return -1, tuple(passed)
            passed.append(op.kind)
            number = op.inputs[0]
        return number, tuple(passed)

    @cached_property
    def prepared(self) -> frozenset[int]:
        """The tensors that operations make of constants alone, which the runtime does once and not in each run."""
        made: set[int] = set()
        for op in self.ops:
            read = [t for t in op.inputs if t >= 0]
            if read and op.kind not in CONTROL and all(t in made or self.is_constant(t) for t in read):
                made.update(op.outputs)
        return frozenset(made)


def graphs(model: Any) -> Iterator[Graph]:
    """Every subgraph, the main one first."""
    for number in range(len(model.subgraphs)):
        yield Graph(model, number)


def _numbers(values: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in ([] if values is None else values))
