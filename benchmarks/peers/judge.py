"""One artifact against the float model, in the runtime of its format, by the same samples and clock for everyone.

    python benchmarks/peers/judge.py FLOAT ARTIFACT FOLDER --time 15 [--reference float.npy]

FOLDER holds ``judging.npy`` and ``labels.npy``. Prints JSON. It is a process of its own, so that the runtime that it
finds is the caller's choice: that of the environment, or one with fewer kernels.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import qm
import qm.target
from qm import clock
from qm.catalog import Catalog
from qm.contender import Terms
from qm.errors import QmError
from qm.plugin import Artifact, Silent
from qm.verdict import accuracy, top1
from qm.worker import Worker

MARGIN = 0.01
DRAWS = 2000


def main() -> int:
    parser = argparse.ArgumentParser(description="Judge one artifact against the float model.")
    parser.add_argument("before", type=Path, metavar="FLOAT")
    parser.add_argument("after", type=Path, metavar="ARTIFACT")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--time", type=float, default=15.0, help="seconds of timing (15)")
    parser.add_argument("--reference", type=Path, help="where the float model's outputs are kept")
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
    images, labels = np.load(args.folder / "judging.npy", mmap_mode="r"), np.load(args.folder / "labels.npy")
    catalog = Catalog()
    before, after = (Artifact(path=p, format=catalog.loader(p).card.gives) for p in (args.before, args.after))
    first = _reference(args.reference, before, images, catalog)
    second, runtime = _answers(after, images, catalog)
    return {
        "runtime": runtime,
        "cpu": qm.target.host().summary,
        "samples": len(labels),
        "nbytes": after.nbytes,
        "sqnr_db": _sqnr(first, second),
        "accuracy": accuracy(labels, top1(first), top1(second), margin=MARGIN).model_dump(mode="json"),
        "layers": _layers(args.after),
        "speed": _speed(before, after, images, catalog, args.time),
    }


def _answers(artifact: Artifact, images: Any, catalog: Catalog) -> tuple[NDArray[np.float32], str]:
    """The first output for each image, ``(images, classes)``, and the runtime that gave it."""
    with Terms().worker(artifact, catalog) as worker:
        name = worker.inputs[0].name
        outputs = worker.run({name: np.array(images[i : i + 1])} for i in range(len(images)))
        return np.concatenate([np.asarray(next(iter(out.values()))) for out in outputs]), worker.runtime


def _reference(kept: Path | None, artifact: Artifact, images: Any, catalog: Catalog) -> NDArray[np.float32]:
    if kept is not None and kept.exists():
        found: NDArray[np.float32] = np.load(kept)
        return found
    made, _ = _answers(artifact, images, catalog)
    if kept is not None:
        part = kept.with_suffix(".part.npy")
        np.save(part, made)
        part.replace(kept)
    return made


def _sqnr(reference: NDArray[np.float32], other: NDArray[np.float32]) -> dict[str, float]:
    """SQNR over all outputs in dB, and its 95 % interval by a bootstrap over samples."""
    signal = np.square(reference, dtype=np.float64).sum(axis=1)
    noise = np.square(np.subtract(reference, other, dtype=np.float64)).sum(axis=1)
    drawn = np.random.default_rng(0).integers(0, len(signal), (DRAWS, len(signal)))
    with np.errstate(divide="ignore"):
        low, high = np.percentile(10 * np.log10(signal[drawn].sum(axis=1) / noise[drawn].sum(axis=1)), [2.5, 97.5])
        return {"estimate": float(10 * np.log10(signal.sum() / noise.sum())), "low": float(low), "high": float(high)}


def _layers(path: Path) -> dict[str, Any]:
    """Share of the weights that the file really holds as integers, and how many layers are in each scheme."""
    model = qm.load(path)
    schemes, layers = model.schemes(), model.layers()
    total = sum(layer.weights for layer in layers)
    integers = sum(layer.weights for layer in layers if layer.name in schemes and schemes[layer.name].is_integer)
    counts = Counter(str(schemes[layer.name]) if layer.name in schemes else "float" for layer in layers)
    return {"integer_share": integers / total, "schemes": dict(counts.most_common())}


def _speed(before: Artifact, after: Artifact, images: Any, catalog: Catalog, time_s: float) -> dict[str, Any]:
    """How many times as fast as float, with one thread, alternating in fresh processes."""

    def opened(artifact: Artifact) -> Worker:
        return Terms().worker(artifact, catalog)

    def batch(artifact: Artifact) -> dict[str, Any]:
        with opened(artifact) as worker:
            return {worker.inputs[0].name: np.array(images[:1])}

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
