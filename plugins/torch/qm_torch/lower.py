"""Lowering a program to a .pte file: ExecuTorch, with XNNPACK for all that it takes."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.ao.quantization.fx._decomposed  # Registers the operations of quantized programs.
from torch.export import ExportedProgram

from qm.plugin import Artifact, ExportJob, Unsupported
from qm_torch import description, process, xnnpack
from qm_torch.manifest import KEY
from qm_torch.model import TorchModel
from qm_torch.packed import BITS

MODULE = "qm_torch.lower"


def export(job: ExportJob) -> Artifact:
    """Lower the model to ``job.path``.

    Raises:
        Unsupported: integers of a layer do not fit XNNPACK's kernels.
        PluginError: ExecuTorch failed, or its process died.
    """
    model = description.torch_model(job)
    check_widths(model)
    told = description.manifest(model).text()
    with process.workshop() as folder:
        torch.export.save(model.program, folder / "program.pt2")
        order = {"manifest": told, "name": model.name}
        process.run(MODULE, order, what=f"lowering {model.name!r}", folder=folder)
        job.path.write_bytes((folder / "program.pte").read_bytes())
    return Artifact(path=job.path, format="pte")


def work(job: process.Job, emit: process.Emit) -> process.Job:
    """Lower the program that lies in the current folder."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    torch.set_num_threads(1)
    program = xnnpack.prepared(torch.export.load("program.pt2"))
    # A method that returns the manifest: the one place in the file that may hold what we like.
    text = torch.frombuffer(bytearray(job["manifest"].encode()), dtype=torch.uint8).clone()
    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()], constant_methods={KEY: text})
    check_kernels(edge.exported_program(), job["name"])
    Path("program.pte").write_bytes(edge.to_executorch().buffer)
    return {}


def check_widths(model: TorchModel) -> None:
    """Raise Unsupported where weights are packed: XNNPACK reads none that are computed, and unpacked the file would be
    as large as that of 8 bits."""
    packed = {name: s for name, s in model.schemes().items() if s.weight_bits <= BITS}
    if packed:
        name, scheme = next(iter(packed.items()))
        raise Unsupported(
            f"a .pte file has no kernels for {scheme}, in which {len(packed)} of the layers of {model.name!r} are, "
            f"such as {name!r}",
            hint="Write a .pt2 package instead, or quantize to 8 bits.",
        )


def check_kernels(program: ExportedProgram, name: str) -> None:
    """Raise Unsupported where a weight in integers was left to be multiplied in float."""
    signature = program.graph_signature
    fixed = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    left = []
    for node in program.graph.nodes:
        if "dequantize_per_channel" in str(node.target):
            stored = node.args[0]
            left.append(fixed.get(getattr(stored, "name", ""), str(stored)).removesuffix(".weight"))
    if left:
        raise Unsupported(
            f"XNNPACK has no integer kernel for {len(left)} of the layers of {name!r}, such as {left[0]!r}, "
            "as they are quantized here",
            hint=f"Write a .pt2 package instead, or leave them in float: --rule '{left[0]}=float'.",
        )


if __name__ == "__main__":
    process.serve(work)
