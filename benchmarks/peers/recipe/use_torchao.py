"""torchao's quantization of an exported program, lowered to a .pte file with XNNPACK, as ExecuTorch's manual has it.

``scheme`` is float, static or dynamic; the quantizer of XNNPACK chooses what to quantize.
"""

from collections.abc import Iterator

import job
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from executorch.exir import to_edge_transform_and_lower
from torch.export import ExportedProgram
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e


def inputs(told: job.Job) -> Iterator[torch.Tensor]:
    return (torch.tensor(sample) for batch in told.batches() for sample in batch.values())


def quantized(told: job.Job, program: ExportedProgram) -> ExportedProgram:
    config = get_symmetric_quantization_config(
        is_per_channel=told.options.get("per_channel", False), is_dynamic=told.options["scheme"] == "dynamic"
    )
    prepared = prepare_pt2e(program.module(), XNNPACKQuantizer().set_global(config))
    for sample in inputs(told):
        prepared(sample)
    return torch.export.export(convert_pt2e(prepared), (next(inputs(told)),))


def main() -> None:
    told = job.Job.read()
    torch.set_num_threads(1)
    program = torch.export.load(told.model)
    with torch.no_grad():
        if told.options["scheme"] != "float":
            program = quantized(told, program)
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    told.to.write_bytes(edge.to_executorch().buffer)


if __name__ == "__main__":
    main()
