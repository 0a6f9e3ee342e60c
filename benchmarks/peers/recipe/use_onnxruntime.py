"""ONNX Runtime's own static quantization; with ``prepare`` after its preprocessing, as its manual advises."""

import tempfile
from pathlib import Path

import job
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class Reader(job.Reader, CalibrationDataReader):
    pass


def main() -> None:
    told = job.Job.read()
    options = dict(told.options)
    for name in ("activation_type", "weight_type"):
        if name in options:
            options[name] = QuantType[options[name]]
    with tempfile.TemporaryDirectory() as folder:
        model = told.model
        if options.pop("prepare", False):
            model = Path(folder) / "prepared.onnx"
            # Symbolic shapes need another package, and fixed shapes do not need them.
            quant_pre_process(str(told.model), str(model), skip_symbolic_shape=True)
        quantize_static(str(model), str(told.to), Reader(told), **options)


if __name__ == "__main__":
    main()
