"""Writing a float program as an ONNX file, so that what quantizes ONNX can take it from there."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from qm.plugin import Artifact, ExportJob, Unsupported
from qm_torch import description, layer, process
from qm_torch.model import TorchModel

MODULE = "qm_torch.interchange"
BESIDE_FROM = (1 << 31) - (1 << 24)
"""Bytes, with a margin below protobuf's 2 GB, from which the weights go into a file of their own."""


def export(job: ExportJob) -> Artifact:
    """Write the model to ``job.path``, with ``NAME.onnx.data`` beside it where its weights need that.

    Raises:
        Unsupported: the model is quantized.
        PluginError: the exporter failed, or its process died.
    """
    model = description.torch_model(job)
    if done := [name for name, scheme in model.schemes().items() if not scheme.is_float]:
        raise Unsupported(
            f"model {model.name!r} is quantized ({done[0]!r} and {len(done) - 1} more layers), "
            "and only float models are written as ONNX",
            hint="Quantize by way of ONNX, which gives the faster file: -p onnx.ptq, -p onnx.dynamic, -p onnx.weights.",
        )
    with process.workshop() as folder:
        torch.export.save(model.program, folder / "program.pt2")
        order = {
            "inputs": [spec.name for spec in model.inputs()],
            "outputs": [spec.name for spec in model.outputs()],
            "beside": model.nbytes() >= BESIDE_FROM,
            "file": job.path.name,
            "layers": _weights(model),
        }
        process.run(MODULE, order, what=f"writing {model.name!r} as ONNX", folder=folder)
        for made in (folder / "made").iterdir():
            shutil.move(made, job.path.with_name(made.name))
    return Artifact(path=job.path, format="onnx")


def work(job: process.Job, emit: process.Emit) -> process.Job:
    """Write the program that lies in the current folder."""
    torch.set_num_threads(1)
    program = torch.export.load("program.pt2")
    place = Path("made")
    place.mkdir()
    torch.onnx.export(
        program,
        f=str(place / job["file"]),
        input_names=job["inputs"],
        output_names=job["outputs"],
        dynamo=True,
        external_data=job["beside"],
        verbose=False,
    )
    _tidy(place / job["file"], job["layers"])
    return {}


def _weights(model: TorchModel) -> dict[str, list[str]]:
    """The names of the layers, in order, by the weight that they read."""
    fixed = layer.constants(model.program)
    names: dict[str, list[str]] = {}
    for found in model.found:
        names.setdefault(fixed[found.leaves[0].name], []).append(found.name)
    return names


def _tidy(path: Path, layers: dict[str, list[str]]) -> None:
    """Give nodes the names of their layers, and take out traces of the code that made them, with paths in it."""
    import onnx

    proto = onnx.load(str(path), load_external_data=False)
    graph = proto.graph
    turned = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "Transpose"}
    for node in graph.node:
        read = [turned.get(name, name) for name in node.input]
        weight = next((name for name in read if layers.get(name)), None)
        if weight is not None and node.op_type != "Transpose":
            node.name = layers[weight].pop(0)
    for owner in (proto, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del owner.metadata_props[:]
        owner.ClearField("doc_string")
    path.write_bytes(proto.SerializeToString(deterministic=True))


if __name__ == "__main__":
    process.serve(work)
