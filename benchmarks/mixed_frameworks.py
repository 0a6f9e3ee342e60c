"""One planner, four quantizers: mixed.budget on ResNet-8 through three frameworks, and over a third party's method.

    python benchmarks/mixed_frameworks.py FOLDER [--rows tf onnx torch ternary] [--trials 6] [--test 5000]

Each row needs its framework (``ternary`` the distribution in examples/qm-ternary): run the script in one environment
after the other with the same FOLDER. It keeps the float models, what was made, and the figures, and prints all rows
that it has. The weights are those of the Keras file in the folder of shared models: ``onnx`` writes them as ONNX,
which ``torch`` reads, so ``onnx`` goes first.

For each row the planner is asked for the most accurate plan within a size in the middle, between that of the narrowest
scheme for all layers and that of the usual one. Printed are bytes, top-1 and SQNR to float on test images that no trial
saw; for the toy model of ``ternary``, agreement with float in place of top-1. PyTorch's are ExecuTorch files, whose
narrowest scheme is int8 and whose usual one is float here: a compiled package takes a C++ compiler a minute or more a
trial.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import qm
from qm.catalog import Catalog
from qm.plugin import Artifact
from qm.trial import opened

Arrays = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One row: the float model, the method after the planner, its schemes from wide to narrow, samples, suffix."""

    name: str
    model: Path
    method: str
    wide: str
    narrow: str
    data: Arrays
    test: Any
    labels: Any
    suffix: str


@dataclass(frozen=True)
class Figures:
    """What one file does on the test samples."""

    nbytes: int
    top1: float
    sqnr_db: float


def shared() -> Path:
    return Path(os.environ.get("QM_DATA", "../shared"))


def cifar(test: int, *, channels_first: bool) -> tuple[Any, Any, Any]:
    with np.load(shared() / "data/cifar10.npz") as arrays:
        train, images, labels = arrays["x_train"], arrays["x_test"][:test], arrays["y_test"][:test]
    if channels_first:
        train, images = train.transpose(0, 3, 1, 2), images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(train, np.float32), np.ascontiguousarray(images, np.float32), labels


def tf_row(folder: Path, test: int) -> Row:
    train, images, labels = cifar(test, channels_first=False)
    model = shared() / "models/resnet8_cifar10.h5"
    return Row("tf", model, "tf.ptq", "w8a8", "w4a8", {"data": train}, images, labels, ".tflite")


def onnx_row(folder: Path, test: int) -> Row:
    import onnx
    from resnet8_onnx import resnet8

    model = folder / "resnet8.onnx"
    if not model.exists():
        onnx.save(resnet8(shared() / "models/resnet8_cifar10.h5"), model)
    train, images, labels = cifar(test, channels_first=True)
    return Row("onnx", model, "onnx.ptq", "w8a8", "w4a8", {"data": train}, images, labels, ".onnx")


def torch_row(folder: Path, test: int) -> Row:
    model = folder / "resnet8.pt2"
    if not model.exists():
        import torch
        from resnet8_torch import resnet8

        torch.export.save(torch.export.export(resnet8(folder / "resnet8.onnx"), (torch.zeros(1, 3, 32, 32),)), model)
    train, images, labels = cifar(test, channels_first=True)
    return Row("torch", model, "torch.ptq", "float", "w8a8", {"data": train}, images, labels, ".pte")


def ternary_row(folder: Path, test: int) -> Row:
    import qm_toy

    model, samples = folder / "model.toy", folder / "toy.npz"
    qm_toy.make(model)
    qm_toy.make_data(samples, samples=3000)
    with np.load(samples) as arrays:
        rows = next(iter(arrays.values()))
    return Row("ternary", model, "acme.ternary", "float", "w2", {"data": rows[:2000]}, rows[2000:], None, ".toy")


ROWS: dict[str, Callable[[Path, int], Row]] = {
    "onnx": onnx_row,
    "tf": tf_row,
    "torch": torch_row,
    "ternary": ternary_row,
}


def judged(path: Path, row: Row, reference: Any) -> Figures:
    """The file on the test samples, as its runtime runs it."""
    catalog = Catalog()
    fmt = catalog.loader(path).card.gives
    made = answers(opened(catalog, Artifact(path=path, format=fmt)), row.test)
    error, signal = np.square(made - reference, dtype=np.float64).sum(), np.square(reference, dtype=np.float64).sum()
    right = reference.argmax(1) if row.labels is None else row.labels
    nbytes = Artifact(path=path, format=fmt).nbytes
    return Figures(nbytes, float((made.argmax(1) == right).mean()), float(10 * np.log10(signal / error)))


def answers(runner: Any, samples: Any) -> Any:
    name = runner.inputs()[0].name
    return np.concatenate([next(iter(runner.run({name: x[None]}).values())) for x in samples])


def made(row: Row, folder: Path, trials: int) -> dict[str, Any]:
    """The row's figures: float, all layers in one scheme, and the plans of two planners for a size between."""
    model = qm.load(row.model)
    reference = answers(model, row.test)
    right = reference.argmax(1) if row.labels is None else row.labels
    found: dict[str, Any] = {
        "method": row.method,
        "float": asdict(Figures(model.nbytes(), float((reference.argmax(1) == right).mean()), np.inf)),
    }

    def add(name: str, methods: Any, scheme: str) -> int:
        to = folder / f"{row.name}-{name}{row.suffix}"
        start = time.perf_counter()
        report = qm.quantize(row.model, methods, scheme=scheme, data=row.data["data"], to=to, force=True)
        figures = judged(to, row, reference)
        found[name] = asdict(figures) | {"seconds": time.perf_counter() - start, "notes": report.decisions}
        return figures.nbytes

    narrow = add(row.narrow, [row.method], row.narrow)
    wide = model.nbytes() if row.wide == "float" else add(row.wide, [row.method], row.wide)
    limit = (narrow + wide) // 2
    start = row.narrow if row.wide == "float" else row.wide
    ladder = f"{row.wide},{row.narrow}"
    add("mixed.greedy", [("mixed.greedy", {"max_bytes": limit, "ladder": ladder}), row.method], start)
    told = {"max_bytes": limit, "ladder": ladder, "trials": trials}
    add("mixed.budget", [("mixed.budget", told), row.method], start)
    return found | {"limit": limit}


def table(results: Mapping[str, Any]) -> str:
    """One line a file."""
    lines = [f"{'':10} {'plan':14} {'bytes':>9} {'limit':>9} {'top-1':>8} {'SQNR':>9} {'took':>7}"]
    for name, row in results.items():
        for plan, figures in row.items():
            if not isinstance(figures, dict):
                continue
            limit = f"{row['limit']:,}" if plan.startswith("mixed.") else ""
            took = f"{figures['seconds']:.0f} s" if "seconds" in figures else ""
            lines.append(
                f"{name:10} {plan:14} {figures['nbytes']:9,} {limit:>9} {figures['top1']:8.2%} "
                f"{figures['sqnr_db']:6.2f} dB {took:>7}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--trials", type=int, default=6, help="plans that mixed.budget tries")
    parser.add_argument("--test", type=int, default=5000, help="test samples that judge")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    place = args.folder / "results.json"
    results = json.loads(place.read_text()) if place.exists() else {}
    for name in args.rows:
        results[name] = made(ROWS[name](args.folder, args.test), args.folder, args.trials)
        place.write_text(json.dumps(results, indent=1))
    print(table(results))


if __name__ == "__main__":
    main()
