"""How AOTInductor treats packed weights: the file keeps the bytes, and they are unpacked once, when it is opened.

Left alone it would unpack them while it compiles, and the file would hold every weight at full width. Told to fold
constants when a file is opened, it gives layers what they had without packing: integers that oneDNN has laid out for
its kernels, or floats. A table's rows stay packed, and are unpacked as they are looked up.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node

from qm_torch import layer, shim, trace
from qm_torch.constant import erase_unused, store
from qm_torch.packed import BITS, SPLIT

_EMBEDDING = torch.ops.aten.embedding.default
_SHIFTS = "qm_shifts"


def prepared(program: ExportedProgram) -> ExportedProgram:
    """The program with the packed weights of all layers but tables made of constants alone."""
    if not is_packed(program):
        return program
    gm = trace.opened(program)
    _fix_shifts(gm)
    erase_unused(gm)
    return trace.closed(gm, program)


def is_packed(program: ExportedProgram) -> bool:
    """Whether any weight is packed."""
    return any(node.target is SPLIT for node in program.graph.nodes)


def settings() -> dict[str, Any]:
    """What AOTInductor is to be told of a prepared program; they hold for one compilation, in a process of its own."""
    from torch._inductor.constant_folding import add_dont_constant_fold

    add_dont_constant_fold(SPLIT)
    shim.register()
    return {
        "aot_inductor.use_runtime_constant_folding": True,
        "aot_inductor.custom_ops_to_c_shims": shim.functions(),
        "post_grad_custom_post_pass": _Release(),
    }


class _Release:
    """Runs after the passes that fold into the file, and before it is decided what is folded when that is opened."""

    def __call__(self, graph: Graph) -> None:
        from torch._inductor.constant_folding import clear_dont_constant_fold

        clear_dont_constant_fold()
        shim.resolve(graph)

    def uuid(self) -> str:
        return "qm_torch.unpacking"


def _fix_shifts(gm: GraphModule) -> None:
    """Read the shifts of ``packed.restored`` from a constant, but for tables."""
    shifts = torch.arange(0, 2 * BITS, BITS, dtype=torch.uint8)
    for node in list(gm.graph.nodes):
        if not layer.is_operator(node) or node.target is _EMBEDDING:
            continue
        weight = node.args[layer.operand(node).weight]
        sources = layer.ancestry(weight) if isinstance(weight, Node) else ()
        for split in [source for source in sources if source.target is SPLIT]:
            with gm.graph.inserting_before(split):
                split.args = (split.args[0], store(gm, _SHIFTS, shifts))
