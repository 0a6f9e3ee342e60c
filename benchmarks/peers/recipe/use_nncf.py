"""NNCF's post-training quantization of ONNX models."""

import job
import nncf
import onnx


def main() -> None:
    told = job.Job.read()
    options = dict(told.options)
    if "preset" in options:
        options["preset"] = nncf.QuantizationPreset(options["preset"])
    if "model_type" in options:
        options["model_type"] = nncf.ModelType(options["model_type"])
    model = onnx.load(told.model)
    data = nncf.Dataset(list(told.batches()))
    onnx.save(nncf.quantize(model, data, subset_size=len(told.samples), **options), told.to)


if __name__ == "__main__":
    main()
