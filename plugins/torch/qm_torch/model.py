"""An exported program in memory, run eagerly: the float reference, or what a quantized program means."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from qm.plugin import Array, Batch, Layer, Model, Scheme, TensorSpec, Unsupported, UsageError, unique
from qm_torch import layer, scheme, shape
from qm_torch.activation import result
from qm_torch.layer import Found
from qm_torch.manifest import Port


class TorchModel(Model):
    """An exported program. It must not be changed: build another, with ``with_program``.

    Batch normalization stays as it was exported; what quantizes the program folds it.
    """

    format: ClassVar[str] = "torch"

    def __init__(self, program: ExportedProgram, *, name: str = "model", notes: Sequence[str] = ()) -> None:
        self.program = program
        self.name = name
        self.notes = tuple(notes)
        layer.stamp(program)

    @property
    def native(self) -> ExportedProgram:
        return self.program

    def with_program(self, program: ExportedProgram, *notes: str) -> TorchModel:
        """Another program from the same source."""
        return TorchModel(program, name=self.name, notes=(*self.notes, *notes))

    @cached_property
    def module(self) -> GraphModule:
        """The program as a module that runs. To change one, take another from ``program.module()``."""
        return self.program.module()

    @cached_property
    def found(self) -> tuple[Found, ...]:
        """The layers where they stand."""
        return tuple(layer.find(self.program))

    @cached_property
    def _layers(self) -> tuple[Layer, ...]:
        return layer.layers(self.program)

    @cached_property
    def takes(self) -> tuple[Port, ...]:
        """The tensors it takes, with names for the lengths that vary."""
        return shape.inputs(self.program)

    @cached_property
    def gives(self) -> tuple[Port, ...]:
        """The tensors it gives."""
        return tuple(shape.port(name, node) for name, node in zip(self._output_names, self._ends, strict=True))

    @cached_property
    def limits(self) -> dict[str, tuple[int, int]]:
        """The bounds of the lengths that vary."""
        return shape.limits(self.program)

    def inputs(self) -> tuple[TensorSpec, ...]:
        return tuple(port.spec for port in self.takes)

    def outputs(self) -> tuple[TensorSpec, ...]:
        return tuple(port.spec for port in self.gives)

    def nbytes(self) -> int:
        """Bytes of the parameters, buffers and constants that the program reads, each counted once."""
        fixed = layer.constants(self.program)
        used = [n for n in self.program.graph.nodes if n.name in fixed and n.users]
        tensors = [layer.value(self.program, fixed[n.name]) for n in used]
        return sum({(t.data_ptr(), t.nbytes): t.nbytes for t in tensors}.values())

    def digest(self) -> str:
        """SHA-256 of the operations with their arguments, and of every parameter, buffer and constant they read."""
        return digest(self.program)

    def layers(self) -> tuple[Layer, ...]:
        return self._layers

    def schemes(self) -> dict[str, Scheme]:
        return {f.name: scheme.scheme(f) for f in self.found}

    def run(self, batch: Batch, watch: Sequence[str] = ()) -> dict[str, Array]:
        """Outputs by name, and activations by layer name; a normalization and an activation function that alone read a
        layer are included."""
        places = self.places(watch)
        flat = self._leaves(batch)
        seen: dict[str, torch.Tensor] = {}
        try:
            with torch.no_grad():
                if places:
                    made = _Watching(self.module, set(places.values()), seen).run(*flat, enable_io_processing=False)
                else:
                    args, kwargs = pytree.tree_unflatten(flat, self.program.call_spec.in_spec)
                    made = self.module(*args, **kwargs)
        except (AssertionError, RuntimeError) as e:
            raise refused(self.name, e) from e
        tensors = [value for value in pytree.tree_leaves(made) if isinstance(value, torch.Tensor)]
        named = dict(zip(self._output_names, map(array, tensors), strict=True))
        return named | {name: array(seen[place]) for name, place in places.items()}

    def places(self, watch: Sequence[str]) -> dict[str, str]:
        """The nodes that hold the results of the layers, by layer name.

        Raises:
            UsageError: there is no such layer.
        """
        there = {f.name: f.node for f in self.found}
        for name in watch:
            if name not in there:
                raise UsageError(
                    f"the model has no layer {name!r}", hint=f"The layers are: {', '.join(list(there)[:12])}."
                )
        return {name: result(there[name]).name for name in watch}

    def arguments(self, batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call, from arrays by input name.

        Raises:
            UsageError: an input is missing, or of a shape that the program was not exported for.
        """
        args, kwargs = pytree.tree_unflatten(self._leaves(batch), self.program.call_spec.in_spec)
        return args, kwargs

    def _leaves(self, batch: Batch) -> list[Any]:
        """What the program's user inputs get, in order: tensors, and constants that it was exported with."""
        arrays = shape.taken(self.takes, self.limits, batch, self.name)
        tensors = {port.name: _tensor(a, port.dtype) for port, a in zip(self.takes, arrays, strict=True)}
        flat: list[Any] = []
        for spec in self.program.graph_signature.input_specs:
            if spec.kind.name != "USER_INPUT":
                continue
            if not hasattr(spec.arg, "value") and spec.arg.name not in tensors:
                raise Unsupported(
                    f"model {self.name!r} takes {spec.arg.name!r}, which is a number that varies and no tensor",
                    hint="Export it with a number that is fixed, or as a tensor.",
                )
            flat.append(spec.arg.value if hasattr(spec.arg, "value") else tensors[spec.arg.name])
        return flat

    @cached_property
    def _ends(self) -> list[Node]:
        """The nodes that the user gets, without what updates buffers."""
        wanted = set(self.program.graph_signature.user_outputs)
        ends = [n for n in self.program.graph.output_node().args[0] if isinstance(n, Node)]
        return [n for n in ends if n.name in wanted and isinstance(n.meta["val"], torch.Tensor)]

    @cached_property
    def _output_names(self) -> list[str]:
        return output_names(self.program)


