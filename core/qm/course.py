"""The samples that every model of a comparison is run on, as each of them wants them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qm.data import Samples, open_data
from qm.data.fit import matches
from qm.errors import QmError, UsageError
from qm.report import Report, report_path
from qm.split import SYNTHETIC_SAMPLES, Batches
from qm.synthetic import FREE_LENGTHS, synthetic
from qm.types import Batch, TensorSpec
from qm.worker import Worker


@dataclass(frozen=True)
class Feed:
    """Batches, and by the names they come under the names that a model wants them under."""

    batches: Batches
    names: Mapping[str, str]

    def renamed(self, batch: Batch) -> Batch:
        """The batch as the model wants it."""
        return {self.names[name]: value for name, value in batch.items()}

    def first(self) -> Batch:
        """The first batch, to time on."""
        return self.renamed(self.batches[0])


@dataclass(frozen=True)
class Course:
    """A data set, opened for the first of the models; ``samples`` is None where inputs are made up."""

    data: Any
    name: str
    inputs: tuple[TensorSpec, ...]
    samples: Samples | None
    made_up: tuple[Batch, ...] = ()

    @classmethod
    def laid(cls, data: Any, worker: Worker, seed: int) -> Course:
        """The samples as the first model wants them.

        Raises:
            UsageError: they do not fit it.
        """
        name = worker.artifact.path.name
        if data is None:
            return cls(data, name, worker.inputs, None, tuple(_made_up(worker, seed)))
        return cls(data, name, worker.inputs, open_data(data, worker.inputs))

    def __len__(self) -> int:
        return len(self.indices)

    def without(self, used: set[int]) -> Course:
        """The course less the samples of these indices.

        Raises:
            UsageError: none are left.
        """
        if self.samples is None or not used:
            return self
        kept = [i for i, index in enumerate(self.samples.indices) if index not in used]
        if not kept:
            raise UsageError(
                "every sample of the data was used to make one of the models", hint="Give samples that were not."
            )
        return replace(self, samples=self.samples.subset(kept))

    @property
    def indices(self) -> Sequence[int]:
        """Which of the whole set the samples are."""
        return range(len(self.made_up)) if self.samples is None else self.samples.indices

    @property
    def labels(self) -> Sequence[int] | None:
        """Labels of the samples."""
        labels = None if self.samples is None else self.samples.labels
        return None if labels is None else [int(label) for label in labels]

    def feed(self, worker: Worker) -> tuple[Feed, str]:
        """The same samples for a model, and how its inputs were matched where their names differ.

        Raises:
            UsageError: its inputs are others.
        """
        name = worker.artifact.path.name
        names, note = matched_inputs(self.name, self.inputs, name, worker.inputs)
        theirs = {own: shared for shared, own in names.items()}
        inputs = tuple(replace(spec, name=theirs[spec.name]) for spec in worker.inputs)
        if self.samples is None:
            return Feed([_fitted(batch, inputs, name) for batch in self.made_up], names), note
        if {s.name: s for s in inputs} == {s.name: s for s in self.inputs}:
            # The same object for all, so that each sample is read once.
            return Feed(self.samples, names), note
        if not _is_place(self.data):
            return Feed(self.samples.refit(inputs), names), note
        # Read afresh, for the layout of images follows the model's.
        whole, kept = open_data(self.data, inputs), set(self.indices)
        return Feed(whole.subset([i for i, index in enumerate(whole.indices) if index in kept]), names), note

    def used_by(self, path: Path) -> set[int]:
        """Indices of the samples that made the artifact, as the report beside it tells."""
        place = report_path(path)
        if self.samples is None or not place.exists():
            return set()
        used = Report.read(place).data
        if used is None or not used.seen:
            return set()
        # By content: the data may be another file or another selection, and hold the same samples.
        seen = set(used.seen)
        return {i for i, digest in zip(self.samples.indices, self.samples.digests, strict=True) if digest in seen}


def matched_inputs(
    first: str, wanted: Sequence[TensorSpec], other: str, had: Sequence[TensorSpec]
) -> tuple[dict[str, str], str]:
    """The input names that one model has by those of the first: the same, or by position where shapes agree.

    Also a note, where it was by position.

    Raises:
        UsageError: neither fits.
    """
    if {s.name for s in wanted} == {s.name for s in had}:
        return {s.name: s.name for s in wanted}, ""
    # With one input there is no doubt which is meant, and the data say whether it fits.
    if len(wanted) != len(had) or (len(wanted) > 1 and not all(map(_agree, wanted, had))):
        raise UsageError(
            f"{other!r} has the inputs {_list(had)}, and {first!r} has {_list(wanted)}: they match neither by name nor "
            "by position",
            hint="Compare models of the same inputs.",
        )
    names = {w.name: h.name for w, h in zip(wanted, had, strict=True)}
    pairs = ", ".join(f"{own!r} for {shared!r}" for shared, own in names.items())
    return names, f"inputs matched by position: {pairs}"


def _agree(a: TensorSpec, b: TensorSpec) -> bool:
    """Whether some tensor is good for both."""
    return len(a.shape) == len(b.shape) and all(None in (n, m) or n == m for n, m in zip(a.shape, b.shape, strict=True))


def _list(inputs: Sequence[TensorSpec]) -> str:
    return ", ".join(map(str, inputs)) or "none"


def _is_place(data: Any) -> bool:
    """Whether the data lie in files, and can be read again in another layout."""
    return isinstance(data, str | Path) and (os.path.exists(data) or ".npz:" in str(data).lower())


def _made_up(worker: Worker, seed: int) -> Iterator[Batch]:
    """Made-up inputs that the model takes.

    Raises:
        QmError: it takes none, for the reason that it gave for the first.
    """
    reasons: list[QmError] = []
    for length in FREE_LENGTHS:
        batches: list[Batch] = list(synthetic(worker.inputs, SYNTHETIC_SAMPLES, seed, free_length=length))
        try:
            next(worker.run(batches[:1]))
        except QmError as e:
            reasons.append(e)
            if worker.is_closed:
                break
        else:
            yield from batches
            return
    raise reasons[0]


def _fitted(batch: Batch, inputs: Sequence[TensorSpec], name: str) -> Batch:
    """A made-up batch for another model.

    Raises:
        UsageError: its inputs have other shapes.
    """
    for spec in inputs:
        if not matches(batch[spec.name].shape, spec.shape):
            raise UsageError(
                f"{name!r} wants {spec}, and the first model takes {list(batch[spec.name].shape)} there",
                hint="Give --data that each of them can be fed from, such as a folder of images.",
            )
    return {spec.name: batch[spec.name].astype(spec.dtype) for spec in inputs}
