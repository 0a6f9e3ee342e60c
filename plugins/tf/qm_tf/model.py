"""A .tflite model in memory, run by LiteRT."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ai_edge_litert.interpreter import Interpreter

from qm.plugin import Array, Batch, Layer, Model, Operator, Scheme, TensorSpec, UsageError
from qm_tf import flat, layer, operator, runtime, scheme
from qm_tf.graph import Graph
from qm_tf.layer import Found
from qm_tf.runtime import Runner


class LiteModel(Model):
    """A TensorFlow Lite model. Its flatbuffer objects must not be changed: build another, with ``with_content``."""

    format: ClassVar[str] = "tflite"

    def __init__(self, content: bytes, *, name: str = "model", notes: Sequence[str] = ()) -> None:
        self.content = content
        self.name = name
        self.notes = tuple(notes)
        self._watching: tuple[tuple[str, ...], Runner] | None = None

    @cached_property
    def native(self) -> Any:
        return flat.parse(self.content)

    @cached_property
    def graph(self) -> Graph:
        """The main graph."""
        return Graph(self.native)

    @cached_property
    def found(self) -> tuple[Found, ...]:
        """The layers where they stand."""
        return tuple(layer.find(self.graph))

    @cached_property
    def _layers(self) -> tuple[Layer, ...]:
        return layer.layers(self.native)

    def with_content(self, content: bytes) -> LiteModel:
        """Another flatbuffer from the same source."""
        return LiteModel(content, name=self.name, notes=self.notes)

    def inputs(self) -> tuple[TensorSpec, ...]:
        return runtime.specs(self._runner.inputs)

    def outputs(self) -> tuple[TensorSpec, ...]:
        return runtime.specs(self._runner.outputs)

    def nbytes(self) -> int:
        return len(self.content)

    def layers(self) -> tuple[Layer, ...]:
        return self._layers

    def schemes(self) -> dict[str, Scheme]:
        return scheme.schemes(self.native)

    def operators(self) -> tuple[Operator, ...]:
        return operator.operators(self.native)

    def run(self, batch: Batch, watch: Sequence[str] = ()) -> dict[str, Array]:
        """Outputs by name, and activations by layer name, both as real values; a fused activation is included."""
        if not watch:
            return self._runner.restored(self._runner.run(batch))
        places = self.places(watch)
        key = tuple(sorted(places))
        if self._watching is None or self._watching[0] != key:
            self._watching = (key, Runner(self.interpreter(extra_outputs=sorted(set(places.values())))))
        runner = self._watching[1]
        stored = runner.run(batch)
        values = {d["index"]: runtime.restored(stored[d["index"]], d) for d in runner.outputs}
        named = {self.graph.name(t): values[t] for t in self.graph.outputs}
        return named | {name: values[t] for name, t in places.items()}

    def places(self, watch: Sequence[str]) -> dict[str, int]:
        """The tensors that hold the results of the layers.

        Raises:
            UsageError: there is no such layer.
        """
        there = {f.name: f.output for f in self.found}
        for name in watch:
            if name not in there:
                raise UsageError(
                    f"the model has no layer {name!r}", hint=f"The layers are: {', '.join(list(there)[:12])}."
                )
        return {name: there[name] for name in watch}

    def interpreter(self, *, threads: int = 1, extra_outputs: Sequence[int] = ()) -> Interpreter:
        """An interpreter of its own, with tensors of the main graph as outputs too."""
        content = self.content
        if extra_outputs:
            content = flat.serialize(with_outputs(self.native, extra_outputs))
        return runtime.opened(content, self.name, threads=threads)

    @cached_property
    def _runner(self) -> Runner:
        return Runner(runtime.opened(self.content, self.name))


class SourceModel(LiteModel):
    """A model that TensorFlow or Keras made: the float .tflite it was converted to, and where it came from."""

    def __init__(self, content: bytes, *, source: Path, name: str = "model", notes: Sequence[str] = ()) -> None:
        super().__init__(content, name=name, notes=notes)
        self.source = source


class KerasModel(SourceModel):
    """A model from a Keras file."""

    format: ClassVar[str] = "keras"


class SavedModel(SourceModel):
    """A model from a SavedModel folder."""

    format: ClassVar[str] = "saved_model"


def with_outputs(model: Any, numbers: Sequence[int]) -> Any:
    """A view of the model with tensors of its main graph as outputs too; all else is shared with it."""
    made = copy.copy(model)
    main = copy.copy(model.subgraphs[0])
    there = [int(t) for t in main.outputs]
    main.outputs = [*there, *(n for n in numbers if n not in there)]
    made.subgraphs = [main, *model.subgraphs[1:]]
    return made
