"""onnx-neural-compressor's static quantization, with ``smooth`` its SmoothQuant."""

import tempfile
from pathlib import Path

import job
import onnx
from onnx_neural_compressor import data_reader
from onnx_neural_compressor.quantization import QuantFormat, config, quantize


class Reader(job.Reader, data_reader.CalibrationDataReader):
    pass


def main() -> None:
    told = job.Job.read()
    options = dict(told.options)
    if "quant_format" in options:
        options["quant_format"] = QuantFormat[options["quant_format"]]
    alpha = options.pop("smooth", None)
    if alpha is None:
        chosen = config.StaticQuantConfig(calibration_data_reader=Reader(told), **options)
    else:
        chosen = config.SmoothQuantConfig(alpha=alpha, calibration_data_reader=Reader(told), **options)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made.onnx"
        quantize(str(told.model), str(made), chosen)
        onnx.save(onnx.load(made), told.to)  # It leaves some weights in a file beside the model.


if __name__ == "__main__":
    main()
