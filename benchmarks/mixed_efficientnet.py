"""EfficientNet-Lite0 at most a fifth as large: mixed.budget over onnx.ptq, against float and one scheme for all layers.

    python benchmarks/mixed_efficientnet.py [--ratio 0.2] [--ladder w8a8,w4a8] [--trials 8]

64 of the shared images are all that the planner and the method see: half calibrate while plans are tried, a quarter
judge the trials, and all but one calibrate the files that are judged. The other 436 judge these: size against float,
top-1, and SQNR of the logits, on one thread of ONNX Runtime with this CPU's kernels. What top-1 loses against float has
the 95 % interval of 1,000 paired bootstrap draws of the images.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from efficientnet import Images, halves
from interleave import session
from sound import shared, sound_copy

import qm
from qm.plugin import Recipe
from qm.recipe import Stage

IMAGES = "path = {path!r}\nmean = 127\nstd = 128\nlabels = {{ from = 'prefix', separator = '_' }}\n"
DRAWS = 1000


def staged(images: Images, folder: Path) -> Path:
    """A description of a folder with these images alone."""
    place = folder / "images"
    place.mkdir()
    for file in images.files:
        (place / file.name).symlink_to(file.resolve())
    told = folder / "images.toml"
    told.write_text(IMAGES.format(path=str(place)))
    return told


def logits(path: Path, images: Images) -> Any:
    opened = session(path)
    return np.concatenate([opened.run(None, dict(batch))[0] for batch in images])


def lost(before: Any, after: Any) -> tuple[float, float, float]:
    """Points of top-1 lost, with the interval; both arrays say which answers are right."""
    rng = np.random.default_rng(0)
    gaps = 100 * (before.astype(float) - after)
    drawn = [gaps[rng.integers(len(gaps), size=len(gaps))].mean() for _ in range(DRAWS)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(gaps.mean()), float(low), float(high)


class Study:
    """The float model, and files made of it."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.folder = folder
        self.model = sound_copy(data / "models" / "efficientnet_lite0.onnx", folder / "float.onnx")
        calibration, self.test = halves(data)
        self.seen, self.images = len(calibration), staged(calibration, folder)
        self.reference = logits(self.model, self.test)
        self.right = self.reference.argmax(1) == self.test.labels
        self.nbytes = self.model.stat().st_size

    def planned(self, ratio: float, ladder: str, trials: int) -> Recipe:
        told = {"max_ratio": ratio, "ladder": ladder, "trials": trials}
        methods = [("mixed.budget", told), "onnx.ptq"]
        return qm.plan(self.model, methods, data=self.images, samples=self.seen // 2)

    def line(self, name: str, recipe: Recipe) -> str:
        """The recipe's file, made and judged."""
        to = self.folder / "made.onnx"
        start = time.perf_counter()
        qm.quantize(self.model, recipe=recipe, data=self.images, samples=self.seen - 1, to=to, force=True)
        took, made, nbytes = time.perf_counter() - start, logits(to, self.test), to.stat().st_size
        gap, low, high = lost(self.right, made.argmax(1) == self.test.labels)
        error, signal = np.square(made - self.reference).sum(), np.square(self.reference).sum()
        return (
            f"{name:14} {nbytes:10,} bytes, {nbytes / self.nbytes:.3f} of float  top-1 "
            f"{(made.argmax(1) == self.test.labels).mean():.1%}, loses {gap:+.1f} ({low:+.1f} to {high:+.1f})  "
            f"{10 * np.log10(signal / error):4.1f} dB  made in {took:.0f} s"
        )


def main() -> int:
    options = _options()
    data = shared()
    if data is None:
        print("skipped: there is no shared data; name its folder in QM_DATA")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        study = Study(data, Path(folder))
        print(f"float: {study.nbytes:,} bytes, top-1 {study.right.mean():.1%} of {len(study.test)} images", flush=True)
        for scheme in ("w8a8", "w4a8"):
            recipe = Recipe(scheme=scheme, stages=(Stage(plugin="onnx.ptq"),))
            print(study.line(scheme, recipe), flush=True)
        start = time.perf_counter()
        recipe = study.planned(options.ratio, options.ladder, options.trials)
        took = time.perf_counter() - start
        print(study.line("mixed.budget", recipe), f"after {took:.0f} s of planning")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--ratio", type=float, default=0.2, help="share of the float size that the file may take")
    parser.add_argument("--ladder", default="w8a8,w4a8", help="the schemes that layers may have")
    parser.add_argument("--trials", type=int, default=8, help="plans that are tried")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
