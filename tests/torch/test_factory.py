"""A function that makes a module is a model too, with weights from a file that is not unpickled."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

import qm
from qm.errors import NotReady, Unsupported, UsageError

NET = """
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.drop = nn.Dropout()
            self.head = nn.Linear(8, 4)

        def forward(self, image):
            return self.head(self.drop(self.conv(image).relu().mean((2, 3))))

    def net():
        torch.manual_seed(0)
        return Net(), (torch.zeros(1, 3, 8, 8),)

    def module():
        return net()[0]
"""


def notes_of(name, **options):
    from pathlib import Path

    from qm.plugin import LoadJob, Notes
    from qm_torch.factory import load
    from qm_torch.option import FactoryOptions

    notes = Notes()
    load(LoadJob(path=Path(name), options=FactoryOptions(**options), notes=notes))
    return notes


def test_a_function_in_the_current_folder_makes_a_model(nets):
    nets(NET)
    model = qm.load("nets:net")
    assert model.format == "torch"
    assert [layer.name for layer in model.layers()] == ["conv", "head"]


def test_the_batch_is_free_where_the_module_allows_it(nets):
    nets(NET)
    assert qm.load("nets:net").inputs()[0].shape == (None, 3, 8, 8)
    assert notes_of("nets:net") == []


def test_the_module_is_exported_as_it_predicts_not_as_it_trains(nets):
    nets(NET)
    model = qm.load("nets:net")
    batch = {"image": np.ones((1, 3, 8, 8), np.float32)}
    assert np.array_equal(model.run(batch)["output_0"], model.run(batch)["output_0"])


def test_a_batch_that_the_code_fixes_stays_fixed_and_the_line_is_named(nets):
    nets("""
    class Net(nn.Module):
        def forward(self, x):
            return x.reshape(2, 4) * 2

    def net():
        return Net(), torch.zeros(2, 4)
    """)
    assert qm.load("nets:net").inputs()[0].shape == (2, 4)
    assert notes_of("nets:net") == ["the batch is fixed at 2: the module's own code fixes it (nets.py, line 7)"]


def test_inputs_without_a_common_first_length_stay_as_they_are(nets):
    nets("""
    class Net(nn.Module):
        def forward(self, x, y):
            return x + y

    def net():
        return Net(), (torch.zeros(2, 4), torch.zeros(1, 4))
    """)
    assert [s.shape for s in qm.load("nets:net").inputs()] == [(2, 4), (1, 4)]
    assert "do not share a first one" in notes_of("nets:net")[0]


def test_named_inputs_and_named_outputs_keep_their_names(nets):
    nets("""
    class Net(nn.Module):
        def forward(self, ids, mask):
            return {"sum": ids + mask, "parts": {"ids": ids * 2}}

    def net():
        return Net(), {"ids": torch.zeros(1, 4), "mask": torch.zeros(1, 4)}
    """)
    model = qm.load("nets:net")
    assert [s.name for s in model.inputs()] == ["ids", "mask"]
    assert [s.name for s in model.outputs()] == ["sum", "parts.ids"]


def test_a_function_may_export_the_module_itself(nets):
    nets(
        NET
        + """
    def program():
        return torch.export.export(module().eval(), (torch.zeros(3, 3, 8, 8),))
    """
    )
    assert qm.load("nets:program").inputs()[0].shape == (3, 3, 8, 8)
    with pytest.raises(UsageError, match="returns an exported program, which has its weights"):
        qm.load("nets:program", weights="w.safetensors")


def test_the_example_inputs_are_copies_of_their_own(nets):
    nets(
        NET
        + """
    def view():
        return module(), (torch.zeros(64, 3, 8, 8)[:1],)
    """
    )
    (example,), _ = qm.load("nets:view").native.example_inputs
    assert example.untyped_storage().nbytes() == example.nbytes


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_come_from_a_file(nets, tmp_path, suffix):
    save_file = pytest.importorskip("safetensors.torch").save_file

    nets(NET)
    state = qm.load("nets:net").native.state_dict
    state = {name: torch.full_like(value, 0.5) for name, value in state.items()}
    save_file(state, "w.safetensors") if suffix == ".safetensors" else torch.save(state, "w.pt")
    model = qm.load("nets:net", weights=f"w{suffix}")
    assert float(model.native.state_dict["head.weight"].detach().min()) == 0.5


def test_weights_that_do_not_fit_are_told_by_their_first_keys(nets):
    nets(NET)
    torch.save({"conv.weight": torch.zeros(8, 3, 5, 5), "a": torch.zeros(1), "b": torch.zeros(1)}, "w.pt")
    with pytest.raises(UsageError) as e:
        qm.load("nets:net", weights="w.pt")
    assert e.value.message == (
        "weights 'w.pt' do not fit the module: they lack conv.bias, head.weight, head.bias, and have no place for a, "
        "b, and have other shapes for conv.weight ([8, 3, 5, 5], not [8, 3, 3, 3])"
    )


class Payload:
    def __reduce__(self):
        return os.mkdir, ("payload",)


def test_weights_with_a_payload_are_refused_and_nothing_of_them_runs(nets, tmp_path):
    nets(NET)
    torch.save({"conv.weight": Payload()}, "w.pt")
    with pytest.raises(UsageError, match="hold more than tensors, and unpickling that can run code from the file") as e:
        qm.load("nets:net", weights="w.pt")
    assert "safetensors" in e.value.hint
    assert not (tmp_path / "payload").exists()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("no.pt", None, "do not exist"),
        ("w.pt", b"abc", "are damaged|hold more than tensors"),
        ("w.safetensors", b"abc", "are damaged"),
    ],
)
def test_weights_that_cannot_be_read_are_named(nets, name, content, sentence):
    nets(NET)
    if content is not None:
        with open(name, "wb") as f:
            f.write(content)
    with pytest.raises(UsageError, match=f"weights '{name}' ({sentence})"):
        qm.load("nets:net", weights=name)


BAD = """
    class Branch(nn.Module):
        def forward(self, x):
            if x.sum() > 0:
                return x
            return x * 2

    def branch(): return Branch(), torch.zeros(1, 4)
    def raises(): raise ValueError("no luck")
    def nothing(): pass
    def number(): return 5
    def alone(): return nn.Linear(2, 2)
    def text(): return nn.Linear(2, 2), "x"
    def shape(): return nn.Linear(2, 2), torch.zeros(1, 3)
    def script(): return torch.jit.script(nn.Linear(2, 2)), torch.zeros(1, 2)
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("raises", "function 'nets:raises' raised ValueError: no luck"),
        ("nothing", "function 'nets:nothing' returns None, not a module"),
        ("number", "returns a value of type int, not a module"),
        ("alone", "returns a module without example inputs"),
        ("text", "returns a value of type str as example inputs, no tensors"),
        ("shape", "cannot be run on its example inputs: RuntimeError: mat1 and mat2"),
        ("script", "returns TorchScript, which cannot be exported"),
        ("numbr", "module 'nets' has no function 'numbr'"),
    ],
)
def test_a_function_that_makes_no_model_is_told_why(nets, name, sentence):
    nets(BAD)
    with pytest.raises(UsageError, match=sentence) as e:
        qm.load(f"nets:{name}")
    assert e.value.hint


