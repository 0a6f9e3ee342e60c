"""The shapes that a program takes, and whether arrays have them.

PyTorch's own checks are not relied on: it leaves them out where the path of a caller holds certain names, and machine
code has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from sympy import Integer
from torch.export import ExportedProgram
from torch.fx import Node

from qm.plugin import Array, Batch, UsageError
from qm_torch.manifest import Port, Size

MOST = 1 << 31
"""Stands for a length without bound."""

Limits = Mapping[str, tuple[int, int]]
"""The least and the greatest of each length that may vary."""


def inputs(program: ExportedProgram) -> tuple[Port, ...]:
    """The tensors that a user gives, in order."""
    return tuple(port(node.name, node) for node in _starts(program))


def port(name: str, node: Node) -> Port:
    """What the node holds, as an input or output of that name."""
    value = node.meta["val"]
    return Port(name=name, shape=tuple(map(_size, value.shape)), dtype=str(value.dtype).removeprefix("torch."))


def limits(program: ExportedProgram) -> dict[str, tuple[int, int]]:
    """The bounds of the lengths of the inputs that may vary."""
    return dict(_limits(program, _starts(program)))


def taken(ports: Iterable[Port], bounds: Limits, batch: Batch, name: str) -> list[Array]:
    """The arrays of a batch in the order of the ports; ``name`` is the model's.

    Raises:
        UsageError: an input is missing, or of a shape that the model does not take.
    """
    arrays: list[Array] = []
    met: dict[str, tuple[int, str]] = {}
    for wanted in ports:
        if wanted.name not in batch:
            raise UsageError(
                f"the samples lack the input {wanted.name!r} of model {name!r}",
                hint=f"They have {', '.join(map(repr, sorted(batch)))}; give arrays by the model's own names.",
            )
        value = batch[wanted.name]
        lengths = _lengths(wanted, value.shape, bounds, met)
        if lengths is None:
            raise UsageError(
                f"the samples have {wanted.name!r} as {_list(value.shape)}, and model {name!r} takes "
                f"{wanted.dtype} {_list(_told(wanted, bounds, met))}",
                hint="Give samples of that shape, or export the model with torch.export.Dim for a length that varies.",
            )
        met = {**{size: (length, wanted.name) for size, length in lengths.items()}, **met}
        arrays.append(value)
    return arrays


def _starts(program: ExportedProgram) -> list[Node]:
    nodes = {n.name: n for n in program.graph.nodes if n.op == "placeholder"}
    given = (nodes[name] for name in program.graph_signature.user_inputs if isinstance(name, str))
    return [node for node in given if isinstance(node.meta["val"], torch.Tensor)]


def _size(size: int | torch.SymInt) -> Size:
    if isinstance(size, torch.SymInt) and not size.node.expr.is_number:
        return str(size.node.expr)
    return int(size)


def _limits(program: ExportedProgram, nodes: Iterable[Node]) -> Iterator[tuple[str, tuple[int, int]]]:
    for node in nodes:
        for size in node.meta["val"].shape:
            if isinstance(size, torch.SymInt) and (bound := program.range_constraints.get(size.node.expr)):
                # Compilers keep 0 and 1 out of what varies, and run them all the same.
                low = 1 if bound.lower <= 2 else int(bound.lower)
                high = int(bound.upper) if isinstance(bound.upper, Integer) else MOST
                yield str(size.node.expr), (low, min(high, MOST))


def _lengths(
    wanted: Port, shape: Sequence[int], bounds: Limits, met: Mapping[str, tuple[int, str]]
) -> dict[str, int] | None:
    """The lengths that vary, as the shape has them; None where it does not fit the port, or what was met before."""
    if len(shape) != len(wanted.shape):
        return None
    found = {size: length for size, (length, _) in met.items()}
    for size, here in zip(wanted.shape, shape, strict=True):
        if isinstance(size, int):
            if size != here:
                return None
            continue
        low, high = bounds.get(size, (0, here))
        if not low <= here <= high or found.setdefault(size, here) != here:
            return None
    return found


def _told(wanted: Port, bounds: Limits, met: Mapping[str, tuple[int, str]]) -> Iterator[str]:
    """The lengths that the port takes, as a person reads them."""
    for place, size in enumerate(wanted.shape):
        if isinstance(size, int):
            yield str(size)
            continue
        low, high = bounds.get(size, (0, MOST))
        if size in met:
            yield f"{met[size][0]} as in {met[size][1]!r}"
        elif size in wanted.shape[:place]:
            yield "the same"
        elif high < MOST:
            yield f"{low} to {high}"
        else:
            yield "any" if low <= 1 else f"{low} or more"


def _list(sizes: Iterable[object]) -> str:
    return f"[{', '.join(map(str, sizes))}]"
