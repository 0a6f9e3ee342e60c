"""EfficientNet-Lite0 by onnx.ptq on ImageNet images, on the kernels of this CPU and on those of a CPU without VNNI.

    python benchmarks/efficientnet.py [--scheme w4a8]        # --target x86-vnni and x86-avx2, here and on AVX2 kernels
    python benchmarks/efficientnet.py --scheme w4a8 --folds 6

64 of the shared images calibrate, the other 436 judge: top-1 and SQNR of the logits, size, and the speed of one thread.
With --folds it is done with so many sets of 64 images that have none in common, of which the others judge each, for
--target x86-vnni: what top-1 loses on average, and how much of a single figure is chance.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import avx2_runtime
import numpy as np
import onnx
import onnxruntime as ort
from interleave import session, speedups
from PIL import Image
from sound import shared, sound_copy

import qm.target
from qm.numerics import sqnr_db
from qm.plugin import Batch, LoadJob, Notes, Plan, QuantizeJob, Scheme

CALIBRATION = 64


class Images:
    """ImageNet crops as the model takes them: (RGB - 127) / 128, float32 [1, 3, 224, 224]."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self.labels = np.array([int(f.name[:4]) for f in files], np.int64)

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Batch]:
        for f in self.files:
            pixels = np.asarray(Image.open(f).convert("RGB"), np.float32)
            yield {"image": ((pixels - 127) / 128).transpose(2, 0, 1)[None].copy()}


def halves(folder: Path) -> tuple[Images, Images]:
    """The images that calibrate, spread evenly over the classes, and the others."""
    files = sorted((folder / "data" / "imagenet224").glob("*.jpg"))
    chosen = {files[i * len(files) // CALIBRATION] for i in range(CALIBRATION)}
    return Images([f for f in files if f in chosen]), Images([f for f in files if f not in chosen])


def quantized(
    path: Path, data: Images, target: str, scheme: str, options: Sequence[str]
) -> tuple[onnx.ModelProto, Notes]:
    from qm_onnx.load import load
    from qm_onnx.option import PtqOptions
    from qm_onnx.ptq import quantize

    model = load(LoadJob(path=path))
    job = QuantizeJob(
        model=model,
        plan=Plan({layer.name: Scheme.parse(scheme) for layer in model.layers()}),
        data=data,
        target=qm.target.find(target),
        options=PtqOptions.model_validate(dict(o.split("=", 1) for o in options)),
        notes=Notes(),
    )
    return quantize(job).native, job.notes


def judge(files: Sequence[Path], data: Images, rounds: int) -> list[str]:
    """A line for each file, compared with the first."""
    sessions = [session(f) for f in files]
    batches = [b for b, _ in zip(data, range(8), strict=False)]
    speeds = speedups(sessions, batches, rounds=rounds)
    logits = [_logits(f, data) for f in files]
    lines = [f"onnxruntime {ort.__version__}, {len(data)} images, one thread, {rounds} rounds in turns"]
    for file, out, (ratio, low, high) in zip(files, logits, speeds, strict=True):
        top1 = np.mean(out.argmax(1) == data.labels)
        size = file.stat().st_size / files[0].stat().st_size
        sqnr = f"{sqnr_db(logits[0], out):5.1f} dB" if file != files[0] else "        "
        lines.append(
            f"  {file.stem:<10} top-1 {top1:.1%}  {sqnr}  size {size:.4f}  speed {ratio:.2f} ({low:.2f} to {high:.2f})"
        )
    return lines


def folds(path: Path, everything: Images, count: int, scheme: str, options: Sequence[str]) -> Iterator[str]:
    """A line for each set that calibrates, and one for all."""
    order = np.random.default_rng(0).permutation(len(everything))
    wanted = _logits(path, everything)
    right = wanted.argmax(1) == everything.labels
    lost = []
    for chosen in order[: count * CALIBRATION].reshape(count, CALIBRATION):
        data = Images([everything.files[i] for i in np.sort(chosen)])
        proto, _ = quantized(path, data, "x86-vnni", scheme, options)
        made = path.with_name("fold.onnx")
        onnx.save(proto, made)
        rest = np.setdiff1d(order, chosen)
        out = _logits(made, everything)
        lost.append(100 * (right[rest].mean() - (out.argmax(1) == everything.labels)[rest].mean()))
        yield f"  {sqnr_db(wanted[rest], out[rest]):.1f} dB, top-1 loses {lost[-1]:.2f} points"
    yield f"on average {np.mean(lost):.2f} points, standard deviation {np.std(lost, ddof=1):.2f}"


def _logits(path: Path, data: Images) -> np.ndarray:
    opened = session(path)
    return np.concatenate([opened.run(None, dict(b))[0] for b in data])


def on_avx2(files: Sequence[Path], rounds: int) -> list[str]:
    """The same in a child process whose ONNX Runtime has only AVX2 kernels."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            if not avx2_runtime.is_needed(avx2_runtime.cpu_flags()):
                return ["this CPU runs its AVX2 kernels anyway"]
            avx2_runtime.make(Path(folder))
        except avx2_runtime.CannotMake as e:
            return [f"skipped on AVX2 kernels: {e}"]
        command = [sys.executable, __file__, "--rounds", str(rounds), "--judge", *map(str, files)]
        done = subprocess.run(command, env=avx2_runtime.environment(Path(folder)), capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else [done.stderr]


def main() -> int:
    parser = argparse.ArgumentParser(description="EfficientNet-Lite0 by onnx.ptq, compared with float.")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--scheme", default="w8a8")
    parser.add_argument("-o", "--option", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--judge", nargs="+", type=Path, metavar="FILE", help="only judge these files, as JSON lines")
    parser.add_argument("--folds", type=int, default=0, help="how many sets calibrate, one after another")
    args = parser.parse_args()
    data = shared()
    if data is None:
        print("skipped: there is no shared data; name its folder in QM_DATA")
        return 0
    calibration, test = halves(data)
    if args.judge:
        print(json.dumps(judge(args.judge, test, args.rounds)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        files = [sound_copy(data / "models" / "efficientnet_lite0.onnx", Path(folder) / "float.onnx")]
        if args.folds:
            for line in folds(
                files[0], Images(sorted([*calibration.files, *test.files])), args.folds, args.scheme, args.option
            ):
                print(line, flush=True)
            return 0
        for target in ("x86-vnni", "x86-avx2"):
            proto, notes = quantized(files[0], calibration, target, args.scheme, args.option)
            files.append(Path(folder) / f"{target}.onnx")
            onnx.save(proto, files[-1])
            print(f"--target {target}: " + "; ".join(notes))
        print(f"kernels of this CPU ({qm.target.host().summary}):", *judge(files, test, args.rounds), sep="\n")
        print("AVX2 kernels:", *on_avx2(files, args.rounds), sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
