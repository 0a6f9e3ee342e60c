"""What a recipe is told. A recipe runs in its tool's own environment, so this needs NumPy alone.

A recipe is a script that takes the path of a JSON file, which names the float model, the samples that calibrate, where
to write and the recipe's options. It writes the model, and nothing else is asked of it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Job:
    """``samples`` is ``(samples, ...)``, of the model's only input ``name``, as float32."""

    model: Path
    name: str
    samples: np.ndarray
    to: Path
    options: dict[str, Any]

    @classmethod
    def read(cls) -> Job:
        """The job that the command line names."""
        told = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
        samples = np.load(told["samples"])
        return cls(Path(told["model"]), told["name"], samples, Path(told["to"]), told["options"])

    def batches(self) -> Iterator[dict[str, np.ndarray]]:
        """Each sample as a batch of one, by the input's name."""
        return ({self.name: self.samples[i : i + 1]} for i in range(len(self.samples)))


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