class _Watching(Interpreter):
    """Runs a module node by node, and keeps in ``seen`` what some of the nodes made."""

    def __init__(self, module: GraphModule, names: set[str], seen: dict[str, torch.Tensor]) -> None:
        super().__init__(module)
        self.names, self.seen = names, seen

    def run_node(self, n: Node) -> Any:
        made = super().run_node(n)
        if n.name in self.names:
            # What follows may write into it: an activation function in place does.
            self.seen[n.name] = made.clone()
        return made


def digest(program: ExportedProgram) -> str:
    """SHA-256 of what the program does: its operations, and the constants they read."""
    made = hashlib.sha256()
    fixed = layer.constants(program)
    for node in program.graph.nodes:
        made.update(f"{node.op} {node.name} {node.target} {node.args} {node.kwargs}\n".encode())
        if node.name in fixed:
            held = layer.value(program, fixed[node.name]).detach().cpu().contiguous()
            made.update(f"{held.dtype} {tuple(held.shape)}\n".encode())
            made.update(held.reshape(-1).view(torch.uint8).numpy().tobytes() if held.numel() else b"")
    return made.hexdigest()


def _tensor(values: Array, dtype: str) -> torch.Tensor:
    """The array as a tensor that nobody else writes to."""
    return torch.from_numpy(np.array(values)).to(getattr(torch, dtype))


def array(values: torch.Tensor) -> Array:
    """The tensor as an array; a dtype that NumPy lacks becomes float32."""
    plain = values.detach().cpu()
    made: Array = (plain.float() if plain.dtype is torch.bfloat16 else plain).numpy()
    return made


def output_names(program: ExportedProgram) -> list[str]:
    """The names of the outputs: keys and fields where the program returns such, else ``output_0`` and so on."""
    spec = program.call_spec.out_spec
    specs = [s for s in program.graph_signature.output_specs if s.kind.name == "USER_OUTPUT"]
    paths, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten(list(range(spec.num_leaves)), spec))
    tensors = [path for s, (path, _) in zip(specs, paths, strict=True) if type(s.arg).__name__ == "TensorArgument"]
    return unique(_path(path) or f"output_{number}" for number, path in enumerate(tensors))


def _path(path: tuple[Any, ...]) -> str:
    keys = [getattr(step, "key", getattr(step, "name", getattr(step, "idx", None))) for step in path]
    return ".".join(map(str, keys)) if any(isinstance(key, str) for key in keys) else ""


def refused(name: str, error: Exception) -> UsageError | Unsupported:
    """The error of a run in one sentence: a check of values or shapes names what the program was exported for."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if reason.startswith("Guard failed: "):
        return UsageError(
            f"model {name!r} was exported for {reason.removeprefix('Guard failed: ')!r}, which the samples break",
            hint="Give samples of that kind, or export the model with torch.export.Dim for that length.",
        )
    if reason.startswith("Expected input "):
        wanted = reason.partition(". If you meant")[0].removeprefix("Expected ")
        return UsageError(
            f"the samples do not fit model {name!r}, which expects {wanted}",
            hint="Give samples of that shape, or export the model with torch.export.Dim for that length.",
        )
    return Unsupported(f"model {name!r} cannot be run: {reason}", hint="Check the shapes of the samples.")