def test_control_flow_on_values_is_refused_by_its_line(nets, capfd):
    nets(BAD)
    with pytest.raises(Unsupported) as e:
        qm.load("nets:branch")
    assert e.value.message == (
        "the module of 'nets:branch' cannot be exported: what it does depends on the values of its inputs "
        "(nets.py, line 7)"
    )
    assert capfd.readouterr() == ("", ""), "PyTorch's own account of it stays off the screen"


def test_a_module_that_is_not_there_is_named(nets):
    with pytest.raises(UsageError, match="there is no module 'nowhere'"):
        qm.load("nowhere:net")


def test_an_unknown_option_is_refused_before_anything_is_loaded(nets):
    with pytest.raises(UsageError, match=r"torch\.factory has no option 'wieghts'"):
        qm.load("nets:net", wieghts="w.pt")


def test_two_loads_have_one_digest_and_other_weights_another(nets):
    nets(NET)
    first = qm.load("nets:net").digest()
    state = {n: v + 1 for n, v in qm.load("nets:net").native.state_dict.items()}
    torch.save(state, "w.pt")
    assert qm.load("nets:net").digest() == first
    assert qm.load("nets:net", weights="w.pt").digest() != first


def test_without_pytorch_the_error_says_what_to_install(nets, monkeypatch):
    import importlib.metadata

    real = importlib.metadata.distribution

    def without(name):
        if name == "torch":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "distribution", without)
    with pytest.raises(NotReady, match=r"torch\.factory needs torch, which is not installed") as e:
        qm.load("nets:net")
    assert "pip install 'quantized-model[torch]'" in e.value.hint


@pytest.mark.parametrize(("scheme", "least_db"), [("w8", 35), ("w4g32", 15)])
def test_quantized_weights_come_from_a_file_as_floats(nets, scheme, least_db):
    """What tensors.weights makes of a module's weights goes into the module again."""
    save_file = pytest.importorskip("safetensors.torch").save_file
    nets(
        """
    import torch
    def net():
        torch.manual_seed(0)
        layers = torch.nn.Linear(72, 17), torch.nn.ReLU(), torch.nn.Linear(17, 8)
        return torch.nn.Sequential(*layers), (torch.ones(3, 72),)
    """
    )
    before = qm.load("nets:net").native.state_dict
    save_file({name: value.detach().contiguous() for name, value in before.items()}, "w.safetensors")
    qm.quantize("w.safetensors", ["tensors.weights"], scheme=scheme, to="q.safetensors")
    after = qm.load("nets:net", weights="q.safetensors").native.state_dict
    assert torch.equal(after["2.weight"], before["2.weight"]), "17 columns fill no words"
    error = after["0.weight"] - before["0.weight"]
    assert 20 * torch.log10(before["0.weight"].norm() / error.norm()) > least_db
