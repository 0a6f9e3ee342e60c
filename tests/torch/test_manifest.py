"""What an artifact says of itself comes back as it was."""

from __future__ import annotations

import dataclasses
import json

import pytest

from qm.plugin import Scheme, Unsupported
from qm_torch import description, shape
from qm_torch.description import manifest
from qm_torch.manifest import Manifest
from qm_torch.model import TorchModel


def test_a_manifest_is_read_as_it_was_written(small):
    told = manifest(small, isa=("AVX2",))
    assert Manifest.parse(told.text()) == told


def test_it_names_what_the_program_has(words):
    told = manifest(words)
    assert [port.spec for port in told.inputs] == list(words.inputs())
    assert [port.spec for port in told.outputs] == list(words.outputs())
    assert told.layers == words.layers()
    assert told.schemes == words.schemes()


def test_a_free_length_without_bound_has_a_lowest_of_one(small):
    told = manifest(small)
    assert list(told.limits.values()) == [(1, shape.MOST)]


def test_schemes_survive(small):
    told = dataclasses.replace(manifest(small), schemes={"head": Scheme.parse("w8d8")})
    assert Manifest.parse(told.text()).schemes["head"] == Scheme.parse("w8d8")


def test_a_later_version_is_refused(small):
    later = json.dumps({**json.loads(manifest(small).text()), "version": 99})
    with pytest.raises(ValueError, match="version 99"):
        Manifest.parse(later)


def test_a_text_that_lacks_something_is_refused():
    with pytest.raises(ValueError, match="lacks"):
        Manifest.parse('{"version": 1}')


def test_a_model_with_a_memory_is_refused(tmp_path):
    import torch
    from torch import nn

    from qm.plugin import ExportJob

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(1))
            self.fc = nn.Linear(2, 2)

        def forward(self, x):
            self.count.add_(1)
            return self.fc(x) + self.count

    model = TorchModel(torch.export.export(Counting().eval(), (torch.zeros(1, 2),)), name="counting")
    with pytest.raises(Unsupported, match="'counting' changes 'count' at every run"):
        description.torch_model(ExportJob(model=model, path=tmp_path / "x.pt2"))
