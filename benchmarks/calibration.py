"""What calibration costs: peak memory with 32 and 512 samples, and CPU time against ONNX Runtime's own min-max and
against plain inference over the same samples.

    python benchmarks/calibration.py

Each figure comes from a process of its own that does nothing but calibrate; the samples are read from a file one by
one. Peak memory is the resident size at its highest. CPU time is that of the calibration alone, with the making of its
sessions, at 32 samples, the fastest of three; against plain inference at 512 samples too, once each, in turns.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

METHODS = ("minmax", "percentile", "mse", "entropy")
FEW, MANY = 32, 512


class Stored:
    """Samples ``(value - mean) / scale`` from a file of uint8, read one by one, and again where there are too few."""

    labels = None

    def __init__(self, path: Path, count: int) -> None:
        self.path, self.count = path, count
        facts = json.loads(path.with_suffix(".json").read_text())
        self.name, self.shape, self.mean, self.scale = facts["name"], facts["shape"], facts["mean"], facts["scale"]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        size = int(np.prod(self.shape))
        stored = self.path.stat().st_size // size
        with self.path.open("rb") as f:
            for i in range(self.count):
                f.seek(i % stored * size)
                pixels = np.frombuffer(f.read(size), np.uint8).astype(np.float32)
                yield {self.name: ((pixels - self.mean) / self.scale).reshape(self.shape)}


def store(path: Path, samples: Iterator[np.ndarray], **facts: Any) -> None:
    with path.open("wb") as f:
        for sample in samples:
            f.write(np.ascontiguousarray(sample, np.uint8).tobytes())
    path.with_suffix(".json").write_text(json.dumps(facts))


def ours(model: Path, data: Stored, method: str) -> float:
    """CPU seconds of this project's calibration, ranges included."""
    from qm.numerics import choose_range
    from qm.plugin import LoadJob, Plan, QuantizeJob, Scheme, Silent
    from qm_onnx import calibrate, chain, ptq
    from qm_onnx.graph import Scope
    from qm_onnx.load import load
    from qm_onnx.prepare import prepare

    loaded = load(LoadJob(path=model))
    plan = Plan({layer.name: Scheme.parse("w8a8") for layer in loaded.layers()})
    start = time.process_time()
    prepared = prepare(QuantizeJob(model=loaded, plan=plan))
    scope = Scope(prepared.proto.graph)
    tensors = ptq.observed(scope, prepared.sites, chain.around(scope, prepared.sites, None))
    streams = calibrate.observe(loaded, tensors, data, method=method, counted=calibrate.PICTURED, progress=Silent())
    for stream in streams.values():
        choose_range(stream, method)
    return time.process_time() - start


def theirs(model: Path, data: Stored) -> float:
    """CPU seconds of ONNX Runtime's min-max calibration."""
    import onnxruntime as ort
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.samples = iter(data)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.samples, None)

    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        augmented = Path(folder) / "augmented.onnx"
        calibrator = create_calibrator(
            model, None, augmented_model_path=str(augmented), calibrate_method=CalibrationMethod.MinMax
        )
        settings = ort.SessionOptions()
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        settings.intra_op_num_threads = 1
        settings.log_severity_level = 3
        calibrator.infer_session = ort.InferenceSession(str(augmented), settings, ["CPUExecutionProvider"])
        calibrator.collect_data(Reader())
        calibrator.compute_data()
    return time.process_time() - start


def plain(model: Path, data: Stored) -> float:
    """CPU seconds of running the float model over the samples, its session opened as by default."""
    import onnxruntime as ort

    start = time.process_time()
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    session = ort.InferenceSession(str(model), settings, ["CPUExecutionProvider"])
    for sample in data:
        session.run(None, sample)
    return time.process_time() - start


def measure(model: Path, samples: Path, method: str, count: int) -> tuple[float, float]:
    """CPU seconds and peak megabytes of one calibration, in a process of its own."""
    command = [sys.executable, __file__, "--child", str(model), str(samples), method, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak


def child(model: Path, samples: Path, method: str, count: int) -> None:
    data = Stored(samples, count)
    others = {"onnxruntime": theirs, "plain": plain}
    seconds = others[method](model, data) if method in others else ours(model, data, method)
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


def report(name: str, model: Path, samples: Path) -> None:
    base = min(measure(model, samples, "onnxruntime", FEW)[0] for _ in range(3))
    runs = min(measure(model, samples, "plain", FEW)[0] for _ in range(3))
    print(f"{name}: for {FEW} samples ONNX Runtime's min-max takes {base:.2f} s of CPU, running the model {runs:.2f} s")
    for method in METHODS:
        tries = [measure(model, samples, method, FEW) for _ in range(3)]
        seconds, few = min(t[0] for t in tries), float(np.median([t[1] for t in tries]))
        longer, many = measure(model, samples, method, MANY)
        more = longer / measure(model, samples, "plain", MANY)[0]
        print(
            f"  {method:<10} CPU {seconds:6.2f} s, {seconds / base:.2f} and {seconds / runs:.2f} times "
            f"({more:.2f} times with {MANY}); "
            f"peak {few:4.0f} MB for {FEW}, {many:4.0f} MB for {MANY} samples: {many - few:+.0f} MB"
        )


def digits(folder: Path) -> tuple[Path, Path]:
    """The demonstration's model and samples."""
    demo = resources.files("qm").joinpath("demo")
    model, samples = folder / "digits.onnx", folder / "digits.raw"
    model.write_bytes(demo.joinpath("digits.onnx").read_bytes())
    with resources.as_file(demo.joinpath("digits.npz")) as file, np.load(file) as arrays:
        pixels = arrays["x"]
    store(samples, iter(pixels), name="image", shape=[1, *pixels.shape[1:]], mean=0.0, scale=1.0)
    return model, samples


def main() -> int:
    parser = argparse.ArgumentParser(description="Memory and CPU time of calibration, against ONNX Runtime's own.")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        model, samples, method, count = args.child
        child(Path(model), Path(samples), method, int(count))
        return 0
    from efficientnet import Images
    from sound import shared, sound_copy

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report("digits", *digits(folder))
        data = shared()
        if data is None:
            print("EfficientNet-Lite0 skipped: there is no shared data; name its folder in QM_DATA")
            return 0
        model = sound_copy(data / "models" / "efficientnet_lite0.onnx", folder / "efficientnet.onnx")
        images = Images(sorted((data / "data" / "imagenet224").glob("*.jpg")))
        pixels = (np.rint(b["image"] * 128 + 127) for b in images)
        store(folder / "images.raw", pixels, name="image", shape=[1, 3, 224, 224], mean=127.0, scale=128.0)
        report("EfficientNet-Lite0", model, folder / "images.raw")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
