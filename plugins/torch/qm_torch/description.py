"""Describing a program for the artifact that is made of it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from qm.plugin import ExportJob, Unsupported, UsageError
from qm_torch.manifest import Manifest
from qm_torch.model import TorchModel

_ISA = {
    "AVX2": torch.cpu._is_avx2_supported,
    "AVX512": torch.cpu._is_avx512_supported,
    "AVX512_VNNI": torch.cpu._is_vnni_supported,
    "AMX_TILE": torch.cpu._is_amx_tile_supported,
}


def torch_model(job: ExportJob) -> TorchModel:
    """The model to be exported.

    Raises:
        UsageError: it is of another format.
        Unsupported: it takes what is no tensor, or writes into its own state.
    """
    model = job.model
    if not isinstance(model, TorchModel):
        raise UsageError(f"{model!r} is no PyTorch program", hint="Export it with the exporter of its own format.")
    signature = model.program.graph_signature
    for spec in signature.input_specs:
        if spec.kind.name == "USER_INPUT" and hasattr(spec.arg, "value"):
            raise Unsupported(
                f"model {model.name!r} takes {spec.arg.name!r}, which is no tensor but the constant {spec.arg.value!r}",
                hint="Wrap the module in one whose forward takes tensors alone, and export that.",
            )
    if changed := next(_changed(model.program), None):
        raise Unsupported(
            f"model {model.name!r} changes {changed!r} at every run, which a compiled file cannot promise to do",
            hint="Export it in evaluation mode, with its state as an input and an output, and nothing done in place.",
        )
    return model


def _changed(program: ExportedProgram) -> Iterator[str]:
    """Buffers and inputs that a run writes to, by the operations that do so or by what the signature says."""
    signature = program.graph_signature
    yield from (*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate.values())
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is None or not schema.is_mutable:
            continue
        for argument, value in zip(schema.arguments, node.args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, Node):
                owner = _owner(value)
                if owner.op == "placeholder":
                    yield signature.inputs_to_buffers.get(owner.name, owner.name)


def _owner(node: Node) -> Node:
    """The node whose memory this one is a view of."""
    while (schema := getattr(node.target, "_schema", None)) is not None and schema.returns:
        if schema.returns[0].alias_info is None or not isinstance(node.args[0], Node):
            break
        node = node.args[0]
    return node


def manifest(model: TorchModel, *, isa: tuple[str, ...] = ()) -> Manifest:
    """What an artifact made of the model has to say of it."""
    return Manifest(
        inputs=model.takes,
        outputs=model.gives,
        layers=model.layers(),
        schemes=model.schemes(),
        limits=model.limits,
        torch=torch.__version__,
        isa=isa,
    )


def isa() -> tuple[str, ...]:
    """The instruction sets of this CPU that compilers for PyTorch make use of."""
    return tuple(name for name, is_there in _ISA.items() if is_there())
