"""What a recipe is told. A recipe runs in its tool's own environment, so this needs NumPy alone.

A recipe is a script that takes the path of a JSON file, which names the float model, the samples that calibrate, where
to write and the recipe's options. It writes the model, and nothing else is asked of it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Job:
    """``samples`` are those of the model's only input ``name``, as float32, without a dimension for the batch."""

    model: Path
    name: str
    samples: Sequence[np.ndarray]
    to: Path
    options: dict[str, Any]

    @classmethod
    def read(cls) -> Job:
        """The job that the command line names."""
        told = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
        samples = read_samples(Path(told["samples"]))
        return cls(Path(told["model"]), told["name"], samples, Path(told["to"]), told["options"])

    def batches(self) -> Iterator[dict[str, np.ndarray]]:
        """Each sample as a batch of one, by the input's name."""
        return ({self.name: np.stack([sample])} for sample in self.samples)


def stored(folder: Path, name: str) -> Path:
    """The file of samples: ``.npz`` for those of several shapes."""
    several = folder / f"{name}.npz"
    return several if several.exists() else folder / f"{name}.npy"


def keep(folder: Path, name: str, samples: Sequence[np.ndarray]) -> None:
    """Write samples to the file that ``stored`` finds, so that nobody sees half of it."""
    suffix, one = (".npz", False) if len({sample.shape for sample in samples}) > 1 else (".npy", True)
    part = folder / f"{name}.part{suffix}"
    np.save(part, np.stack(samples)) if one else np.savez(part, *samples)
    part.replace(folder / f"{name}{suffix}")


def read_samples(file: Path) -> Sequence[np.ndarray]:
    """Samples of one shape from ``.npy``, of several from ``.npz``."""
    if file.suffix == ".npy":
        return np.load(file, mmap_mode="r")
    with np.load(file) as arrays:
        return [arrays[name] for name in arrays.files]


class Reader:
    """The samples as ONNX Runtime and those built on it read them; to be derived from its ``CalibrationDataReader``."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.rewind()

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch, None after the last."""
        return next(self.left, None)

    def rewind(self) -> None:
        """Begin again."""
        self.left = self.job.batches()

    def __len__(self) -> int:
        return len(self.job.samples)
