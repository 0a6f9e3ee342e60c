"""What every contract works with: the card under test, a model, samples, made once for each test class."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import pytest

from qm import numerics
from qm.catalog import Catalog, Found
from qm.plugin import (
    Array,
    Artifact,
    Batch,
    Can,
    Card,
    ExportJob,
    Loader,
    LoadJob,
    Memo,
    Model,
    Notes,
    Plan,
    Progress,
    QuantizeJob,
    Scheme,
    Silent,
)
from qm.synthetic import synthetic

SAMPLES = 8


class Subject(Protocol):
    """What a test class tells the lab."""

    method: ClassVar[str]
    kind: ClassVar[type[Card]]
    options: ClassVar[Mapping[str, Any]]

    def model(self, folder: Path) -> Path: ...
    def samples(self) -> Sequence[Batch] | None: ...


class Drawn(list[Batch]):
    """Samples without labels."""

    labels = None


class Lab:
    """The services of the core that the contracts use, over one card and one model."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        self._subject = subject
        self.folder = folder
        self.catalog = Catalog()
        self._exports = itertools.count()
        self._quantized: dict[str, tuple[Artifact, Model]] = {}

    @cached_property
    def found(self) -> Found[Any]:
        """The card under test."""
        return self.catalog.find(self._subject.method, self._subject.kind)

    @property
    def card(self) -> Any:
        """The card itself."""
        return self.found.card

    @cached_property
    def path(self) -> Path:
        """The float model's file."""
        return Path(self._subject.model(self.folder))

    @cached_property
    def model(self) -> Model:
        """The float model, loaded."""
        return self.load(self.path)

    @cached_property
    def samples(self) -> Drawn:
        """The subject's samples, or drawn ones."""
        given = self._subject.samples()
        return Drawn(given) if given is not None else Drawn(synthetic(self.model.inputs(), SAMPLES, seed=0))

    @cached_property
    def outputs(self) -> list[Array]:
        """What the float model answers to the samples, told by a copy of its own that no method has touched."""
        return self.answers(self.load(self.path))

    def answers(self, model: Model) -> list[Array]:
        """The outputs for the samples, each output's samples joined; by place, as formats rename outputs.

        The test is skipped where models of the format do not run, since they hold weights alone.
        """
        self.needs_run(model)
        runs = [list(model.run(batch).values()) for batch in self.samples]
        return [np.concatenate([run[i].ravel() for run in runs]).astype(np.float64) for i in range(len(runs[0]))]

    def needs_run(self, model: Model) -> None:
        """Skip the test where no loader of the model's format says that such models run."""
        loaders = [f.card for f in self.catalog.all(Loader) if f.card.gives == model.format]
        if not any(Can.RUN in card.can for card in loaders):
            pytest.skip(f"models of format {model.format!r} do not run")

    def sqnr_db(self, model: Model) -> float:
        """How near the model's answers are to those of the float model."""
        return sqnr_db(self.outputs, self.answers(model))

    def load(self, path: Path) -> Model:
        """The model of a path, by the loader that the catalog chooses."""
        found = self.catalog.loader(path)
        model: Model = found.card.implementation()(LoadJob(path=path, options=found.card.options()))
        return model

    def export(self, model: Model) -> Artifact:
        """Write a model into a folder of its own."""
        card = self.catalog.exporter(model.format).card
        folder = self.folder / f"export-{next(self._exports)}"
        folder.mkdir()
        job = ExportJob(model=model, path=folder / f"model{card.suffix}", options=card.options())
        artifact: Artifact = card.implementation()(job)
        return artifact

    @cached_property
    def float_artifact(self) -> Artifact:
        """The float model as its exporter writes it, which quantized files are held against."""
        return self.export(self.load(self.path))

    def quantize(
        self,
        plan: Plan,
        *,
        model: Model | None = None,
        data: Drawn | None = None,
        progress: Progress | None = None,
        seed: int = 0,
        memo: Memo | None = None,
    ) -> Model:
        """Carry out a plan by the quantizer under test, on the samples where no data are given."""
        job = QuantizeJob(
            model=model or self.model,
            plan=plan,
            data=self.samples if data is None else data,
            options=self.found.options(dict(self._subject.options)),
            seed=seed,
            progress=progress or Silent(),
            notes=Notes(),
            memo=Memo.forgetful() if memo is None else memo,
        )
        quantized: Model = self.card.implementation()(job)
        return quantized

    def whole_plan(self, scheme: Scheme) -> Plan:
        """Every layer that can get the scheme, in it."""
        layers = [layer.name for layer in self.model.layers() if scheme in self.card.offers(layer)]
        assert layers, f"the contract's model has no layer that {self.found.plugin} can bring to {scheme}"
        return Plan(dict.fromkeys(layers, scheme))

    def quantized(self, text: str) -> tuple[Artifact, Model]:
        """The model quantized whole to a scheme, written, and loaded again; done once."""
        if text not in self._quantized:
            artifact = self.export(self.quantize(self.whole_plan(Scheme.parse(text))))
            self._quantized[text] = artifact, self.load(artifact.path)
        return self._quantized[text]


def sqnr_db(reference: Sequence[Array], actual: Sequence[Array]) -> float:
    """SQNR of all outputs together; infinite where they are equal."""
    return numerics.sqnr_db(_joined(reference), _joined(actual))


def _joined(outputs: Sequence[Array]) -> Array:
    return np.concatenate([np.asarray(output, np.float64).ravel() for output in outputs])
