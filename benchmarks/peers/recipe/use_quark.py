"""AMD Quark's quantization of ONNX models: ``config`` is one of those it names, ``algorithms`` are added to it."""

import copy

import job
import quark.onnx as quark
from onnxruntime.quantization import CalibrationDataReader


class Reader(job.Reader, CalibrationDataReader):
    pass


def main() -> None:
    told = job.Job.read()
    config = copy.deepcopy(getattr(quark, told.options["config"]))
    if told.options.get("per_channel"):
        layers = config.global_config
        layers.weight.set_quant_granularity(quark.QuantGranularity.Channel)
        layers.weight.set_calibration_method(quark.CalibMethod.MinMax)
    added = [getattr(quark, name)(**values) for name, values in told.options.get("algorithms", {}).items()]
    config.algo_config = [*(config.algo_config or []), *added]
    quark.ModelQuantizer(config).quantize_model(str(told.model), str(told.to), Reader(told))


if __name__ == "__main__":
    main()
