"""What does mixed.sensitivity cost against one calibration pass and one evaluation a layer, and how does it grow?

    python benchmarks/sensitivity_cost.py [--layers 10 28 50] [--samples 64]

EfficientNet-Lite0 through ``onnx.ptq``, each layer tried in float beside int8 for the others (``ladder=float,w8a8``);
of fewer layers, the others stay in float by a rule. Of the shared images, ``--samples`` calibrate, and half of the
rest judge the trials, as ``qm quantize`` divides them. The pass that calibrates is the float model's over those
samples, the ranges of all tensors taken; one evaluation is that of the model that the search begins with, those
layers in int8 and the others in float, on the samples that judge, its opening and the reading of the images included.
All times are processor seconds of this process, on one thread, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time

from sound import shared, sound_copy

from qm.catalog import Catalog
from qm.journal import Journal
from qm.plugin import PlanJob, Recipe, Rule, Silent
from qm.recipe import Stage
from qm.request import Request
from qm.runner import Run
from qm.scheme import FLOAT, Scheme
from qm.trial import build, compared, opened
from qm.workbench import Workbench
from qm_mixed import worst
from qm_mixed.option import SensitivityOptions
from qm_onnx import calibrate
from qm_onnx.layer import find
from qm_onnx.model import OnnxModel

IMAGES = "path = {path!r}\nmean = 127\nstd = 128\nlabels = {{ from = 'prefix', separator = '_' }}\n"
LADDER = "float,w8a8"


def seconds(do: Callable[[], object]) -> float:
    """Processor seconds that it takes."""
    start = process_time()
    do()
    return process_time() - start


class Study:
    """EfficientNet-Lite0 with its images, and benches over it that remember nothing of each other."""

    def __init__(self, data: Path, folder: Path, samples: int) -> None:
        self.folder = folder
        model = sound_copy(data / "models" / "efficientnet_lite0.onnx", folder / "float.onnx")
        images = folder / "images.toml"
        images.write_text(IMAGES.format(path=str(data / "data" / "imagenet224")))
        recipe = Recipe(stages=(Stage(plugin="mixed.sensitivity"), Stage(plugin="onnx.ptq")), samples=samples)
        self.run = Run(Request(model=model, recipe=recipe, data=images, to=folder / "unused.onnx"))
        self.recipe = recipe.model_copy(update={"stages": recipe.stages[1:]})
        self.references = [self.run.model.run(batch) for batch in self.run.split.trial]

    def calibration(self) -> float:
        """One pass over the samples that calibrate."""
        samples, model = self.run.split.calibration, self.run.model
        assert samples is not None
        assert isinstance(model, OnnxModel)
        tensors = {n: f.name for f in find(model.proto) for n in (f.node.input[0], f.node.output[0])}
        return seconds(
            lambda: calibrate.observe(model, tensors, samples, method="minmax", counted=len(samples), progress=Silent())
        )

    def given(self, count: int) -> Recipe:
        """That many layers in int8, spread over the model, and the others in float."""
        names = [layer.name for layer in self.run.model.layers()]
        kept = {names[i * len(names) // count] for i in range(count)}
        return self.recipe.with_rules(*(Rule.exactly(n, FLOAT) for n in names if n not in kept))

    def evaluation(self, recipe: Recipe) -> float:
        """One evaluation of the model as the recipe makes it."""
        artifact = build(
            Catalog(), self.run.route, self.run.model, recipe, data=self.run.split.calibration, folder=self.folder
        )
        return seconds(lambda: compared(opened(Catalog(), artifact), self.run.split.trial, self.references))

    def sensitivity(self, recipe: Recipe, count: int) -> tuple[float, int]:
        """The whole of mixed.sensitivity for the recipe's quantized layers, and the trials that it made."""
        journal = Journal(None, {})
        bench = Workbench(
            catalog=Catalog(),
            route=self.run.route,
            model=self.run.model,
            calibration=self.run.split.calibration,
            judging=self.run.split.trial,
            journal=journal,
        )
        assert sum(s == Scheme.parse("w8a8") for s in bench.plan(recipe).layers.values()) == count
        job = PlanJob(recipe=recipe, bench=bench, options=SensitivityOptions(ladder=LADDER))
        return seconds(lambda: worst.plan(job)), len(journal.entries)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[10, 28, 50])
    parser.add_argument("--samples", type=int, default=64, help="images that calibrate")
    options = parser.parse_args()
    data = shared()
    if data is None:
        print("skipped: there is no shared data; name its folder in QM_DATA")
        return
    with tempfile.TemporaryDirectory() as folder:
        study = Study(data, Path(folder), options.samples)
        once = study.calibration()
        print(f"one calibration pass {once:.2f} s; {len(study.references)} images judge")
        for count in options.layers:
            recipe = study.given(count)
            each = study.evaluation(recipe)
            took, trials = study.sensitivity(recipe, count)
            plain = once + count * each
            print(
                f"{count:3} layers: {trials:3} trials, {took:6.1f} s, {took / count:.2f} s a layer; "
                f"calibration and {count} evaluations of {each:.2f} s {plain:6.1f} s: {took / plain:.2f} times as much",
                flush=True,
            )


if __name__ == "__main__":
    main()
