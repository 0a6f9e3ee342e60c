"""What an exporter promises."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from qm.errors import QmError
from qm.file import sha256
from qm.plugin import Artifact, Card, Exporter, ExportJob, Model, TensorSpec
from qm.testing.contract import Contract
from qm.testing.fixture import Isolation
from qm.testing.lab import Lab, sqnr_db


class ExporterContract(Contract):
    """An exporter; the contract's model must be of a format that the card takes."""

    kind: ClassVar[type[Card]] = Exporter

    def export(self, lab: Lab, folder: Path, model: Model | None = None) -> Artifact:
        """Write the model into a folder by the exporter under test."""
        job = ExportJob(
            model=model or lab.model,
            path=folder / f"model{lab.card.suffix}",
            options=lab.found.options(dict(self.options)),
        )
        artifact: Artifact = lab.card.implementation()(job)
        return artifact

    def test_the_models_format_is_one_it_takes(self, lab: Lab) -> None:
        assert lab.model.format in lab.card.takes

    def test_the_catalog_finds_the_exporter(self, lab: Lab) -> None:
        assert lab.catalog.exporter(lab.model.format, lab.card.suffix).plugin == self.method

    def test_the_file_is_where_it_was_asked_for(self, lab: Lab, tmp_path: Path) -> None:
        artifact = self.export(lab, tmp_path)
        assert artifact.path == tmp_path / f"model{lab.card.suffix}"
        assert artifact.format == lab.card.gives
        assert artifact.nbytes > 0

    def test_the_file_loads_and_answers_as_the_model_does(self, lab: Lab, tmp_path: Path) -> None:
        again = lab.load(self.export(lab, tmp_path).path)
        assert sqnr_db(lab.outputs, lab.answers(again)) >= self.untouched_db

    def test_the_file_has_the_models_layers(self, lab: Lab, tmp_path: Path) -> None:
        again = lab.load(self.export(lab, tmp_path).path)
        assert [layer.name for layer in again.layers()] == [layer.name for layer in lab.model.layers()]

    def test_one_model_gives_the_same_bytes_twice(self, lab: Lab, tmp_path: Path) -> None:
        (tmp_path / "one").mkdir()
        (tmp_path / "two").mkdir()
        first, second = self.export(lab, tmp_path / "one"), self.export(lab, tmp_path / "two")
        assert sha256(first.path) == sha256(second.path)

    def test_writing_leaves_the_model_as_it_was(self, lab: Lab, tmp_path: Path) -> None:
        model = lab.load(lab.path)
        self.export(lab, tmp_path, model)
        assert sqnr_db(lab.outputs, lab.answers(model)) >= self.untouched_db

    def test_files_beside_the_artifact_are_named_after_it(self, lab: Lab, tmp_path: Path) -> None:
        folder = tmp_path / "alone"
        folder.mkdir()
        artifact = self.export(lab, folder)
        assert all(path.name.startswith(artifact.path.name) for path in folder.iterdir())

    def test_nothing_is_left_lying_about(self, lab: Lab, tmp_path: Path, isolated: Isolation) -> None:
        self.export(lab, tmp_path)
        assert list(isolated.folder.iterdir()) == []

    def test_a_model_of_another_format_is_an_error_of_ours(self, lab: Lab, tmp_path: Path) -> None:
        with pytest.raises(QmError):
            self.export(lab, tmp_path, Stranger())


class Stranger(Model):
    """A model of a format that nobody writes."""

    format: ClassVar[str] = "stranger"

    @property
    def native(self) -> None:
        """Nothing."""
        return

    def inputs(self) -> list[TensorSpec]:
        """None."""
        return []

    def outputs(self) -> list[TensorSpec]:
        """None."""
        return []

    def nbytes(self) -> int:
        """None."""
        return 0
