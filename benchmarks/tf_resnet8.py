"""What tf.ptq makes of three models of MLPerf Tiny: bytes, accuracy, and SQNR to the float model, scheme by scheme.

    python benchmarks/tf_resnet8.py [--only resnet8 kws ad01] [--samples 512]

ResNet-8 is judged on the first 5,000 test images of CIFAR-10 and calibrated on training images, keyword spotting on 400
of its test samples and calibrated on 200 others. For the auto-encoder there are no published samples here: it is fed
made-up log-mel frames, and only the SQNR of its reconstruction says anything. Schemes with 16-bit activations run on
reference kernels and are judged on 200 samples.

The models and data are those of tests/conftest.py: the folder is named in QM_DATA. Loading them takes TensorFlow.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qm.numerics import sqnr_db, top1_agreement
from qm.plugin import Array, LoadJob, Plan, QmError, QuantizeJob, Scheme
from qm_tf.convert import load_keras, load_saved_model
from qm_tf.model import LiteModel
from qm_tf.option import PtqOptions
from qm_tf.ptq import quantize

FEW = 200
RUNS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("w8a8", {}),
    ("w8a8", {"ranges": "percentile"}),
    ("w8a8", {"ranges": "mse"}),
    ("w8a8", {"ranges": "entropy"}),
    ("w8a8", {"bias_correction": False}),
    ("w8a8", {"rounding": "gptq"}),
    ("w8a8", {"io": "int8"}),
    ("w8a8", {"engine": "converter"}),
    ("w8d8", {}),
    ("w8d8", {"rounding": "gptq"}),
    ("w8a16", {}),
    ("f16", {}),
    ("w4d8", {"rounding": "nearest", "weights": "minmax", "bias_correction": False}),
    ("w4d8", {"rounding": "nearest", "weights": "octav", "bias_correction": False}),
    ("w4d8", {"rounding": "nearest", "weights": "mse", "bias_correction": False}),
    ("w4d8", {"rounding": "nearest", "weights": "mse"}),
    ("w4d8", {}),
    ("w4a8", {"rounding": "nearest", "bias_correction": False}),
    ("w4a8", {"weights": "mse"}),
    ("w4a8", {"rounding": "adaround"}),
    ("w4a8", {}),
)


class Samples:
    """Rows of an array as samples of the model's only input."""

    labels = None

    def __init__(self, name: str, rows: Array) -> None:
        self.name, self.rows = name, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Any:
        return ({self.name: row[None].astype(np.float32)} for row in self.rows)


def answers(model: LiteModel, rows: Array) -> Array:
    samples = Samples(model.inputs()[0].name, rows)
    return np.concatenate([next(iter(model.run(batch).values())) for batch in samples])


def table(title: str, model: LiteModel, calibration: Array, test: Array, labels: Array | None) -> None:
    reference = answers(model, test)
    print(f"\n{title}: float {model.nbytes():,} bytes{accuracy(reference, labels)}, {len(test)} samples judge")
    for scheme, options in RUNS:
        plan = Plan({layer.name: Scheme.parse(scheme) for layer in model.layers()})
        data = Samples(model.inputs()[0].name, calibration)
        job = QuantizeJob(model=model, plan=plan, data=data, options=PtqOptions(**options))
        begun = time.perf_counter()
        said = " ".join(f"{k}={v}" for k, v in options.items())
        try:
            made = quantize(job)
        except QmError as e:
            print(f"  {scheme:<6} {said:<28} {e.message}")
            continue
        seconds = time.perf_counter() - begun
        count = min(FEW, len(test)) if scheme == "w8a16" else len(test)
        got, wanted = answers(made, test[:count]), reference[:count]
        agreement = "" if labels is None else f"  agrees {100 * top1_agreement(wanted, got):6.2f} %"
        print(
            f"  {scheme:<6} {said:<28} {made.nbytes():>9,} bytes  {sqnr_db(wanted, got):6.2f} dB{agreement}"
            f"{accuracy(got, None if labels is None else labels[:count])}  {seconds:5.1f} s"
            + ("" if count == len(test) else f"  ({count} samples)"),
            flush=True,
        )


def accuracy(got: Array, labels: Array | None) -> str:
    return "" if labels is None else f"  top-1 {100 * float((got.argmax(axis=1) == labels).mean()):6.2f} %"


def frames(count: int) -> Array:
    """Five frames of 128 bands in dB, falling with the frequency, as the sound of a machine has them."""
    rng = np.random.default_rng(0)
    bands = np.arange(128)
    steady = -30 - 20 * bands / 127 + 5 * np.sin(bands / 9)
    colour = 0.6 * rng.normal(0, 1, (count, 1, 128)).cumsum(axis=2)
    made: Array = (steady + colour + rng.normal(0, 3, (count, 5, 128))).reshape(count, 640)
    return made.astype(np.float32)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="tf.ptq on three models of MLPerf Tiny.")
    parser.add_argument("--only", nargs="*", choices=("resnet8", "kws", "ad01"), default=["resnet8", "kws", "ad01"])
    parser.add_argument("--samples", type=int, default=512, help="how many samples calibrate (512)")
    parser.add_argument("--judges", type=int, default=5000, help="how many samples judge at most (5000)")
    args = parser.parse_args(arguments)
    shared = Path(os.environ.get("QM_DATA") or Path(__file__).parents[2] / "shared")
    if not (shared / "data").is_dir():
        print("there is no shared data; name its folder in QM_DATA")
        return 0
    if "resnet8" in args.only:
        with np.load(shared / "data" / "cifar10.npz") as arrays:
            calibration, test = arrays["x_train"][: args.samples], arrays["x_test"][: args.judges]
            labels = arrays["y_test"][: args.judges]
        model = load_keras(LoadJob(path=shared / "models" / "resnet8_cifar10.h5"))
        table("ResNet-8", model, calibration, test, labels)
    if "kws" in args.only:
        with np.load(shared / "data" / "kws.npz") as arrays:
            calibration, test = arrays["x_calib"][: args.samples], arrays["x_test"][: args.judges]
            labels = arrays["y_test"][: args.judges]
        model = load_saved_model(LoadJob(path=shared / "models" / "kws_saved_model"))
        table("Keyword spotting", model, calibration, test, labels)
    if "ad01" in args.only:
        model = load_keras(LoadJob(path=shared / "models" / "ad01.h5"))
        made = frames(args.samples + 256)
        table("Auto-encoder ad01", model, made[:-256], made[-256:], None)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
