"""Is the plan of mixed.budget better than mixed.greedy's, and than the best of as many random plans?

    python benchmarks/mixed_resnet8.py [--sizes 50000 54000 58000 62000 70000 80000] [--test 5000] [--plot front.svg]

ResNet-8 through ``tf.ptq`` on LiteRT's kernels: 128 training images of CIFAR-10 calibrate and 256 others judge the
trials; the chosen plan of each way and size is written once more and judged on test images that no trial saw. Each way
may try as many plans: what each layer costs alone, which all three are told, and eight more; random search tries eight
plus as many as those of single layers, drawn among plans that fit the size by the sum of the layers' bytes.

Printed are bytes, top-1 and SQNR on the test images, and for the two others the difference of SQNR to mixed.budget's,
with the 95 % interval of 1,000 paired bootstrap draws of the images.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qm.catalog import Catalog
from qm.journal import Journal
from qm.plugin import Artifact, BenchmarkJob, PlanJob, Recipe, Trial
from qm.recipe import Stage
from qm.request import Request
from qm.runner import Run
from qm.workbench import Workbench
from qm_mixed import budget, cost, greedy
from qm_mixed.option import BudgetOptions, GreedyOptions
from qm_tf.session import open_session

TRIALS = 8
DRAWS = 1000
LADDER = "w8a8,w4a8"


@dataclass(frozen=True)
class Judged:
    """A plan's file on the test images; the powers are one a sample."""

    nbytes: int
    right: Any
    error: Any
    signal: Any

    @property
    def sqnr_db(self) -> float:
        return float(10 * np.log10(self.signal.sum() / self.error.sum()))

    def against(self, other: Judged) -> tuple[float, float, float]:
        """How much more SQNR the other has, in dB, with its interval."""
        rng = np.random.default_rng(0)
        draws = rng.integers(len(self.error), size=(DRAWS, len(self.error)))
        gaps = 10 * np.log10(self.error[draws].sum(1) / other.error[draws].sum(1))
        low, high = np.percentile(gaps, [2.5, 97.5])
        return other.sqnr_db - self.sqnr_db, float(low), float(high)


class Study:
    """One bench, whose trials all ways share."""

    def __init__(self, folder: Path, test: int) -> None:
        data = Path(os.environ.get("QM_DATA", "../shared"))
        self.model, self.folder = data / "models/resnet8_cifar10.h5", folder
        self.data = f"{data / 'data/cifar10.npz'}:x_train"
        with np.load(data / "data/cifar10.npz") as arrays:
            self.images, self.labels = arrays["x_test"][:test].astype(np.float32), arrays["y_test"][:test]
        self.recipe = Recipe(scheme="w8a8", samples=128)
        run = self._run(self.recipe, "unused.tflite")
        self.bench = Workbench(
            catalog=Catalog(),
            route=run.route,
            model=run.model,
            calibration=run.split.calibration,
            judging=run.split.trial,
            journal=Journal(None, {}),
        )
        self.name = run.model.inputs()[0].name
        self.reference = np.concatenate([next(iter(run.model.run({self.name: x[None]}).values())) for x in self.images])
        self.costs = cost.measure(PlanJob(recipe=self.recipe, bench=self.bench), LADDER)
        self.singles = sum(len(options) - 1 for options in self.costs.by_group)

    def _run(self, recipe: Recipe, name: str) -> Run:
        staged = recipe.model_copy(update={"stages": (Stage(plugin="mixed.greedy"), Stage(plugin="tf.ptq"))})
        return Run(Request(model=self.model, recipe=staged, data=self.data, to=self.folder / name))

    def budget(self, size: int) -> Recipe:
        options = BudgetOptions(max_bytes=size, trials=TRIALS, ladder=LADDER)
        return budget.plan(PlanJob(recipe=self.recipe, bench=self.bench, options=options))

    def greedy(self, size: int) -> Recipe:
        options = GreedyOptions(max_bytes=size, ladder=LADDER)
        return greedy.plan(PlanJob(recipe=self.recipe, bench=self.bench, options=options))

    def random(self, size: int) -> Recipe:
        rng = np.random.default_rng(size)
        tried: list[Trial] = []
        draws = 0
        while len(tried) < self.singles + TRIALS and draws < 100_000:
            draws += 1
            narrow = rng.random() if draws > 1 else 1.0
            choice = tuple(sorted(o, key=lambda s: s.weight_bits)[rng.random() >= narrow] for o in self.costs.by_group)
            if self.costs.nbytes(choice) <= size:
                tried.append(self.bench.run(self.costs.recipe_of(choice)))
        return max((t for t in tried if t.nbytes <= size), key=lambda t: t.sqnr_db).recipe

    def judged(self, recipe: Recipe, name: str) -> Judged:
        """The plan written by the ordinary way, and its file on the test images."""
        recipe = recipe.model_copy(update={"stages": (Stage(plugin="tf.ptq"),)})
        to = self.folder / f"{name}.tflite"
        report = Run(Request(model=self.model, recipe=recipe, data=self.data, to=to)).quantize()
        session = open_session(BenchmarkJob(artifact=Artifact(path=to, format="tflite"), threads=1))
        made = np.concatenate([next(iter(session.run({self.name: x[None]}).values())) for x in self.images])
        error = np.square(made - self.reference, dtype=np.float64).sum(1)
        signal = np.square(self.reference, dtype=np.float64).sum(1)
        return Judged(report.size.after, made.argmax(1) == self.labels, error, signal)


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder), options.test)
        right = float((study.reference.argmax(1) == study.labels).mean())
        print(f"float: top-1 {right:.2%} of {options.test} images; {study.singles} trials of single layers")
        rows = []
        for size in options.sizes:
            ways = {"budget": study.budget, "greedy": study.greedy, "random": study.random}
            made = {name: study.judged(way(size), f"{name}{size}") for name, way in ways.items()}
            for name, judged in made.items():
                line = (
                    f"{size:7,}  {name:7} {judged.nbytes:7,} bytes  {judged.right.mean():.2%}  {judged.sqnr_db:5.2f} dB"
                )
                if name != "budget":
                    gap, low, high = judged.against(made["budget"])
                    line += f"   budget has {gap:+.2f} dB ({low:+.2f} to {high:+.2f})"
                print(line, flush=True)
                rows.append((name, judged))
        if options.plot:
            _draw(rows, options.plot)


def _draw(rows: list[tuple[str, Judged]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, marker in (("budget", "o-"), ("greedy", "s--"), ("random", "^:")):
        points = [(j.nbytes / 1000, j.sqnr_db) for n, j in rows if n == name]
        axes.plot(*zip(*points, strict=True), marker, label=f"mixed.{name}" if name != "random" else "random search")
    axes.set_xlabel("file, kB")
    axes.set_ylabel("SQNR to float on the test images, dB")
    axes.legend()
    figure.savefig(path)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    sizes = [50_000, 54_000, 58_000, 62_000, 70_000, 80_000]
    parser.add_argument("--sizes", type=int, nargs="+", default=sizes, help="bytes that the file may take")
    parser.add_argument("--test", type=int, default=5000, help="test images that judge")
    parser.add_argument("--plot", type=Path, help="where to draw the fronts")
    return parser.parse_args()


if __name__ == "__main__":
    main()
