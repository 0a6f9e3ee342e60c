"""AIMET: its simulation with default ranges, after equalization and AdaRound where asked, written as QDQ."""

from pathlib import Path

import job
import onnx
from aimet_onnx import QuantizationSimModel, apply_adaround
from aimet_onnx.common import quantsim_config
from aimet_onnx.cross_layer_equalization import equalize_model


def main() -> None:
    told = job.Job.read()
    model = onnx.load(told.model)
    batches = list(told.batches())
    if told.options.get("equalize"):
        equalize_model(model)
    config = told.options.get("config")
    # Its own configurations lie in its package.
    file = config and str(Path(quantsim_config.__file__).parent / config)
    sim = QuantizationSimModel(model, config_file=file)
    if iterations := told.options.get("adaround"):
        apply_adaround(sim, batches, num_iterations=iterations)
    sim.compute_encodings(batches)
    # Weights as integers: the default keeps them as floats, in a file that is no smaller than before.
    onnx.save(sim.to_onnx_qdq(export_int32_bias=True, prequantize_constants=True), told.to)


if __name__ == "__main__":
    main()
