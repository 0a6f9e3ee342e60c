"""What trainings of quantized models share, whatever framework they compute in: data, schedule, judgement, words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from qm import cache
from qm.card import Options
from qm.errors import UsageError
from qm.types import Array, Batch, Dataset

CALIBRATES = 256
"""Samples whose ranges a training starts from."""
HELD_OUT = 1000
"""At most so many samples, and a tenth of all, choose the best epoch."""
WARM_UP = 0.05
"""Share of the steps in which the learning rate rises, while Adam's averages settle."""
FAITHFUL_DB, EXACT_DB = 40.0, 200.0
"""A file answers as what was trained from the first SQNR on, and exactly so from the second."""
KEPT = "Finished epochs are kept: the same command goes on from the last one."

_LEARNT = {
    "distill": "the float model's answers",
    "labels": "the labels",
    "both": "the float model's answers and the labels",
}


class TrainingOptions(Options):
    """Options of quantization-aware training."""

    epochs: int = Field(default=10, ge=1, le=10_000, description="passes over the samples")
    learning_rate: float = Field(default=3e-4, gt=0, le=1, description="the largest learning rate of the schedule")
    schedule: Literal["cosine", "constant"] = Field(
        default="cosine", description="how the learning rate goes: down along a cosine, or not at all"
    )
    batch: int = Field(default=64, ge=1, le=65_536, description="samples a step")
    loss: Literal["auto", "distill", "labels", "both"] = Field(
        default="auto",
        description="what is learnt: the float model's answers, the labels, or both; auto is both where there are "
        "labels",
    )


@dataclass(frozen=True)
class First:
    """The first samples of a data set."""

    data: Dataset
    most: int

    def __len__(self) -> int:
        return min(self.most, len(self.data))

    def __iter__(self) -> Iterator[Batch]:
        return islice(iter(self.data), self.most)

    @property
    def labels(self) -> Array | None:
        return None if self.data.labels is None else self.data.labels[: self.most]


def needed(data: Dataset | None, method: str) -> Dataset:
    """The samples; raises UsageError where there are none."""
    if data is None or not len(data):
        raise UsageError(
            f"{method} needs samples to learn from", hint="Give some hundreds with --data; no labels needed."
        )
    return data


def labels(data: Dataset, loss: str, *, classes: int | None) -> Array | None:
    """The labels to learn, None where there are none or they are not wanted.

    ``classes`` is how many values the model gives a sample, None where they are no scores of classes.

    Raises:
        UsageError: they are wanted, and there are none or they do not fit.
    """
    wanted = loss in ("labels", "both")
    if data.labels is None or loss == "distill":
        if wanted:
            raise UsageError(
                f"loss={loss} needs labels, and the data have none",
                hint="Give labels with --data, or take loss=distill.",
            )
        return None
    found = np.asarray(data.labels, np.int64)
    if not fits(found, classes):
        if wanted:
            raise UsageError(
                f"the model gives {classes or 'no class'} values a sample, which do not fit labels up to "
                f"{found.max(initial=0)}",
                hint="Take loss=distill.",
            )
        return None
    return found


