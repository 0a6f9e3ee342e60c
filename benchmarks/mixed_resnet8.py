"""Is the plan of mixed.budget better than mixed.greedy's, and than the best of as many random plans?

    python benchmarks/mixed_resnet8.py [--sizes 50000 54000 58000 62000 70000 80000] [--test 5000] [--seeds 5]
        [--ladder w8a8,w4a8] [--all] [--plot FILE]

ResNet-8 through ``tf.ptq`` on LiteRT's kernels: 128 training images of CIFAR-10 calibrate and 1,024 others judge the
trials; the chosen plan of each way and size is written once more and judged on test images that no trial saw. Random
search tries as many plans as mixed.budget in all, those of single layers included, drawn among plans that fit the size
by the sum of the layers' bytes; it is run from several seeds.

Printed are bytes, top-1 and SQNR on the test images (of random search the mean over the seeds), and for the two others
how much more SQNR mixed.budget has, with the 95 % interval of 1,000 paired bootstrap draws of the images; those of
random search draw the seeds too.

``--all`` tries every plan of the ladder, 1,024 for two schemes, and prints the best of those that fit by the samples of
the trials too, which no way that goes by these samples can do better than.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
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


def more(best: Judged, others: Sequence[Judged]) -> tuple[float, float, float]:
    """How much more SQNR the first has than the others on average, in dB, with its interval."""
    rng = np.random.default_rng(0)
    gaps = []
    for _ in range(DRAWS):
        images = rng.integers(len(best.error), size=len(best.error))
        drawn = rng.integers(len(others), size=len(others))
        errors = np.array([others[i].error[images].sum() for i in drawn])
        gaps.append(10 * np.mean(np.log10(errors / best.error[images].sum())))
    low, high = np.percentile(gaps, [2.5, 97.5])
    return best.sqnr_db - float(np.mean([o.sqnr_db for o in others])), float(low), float(high)


class Study:
    """One bench, whose trials all ways share."""

    def __init__(self, folder: Path, test: int, ladder: str) -> None:
        self.ladder = ladder
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
        self.costs = cost.measure(PlanJob(recipe=self.recipe, bench=self.bench), ladder)
        self.singles = sum(len(options) - 1 for options in self.costs.by_group)
        self.files: dict[str, Judged] = {}

    def _run(self, recipe: Recipe, name: str) -> Run:
        staged = recipe.model_copy(update={"stages": (Stage(plugin="mixed.greedy"), Stage(plugin="tf.ptq"))})
        return Run(Request(model=self.model, recipe=staged, data=self.data, to=self.folder / name))

    def budget(self, size: int) -> Recipe:
        options = BudgetOptions(max_bytes=size, trials=TRIALS, ladder=self.ladder)
        return budget.plan(PlanJob(recipe=self.recipe, bench=self.bench, options=options))

    def greedy(self, size: int) -> Recipe:
        options = GreedyOptions(max_bytes=size, ladder=self.ladder)
        return greedy.plan(PlanJob(recipe=self.recipe, bench=self.bench, options=options))

    def random(self, size: int, seed: int) -> Recipe:
        rng = np.random.default_rng([size, seed])
        tried: dict[Any, Trial] = {}
        draws = 0
        while len(tried) < 1 + self.singles + TRIALS and draws < 100_000:
            draws += 1
            narrow = rng.random() if draws > 1 else 1.0
            choice = tuple(sorted(o, key=lambda s: s.weight_bits)[rng.random() >= narrow] for o in self.costs.by_group)
            if choice not in tried and self.costs.nbytes(choice) <= size:
                tried[choice] = self.bench.run(self.costs.recipe_of(choice))
        return max((t for t in tried.values() if t.nbytes <= size), key=lambda t: t.sqnr_db).recipe

    @cached_property
    def every(self) -> list[Trial]:
        """Every plan there is, on the samples of the trials."""
        made = []
        for choice in itertools.product(*self.costs.by_group):
            if any(not s.is_float for s in choice):
                made.append(self.bench.run(self.costs.recipe_of(choice)))
        return made

    def best(self, size: int) -> Recipe:
        return max((t for t in self.every if t.nbytes <= size), key=lambda t: (t.sqnr_db, -t.nbytes)).recipe

    def judged(self, recipe: Recipe) -> Judged:
        """The plan written by the ordinary way, and its file on the test images; each plan once."""
        plan = str(sorted((name, str(scheme)) for name, scheme in self.bench.plan(recipe).layers.items()))
        if plan not in self.files:
            self.files[plan] = self._judged(recipe, f"plan{len(self.files)}")
        return self.files[plan]

    def _judged(self, recipe: Recipe, name: str) -> Judged:
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
        study = Study(Path(folder), options.test, options.ladder)
        right = float((study.reference.argmax(1) == study.labels).mean())
        print(f"float: top-1 {right:.2%} of {options.test} images; {study.singles} trials of single layers")
        rows = []
        for size in options.sizes:
            made = {
                "budget": [study.judged(study.budget(size))],
                "greedy": [study.judged(study.greedy(size))],
                "random": [study.judged(study.random(size, seed)) for seed in range(options.seeds)],
            }
            if options.all:
                made["best"] = [study.judged(study.best(size))]
            for name, files in made.items():
                print(_line(size, name, files, made["budget"][0]), flush=True)
                rows += [(name, size, judged) for judged in files]
        if options.plot:
            _draw(rows, options.plot)


def _line(size: int, name: str, files: Sequence[Judged], best: Judged) -> str:
    nbytes, right, sqnr_db = (
        float(np.mean(row)) for row in zip(*((f.nbytes, f.right.mean(), f.sqnr_db) for f in files), strict=True)
    )
    line = f"{size:7,}  {name:7} {nbytes:9,.0f} bytes  {right:.2%}  {sqnr_db:5.2f} dB"
    if name == "budget":
        return line
    gap, low, high = more(best, files)
    return f"{line}   budget has {gap:+.2f} dB ({low:+.2f} to {high:+.2f})"


def _draw(rows: list[tuple[str, int, Judged]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, marker in (("budget", "o-"), ("greedy", "s--"), ("random", "^")):
        points = [(size / 1000, j.sqnr_db) for n, size, j in rows if n == name]
        axes.plot(*zip(*points, strict=True), marker, label=f"mixed.{name}" if name != "random" else "random search")
    if best := [(size / 1000, j.sqnr_db) for n, size, j in rows if n == "best"]:
        axes.plot(*zip(*best, strict=True), "k+", markersize=12, label="best of all plans, by the trials")
    axes.set_xlabel("kB that the file may take")
    axes.set_ylabel("SQNR to float on the test images, dB")
    axes.legend()
    figure.savefig(path)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    sizes = [50_000, 52_000, 54_000, 58_000, 62_000, 64_000, 70_000, 74_000, 80_000]
    parser.add_argument("--sizes", type=int, nargs="+", default=sizes, help="bytes that the file may take")
    parser.add_argument("--test", type=int, default=5000, help="test images that judge")
    parser.add_argument("--seeds", type=int, default=5, help="random searches at each size")
    parser.add_argument("--ladder", default="w8a8,w4a8", help="the schemes that layers may have")
    parser.add_argument("--all", action="store_true", help="try every plan of the ladder too")
    parser.add_argument("--plot", type=Path, help="where to draw the fronts")
    return parser.parse_args()


if __name__ == "__main__":
    main()
