"""One artifact against the float model, in the runtime of its format, by the same samples and clock for everyone.

    cd benchmarks && python -m peers.judge FLOAT ARTIFACT FOLDER --time 15 [--reference NAME]

FOLDER holds the samples and their classes, or the characters that lines of text are read by: then the accuracy is the
share of lines that are read as the float model reads them. Prints JSON. It is a process of its own, so that the
runtime that it finds is the caller's choice: that of the environment, or one with fewer kernels.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peers.recipe.job import keep, read_samples, stored

import qm
import qm.target
from qm import clock
from qm.catalog import Catalog
from qm.contender import Terms
from qm.errors import QmError
from qm.plugin import Artifact, Silent, Unsupported
from qm.verdict import NO_CLASS, Accuracy, accuracy, top1
from qm.worker import Worker

MARGIN = 0.01
DRAWS = 2000

Samples = Sequence[NDArray[np.float32]]
Outputs = list[NDArray[np.float32]]


def main() -> int:
    parser = argparse.ArgumentParser(description="Judge one artifact against the float model.")
    parser.add_argument("before", type=Path, metavar="FLOAT")
    parser.add_argument("after", type=Path, metavar="ARTIFACT")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--time", type=float, default=15.0, help="seconds of timing (15)")
    parser.add_argument("--reference", help="the name under which the float model's outputs are kept in FOLDER")
    args = parser.parse_args()
    try:
        print(json.dumps(judged(args)))
    except QmError as e:
        print(e.message, file=sys.stderr)
        return 1
    return 0


def judged(args: argparse.Namespace) -> dict[str, Any]:
    """All that is said of the artifact.

    Raises:
        QmError: it cannot be run.
    """
    samples = read_samples(stored(args.folder, "judging"))
    catalog = Catalog()
    before, after = (Artifact(path=p, format=catalog.loader(p).card.gives) for p in (args.before, args.after))
    first = _reference(args.folder, args.reference, before, samples, catalog)
    second, runtime = _answers(after, samples, catalog)
    return {
        "runtime": runtime,
        "cpu": qm.target.host().summary,
        "samples": len(samples),
        "nbytes": after.nbytes,
        "sqnr_db": _sqnr(first, second),
        **_judged(args.folder, first, second),
        "layers": _layers(args.after),
        "speed": _speed(before, after, samples[0][None], catalog, args.time),
    }


def _answers(artifact: Artifact, samples: Samples, catalog: Catalog) -> tuple[Outputs, str]:
    """The first output for each sample, ``(1, ...)``, and the runtime that gave it."""
    with Terms().worker(artifact, catalog) as worker:
        name = worker.inputs[0].name
        outputs = worker.run({name: np.array(sample[None])} for sample in samples)
        return [np.array(next(iter(out.values()))) for out in outputs], worker.runtime


def _reference(folder: Path, name: str | None, artifact: Artifact, samples: Samples, catalog: Catalog) -> Outputs:
    if name is not None and stored(folder, name).exists():
        return [output[None] for output in read_samples(stored(folder, name))]
    made, _ = _answers(artifact, samples, catalog)
    if name is not None:
        keep(folder, name, [output[0] for output in made])
    return made


def _sqnr(reference: Outputs, other: Outputs) -> dict[str, float]:
    """SQNR over all outputs in dB, and its 95 % interval by a bootstrap over samples."""
    signal = np.array([np.square(a, dtype=np.float64).sum() for a in reference])
    noise = np.array(
        [np.square(np.subtract(a, b, dtype=np.float64)).sum() for a, b in zip(reference, other, strict=True)]
    )
    drawn = np.random.default_rng(0).integers(0, len(signal), (DRAWS, len(signal)))
    with np.errstate(divide="ignore"):
        low, high = np.percentile(10 * np.log10(signal[drawn].sum(axis=1) / noise[drawn].sum(axis=1)), [2.5, 97.5])
        return {"estimate": float(10 * np.log10(signal.sum() / noise.sum())), "low": float(low), "high": float(high)}


def _judged(folder: Path, first: Outputs, second: Outputs) -> dict[str, Any]:
    """By what the outputs are judged, and the accuracy by that."""
    characters = folder / "characters.json"
    if characters.exists():
        found = _alike(first, second, json.loads(characters.read_text(encoding="utf-8")))
        return {"judged_by": "lines", "accuracy": found.model_dump(mode="json")}
    classes = (top1(np.concatenate(outputs)) for outputs in (first, second))
    found = accuracy(np.load(folder / "labels.npy"), *classes, margin=MARGIN)
    return {"judged_by": "labels", "accuracy": found.model_dump(mode="json")}


def _alike(reference: Outputs, other: Outputs, known: list[str]) -> Accuracy:
    """How many lines are read as before, as the accuracy of readings of which the first are right."""
    from ocr import decode

    same = [decode(a[0], known) == decode(b[0], known) for a, b in zip(reference, other, strict=True)]
    first = np.arange(len(same))
    return accuracy(first, first, np.where(same, first, NO_CLASS), margin=MARGIN)


def _layers(path: Path) -> dict[str, Any] | None:
    """Share of the weights that the file really holds as integers, and how many layers are in each scheme."""
    model = qm.load(path)
    try:
        schemes, layers = model.schemes(), model.layers()
    except Unsupported:  # A program for ExecuTorch that others compiled.
        return None
    total = sum(layer.weights for layer in layers)
    integers = sum(layer.weights for layer in layers if layer.name in schemes and schemes[layer.name].is_integer)
    counts = Counter(str(schemes[layer.name]) if layer.name in schemes else "float" for layer in layers)
    return {"integer_share": integers / total, "schemes": dict(counts.most_common())}


def _speed(
    before: Artifact, after: Artifact, sample: NDArray[np.float32], catalog: Catalog, time_s: float
) -> dict[str, Any]:
    """How many times as fast as float, with one thread, alternating in fresh processes."""

    def opened(artifact: Artifact) -> Worker:
        return Terms().worker(artifact, catalog)

    def batch(artifact: Artifact) -> dict[str, Any]:
        with opened(artifact) as worker:
            return {worker.inputs[0].name: np.array(sample)}

    found = clock.compare(
        lambda: opened(before),
        lambda: opened(after),
        batch(before),
        batch_after=batch(after),
        time_s=time_s,
        progress=Silent(),
    )
    return found.model_dump(mode="json")


if __name__ == "__main__":
    raise SystemExit(main())
