"""Olive's pass for static quantization of ONNX models, without its telemetry."""

import os
import shutil
import tempfile

os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"

import job
import torch
from olive.data.config import DataComponentConfig, DataConfig
from olive.data.registry import Registry
from olive.model import ONNXModelHandler
from olive.passes.olive_pass import create_pass_from_dict
from olive.passes.onnx.quantization import OnnxStaticQuantization


class Samples(torch.utils.data.Dataset):
    """Each sample with a label that nobody reads."""

    def __init__(self, told: job.Job) -> None:
        self.told = told

    def __len__(self) -> int:
        return len(self.told.samples)

    def __getitem__(self, index: int) -> tuple[dict[str, torch.Tensor], int]:
        return {self.told.name: torch.from_numpy(self.told.samples[index])}, 0


def main() -> None:
    told = job.Job.read()
    Registry.register_dataset("league_samples")(lambda **_: Samples(told))
    data = DataConfig(name="league", load_dataset_config=DataComponentConfig(type="league_samples"))
    quantizer = create_pass_from_dict(
        OnnxStaticQuantization, {"data_config": data, **told.options}, disable_search=True
    )
    with tempfile.TemporaryDirectory() as folder:
        made = quantizer.run(ONNXModelHandler(str(told.model)), folder)
        shutil.copyfile(made.model_path, told.to)


if __name__ == "__main__":
    main()