def fits(found: Array, classes: int | None) -> bool:
    """Whether labels are one of the classes a sample."""
    return classes is not None and found.ndim == 1 and len(found) > 0 and found.min() >= 0 and found.max() < classes


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a training learns, from how many samples, and how its steps go. ``loss`` is never ``auto``."""

    samples: int
    seed: int
    loss: str
    epochs: int
    learning_rate: float
    schedule: str
    batch: int

    @classmethod
    def of(cls, options: TrainingOptions, *, samples: int, seed: int, labelled: bool) -> Training:
        """The training that the options ask for."""
        chosen = ("both" if labelled else "distill") if options.loss == "auto" else options.loss
        held = _held(samples)
        return cls(
            samples=samples,
            seed=seed,
            loss=chosen,
            epochs=options.epochs,
            learning_rate=options.learning_rate,
            schedule=options.schedule,
            batch=min(options.batch, max(1, samples - held)),
        )

    @classmethod
    def told(cls, values: Mapping[str, Any]) -> Training:
        """The training that ``values()`` tells."""
        return cls(**values)

    def values(self) -> dict[str, Any]:
        """All of it, for a child process and for keys."""
        return asdict(self)

    @property
    def held(self) -> int:
        """How many samples choose the best epoch."""
        return _held(self.samples)

    @property
    def learnt(self) -> int:
        """How many samples are learnt from."""
        return max(1, self.samples - self.held)  # A single sample does for both.

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return self.learnt // self.batch

    def split(self) -> tuple[Array, Array]:
        """The numbers of the samples that training sees, and of those that choose the best epoch."""
        order = np.random.default_rng(self.seed).permutation(self.samples)
        return order[self.held :] if self.samples > self.held else order, np.sort(order[: self.held])

    def batches(self, epoch: int) -> Iterator[tuple[int, Array]]:
        """The steps of an epoch by number, all epochs counted, each with the samples to learn from."""
        learn, _ = self.split()
        order = np.random.default_rng((self.seed, epoch)).permutation(learn)
        for step in range(self.steps):
            yield epoch * self.steps + step, np.sort(order[step * self.batch : (step + 1) * self.batch])

    def rate(self, step: int) -> float:
        """The learning rate of a step, all epochs counted."""
        total = self.epochs * self.steps
        warm = max(1, round(WARM_UP * total))
        rate = self.learning_rate * min(1.0, (step + 1) / warm)
        if self.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * step / total))
        return rate

    def check(self, loss: float, step: int) -> float:
        """The loss of a step; raises UsageError where it is no number any more."""
        if not math.isfinite(loss):
            raise UsageError(
                f"training went astray in step {step + 1}: the loss is {loss}",
                hint=f"Lower the learning rate: -o learning_rate={self.learning_rate / 10:g}",
            )
        return loss


def _held(samples: int) -> int:
    return max(1, min(HELD_OUT, samples // 10))


@dataclass(frozen=True, kw_only=True)
class Reached:
    """What an epoch came to on the samples held out. Epoch 0 is the start; ``agreement`` is 0 without classes."""

    epoch: int
    agreement: float
    sqnr_db: float

    def beats(self, other: Reached) -> bool:
        """Whether it is the better, by agreement with the float model, then by SQNR."""
        return (self.agreement, self.sqnr_db) > (other.agreement, other.sqnr_db)


class Rows:
    """Arrays in files, one row a sample; nothing of them stays in memory."""

    def __init__(self, folder: Path, samples: int) -> None:
        self._folder, self._samples = folder, samples
        self._files: dict[str, Any] = {}

    def path(self, name: str) -> Path:
        """The file of the array of that name."""
        return self._folder / f"{name}.npy"

    def put(self, name: str, number: int, values: Array) -> None:
        """Write ``values``, ``(1, ...)``, as those of a sample.

        Raises:
            UsageError: their shape is not that of the first sample's.
        """
        row = values[0]
        if name not in self._files:
            shape = (self._samples, *row.shape)
            self._files[name] = np.lib.format.open_memmap(self.path(name), "w+", row.dtype, shape)
        file = self._files[name]
        if row.shape != file.shape[1:]:
            raise UsageError(
                f"sample {number} has values of shape {row.shape} where the first has {file.shape[1:]}",
                hint="Bring the samples to one shape: training takes many at a time.",
            )
        file[number] = row

    def flush(self) -> None:
        """See that everything is in the files."""
        for file in self._files.values():
            file.flush()


def check_answer(values: Array, number: int) -> None:
    """Raise UsageError where what the float model answers to a sample cannot be learnt."""
    if not np.isfinite(values).all():
        raise UsageError(
            f"the float model answers with NaN or infinity for sample {number}", hint="Look at that sample."
        )


def state(namespace: str, parts: Sequence[str], suffix: str) -> Path:
    """Where a training is kept after each epoch, until it is done, named after all that it depends on.

    Raises:
        UsageError: its folder cannot be made.
    """
    place = cache.folder(namespace) / "training"
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UsageError(
            f"the folder {str(place)!r}, where training is kept after each epoch, cannot be made: {e.strerror}",
            hint="Name another with the variable QM_CACHE.",
        ) from e
    return place / f"{cache.key(parts)}{suffix}"


def resumed(done: int) -> str:
    """What is said where a training goes on."""
    return f"training goes on after epoch {done}, where it was interrupted"


def walked(events: Iterable[Mapping[str, Any]], training: Training, said: list[str]) -> Iterator[None]:
    """One item a step that a child tells of, those of the epochs before an interrupt at once; ``said`` takes notes."""
    for event in events:
        if "step" in event:
            yield
        elif done := event.get("resumed"):
            said.append(resumed(done))
            for _ in range(done * training.steps):
                yield


def told(training: Training, start: Reached, best: Reached, *, before: str, classes: bool) -> list[str]:
    """What a training came to, in sentences; ``before`` names the method it started from."""
    lines = [
        f"trained {training.epochs} epochs on {training.learnt} samples from {_LEARNT[training.loss]}; epoch "
        f"{best.epoch} is kept, the best of all on {training.held} others"
    ]
    first, last = (f"{r.sqnr_db:.1f} dB" for r in (start, best))
    if classes:
        lines.append(
            f"agreement with the float model there: {start.agreement:.1%} ({first}) before training, "
            f"{best.agreement:.1%} ({last}) after"
        )
    else:
        lines.append(f"SQNR to the float model there: {first} before training, {last} after")
    if not best.epoch:
        lines.append(f"no epoch came closer than the integers that {before} had chosen, and those are kept")
    return lines
