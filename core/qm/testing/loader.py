"""What a loader promises."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from qm.errors import QmError, UsageError
from qm.file import sha256
from qm.plugin import Can, Card, Loader, LoadJob, Model, Unsupported
from qm.testing.contract import Contract
from qm.testing.fixture import Isolation
from qm.testing.lab import Lab, sqnr_db


def _missing(path: Path, whole: bytes) -> None:
    pass


def _folder(path: Path, whole: bytes) -> None:
    path.mkdir()


BROKEN: dict[str, Callable[[Path, bytes], Any]] = {
    "missing": _missing,
    "empty": lambda path, whole: path.write_bytes(b""),
    "random": lambda path, whole: path.write_bytes(np.random.default_rng(0).bytes(4096)),
    "text": lambda path, whole: path.write_text("This is a letter, not a model.\n" * 20, encoding="utf-8"),
    "truncated": lambda path, whole: path.write_bytes(whole[: len(whole) // 2]),
    "a folder": _folder,
}


class LoaderContract(Contract):
    """A loader: ``method`` is the card's full name; ``names`` the layers of the model in order, where you know them."""

    kind: ClassVar[type[Card]] = Loader
    names: ClassVar[Sequence[str] | None] = None

    def load(self, lab: Lab, path: Path) -> Model:
        """The model of a path, by the loader under test."""
        model: Model = lab.card.implementation()(LoadJob(path=path, options=lab.found.options(dict(self.options))))
        return model

    def needs(self, lab: Lab, can: Can) -> None:
        """Skip the test where the card does not declare ``can``."""
        if can not in lab.card.can:
            pytest.skip(f"{self.method} does not declare {can}")

    def needs_a_file(self, lab: Lab) -> None:
        """Skip the test where the model is a function's, so that there is no file of it."""
        if not lab.path.exists():
            pytest.skip("the model comes from a function")

    def test_the_suffix_leads_to_the_loader(self, lab: Lab) -> None:
        assert lab.catalog.loader(lab.path, gives={lab.card.gives}).plugin == self.method

    def test_the_format_is_the_one_declared(self, lab: Lab) -> None:
        assert self.load(lab, lab.path).format == lab.card.gives

    def test_inputs_and_outputs_have_names_shapes_and_types(self, lab: Lab) -> None:
        self.needs(lab, Can.RUN)
        model = self.load(lab, lab.path)
        assert model.inputs() and model.outputs()
        for spec in (*model.inputs(), *model.outputs()):
            assert spec.name
            np.dtype(spec.dtype)

    def test_the_size_is_told(self, lab: Lab) -> None:
        assert self.load(lab, lab.path).nbytes() > 0

    def test_the_repr_is_one_short_line(self, lab: Lab) -> None:
        text = repr(self.load(lab, lab.path))
        assert "\n" not in text and len(text) < 200

    def test_loading_leaves_the_file_as_it_was_and_no_other(self, lab: Lab, isolated: Isolation) -> None:
        self.needs_a_file(lab)
        before = sha256(lab.path), sorted(lab.path.parent.iterdir())
        self.load(lab, lab.path)
        assert (sha256(lab.path), sorted(lab.path.parent.iterdir())) == before
        assert list(isolated.folder.iterdir()) == []

    def test_loading_uses_no_network(self, lab: Lab, isolated: Isolation) -> None:
        self.load(lab, lab.path)
        assert isolated.connections == []

    def test_loading_unpickles_nothing(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        called: list[str] = []
        self.load(lab, lab.path)  # so that what a framework unpickles of its own at import is not counted
        for name in ("load", "loads", "Unpickler"):
            monkeypatch.setattr(pickle, name, _forbidden(name, called))
        self.load(lab, lab.path)
        assert called == [], "a pickle can run any code: read the file's data only"

    @pytest.mark.parametrize("case", sorted(BROKEN))
    def test_a_broken_file_is_a_usage_error_with_a_hint(self, lab: Lab, tmp_path: Path, case: str) -> None:
        self.needs_a_file(lab)
        if lab.path.is_dir() and case == "truncated":
            pytest.skip("the model is a folder")
        path = tmp_path / f"broken{lab.path.suffix}"
        BROKEN[case](path, b"" if lab.path.is_dir() else lab.path.read_bytes())
        with pytest.raises(UsageError) as caught:
            self.load(lab, path)
        assert path.name in caught.value.message, "the message does not name the file"
        assert caught.value.hint, "the error has no hint"

    def test_layers_have_names_of_their_own_kinds_and_weights(self, lab: Lab) -> None:
        self.needs(lab, Can.LAYERS)
        layers = self.load(lab, lab.path).layers()
        assert layers, "the contract's model has no layers"
        assert len({layer.name for layer in layers}) == len(layers)
        assert all(layer.name and layer.kind and layer.weights > 0 and layer.macs >= 0 for layer in layers)

    def test_layers_are_the_same_in_two_loads(self, lab: Lab) -> None:
        self.needs(lab, Can.LAYERS)
        assert list(self.load(lab, lab.path).layers()) == list(self.load(lab, lab.path).layers())

    def test_layers_come_in_the_order_expected(self, lab: Lab) -> None:
        self.needs(lab, Can.LAYERS)
        if self.names is None:
            pytest.skip("the contract names no layers")
        assert [layer.name for layer in self.load(lab, lab.path).layers()] == list(self.names)

    def test_tied_layers_are_two_or_more(self, lab: Lab) -> None:
        self.needs(lab, Can.LAYERS)
        tied = [layer.tied for layer in self.load(lab, lab.path).layers() if layer.tied]
        assert all(tied.count(name) > 1 for name in tied)

    def test_a_run_gives_the_declared_outputs(self, lab: Lab) -> None:
        self.needs(lab, Can.RUN)
        model = self.load(lab, lab.path)
        outputs = model.run(lab.samples[0])
        assert list(outputs) == [spec.name for spec in model.outputs()]
        for spec in model.outputs():
            assert np.isfinite(outputs[spec.name]).all()
            assert outputs[spec.name].dtype == np.dtype(spec.dtype)

    def test_two_runs_give_the_same(self, lab: Lab) -> None:
        self.needs(lab, Can.RUN)
        model = self.load(lab, lab.path)
        assert sqnr_db(lab.answers(model), lab.answers(model)) == math.inf

    def test_an_input_that_is_missing_is_an_error_of_ours(self, lab: Lab) -> None:
        self.needs(lab, Can.RUN)
        with pytest.raises(QmError):
            self.load(lab, lab.path).run({})

    def test_watched_layers_give_their_activations(self, lab: Lab) -> None:
        self.needs(lab, Can.ACTIVATIONS)
        model = self.load(lab, lab.path)
        names = [layer.name for layer in model.layers()]
        seen = model.run(lab.samples[0], watch=names)
        assert set(names) <= set(seen), f"not seen: {sorted(set(names) - set(seen))}"
        assert all(np.isfinite(seen[name]).all() for name in names)

    def test_watching_does_not_change_the_outputs(self, lab: Lab) -> None:
        self.needs(lab, Can.ACTIVATIONS)
        model = self.load(lab, lab.path)
        names = [layer.name for layer in model.layers()]
        alone, watched = model.run(lab.samples[0]), model.run(lab.samples[0], watch=names)
        assert sqnr_db(list(alone.values()), [watched[name] for name in alone]) >= self.untouched_db

    def test_watching_a_layer_that_is_not_there_is_an_error_of_ours(self, lab: Lab) -> None:
        self.needs(lab, Can.ACTIVATIONS)
        with pytest.raises(QmError, match="no-such-layer"):
            self.load(lab, lab.path).run(lab.samples[0], watch=["no-such-layer"])

    def test_every_layer_of_a_float_model_is_in_float(self, lab: Lab) -> None:
        self.needs(lab, Can.SCHEMES)
        model = self.load(lab, lab.path)
        assert {name: str(scheme) for name, scheme in model.schemes().items()} == {
            layer.name: "float" for layer in model.layers()
        }

    def test_what_is_not_declared_is_unsupported(self, lab: Lab) -> None:
        model = self.load(lab, lab.path)
        deeds: dict[Can, Callable[[], Any]] = {
            Can.LAYERS: model.layers,
            Can.SCHEMES: model.schemes,
            Can.RUN: lambda: model.run(lab.samples[0]),
        }
        for can, deed in deeds.items():
            if can not in lab.card.can:
                with pytest.raises(Unsupported):
                    deed()


def _forbidden(name: str, called: list[str]) -> Callable[..., Any]:
    def forbidden(*args: object, **kwargs: object) -> Any:
        called.append(name)
        raise AssertionError(f"pickle.{name} was called")

    return forbidden
