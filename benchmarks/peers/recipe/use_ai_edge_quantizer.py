"""ai-edge-quantizer on a float .tflite file: a recipe it ships, inputs and outputs float.

``narrow`` brings weights to 4 bits where there are kernels, their ranges by OCTAV.
"""

from pathlib import Path

import job
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import qtyping, quantizer, recipe

Operation = qtyping.TFLOperationName
NARROWED = (Operation.CONV_2D, Operation.FULLY_CONNECTED)
"""What has kernels for 4-bit weights."""


def main() -> None:
    told = job.Job.read()
    made = quantizer.Quantizer(str(told.model))
    made.load_quantization_recipe(getattr(recipe, told.options["base"])())
    for operation in NARROWED if told.options.get("narrow") else ():
        if made.need_calibration:
            made.add_static_config(".*", operation, 8, 4, algorithm_key=quantizer.AlgorithmName.OCTAV)
        else:
            made.add_dynamic_config(".*", operation, 4, algorithm_key=quantizer.AlgorithmName.OCTAV)
    for operation in (Operation.INPUT, Operation.OUTPUT):
        made.update_quantization_recipe(".*", operation, algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE)
    (signature, parts), *_ = Interpreter(str(told.model)).get_signature_list().items()
    (name,) = parts["inputs"]
    data = {signature: [{name: x} for batch in told.batches() for x in batch.values()]}
    seen = made.calibrate(data) if made.need_calibration else None
    Path(told.to).write_bytes(bytes(made.quantize(seen).quantized_model))


if __name__ == "__main__":
    main()
