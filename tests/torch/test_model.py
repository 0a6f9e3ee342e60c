"""An exported program as a model: ends, sizes, answers, activations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.fx import Interpreter

from qm.errors import Unsupported, UsageError
from qm.types import TensorSpec
from qm_torch.model import TorchModel


def exported(module, *inputs, **more):
    return TorchModel(torch.export.export(module.eval(), inputs, **more), name="net")


def image(count=1, size=8):
    return {"image": np.random.default_rng(0).normal(size=(count, 3, size, size)).astype(np.float32)}


def test_inputs_have_the_names_of_the_arguments_and_free_lengths(small):
    assert small.inputs() == (TensorSpec(name="image", shape=(None, 3, 8, 8), dtype="float32"),)


def test_one_output_is_numbered_and_many_have_their_keys(small, words):
    assert [s.name for s in small.outputs()] == ["output_0"]
    assert words.outputs() == (
        TensorSpec(name="logits", shape=(None, 5, 50), dtype="float32"),
        TensorSpec(name="hidden", shape=(None, 5, 12), dtype="float32"),
    )


def test_outputs_in_a_tuple_are_numbered():
    class Net(nn.Module):
        def forward(self, x):
            return x + 1, [x + 2, x + 3]

    model = exported(Net(), torch.zeros(2))
    assert [s.name for s in model.outputs()] == ["output_0", "output_1", "output_2"]
    assert [float(v[0]) for v in model.run({"x": np.zeros(2, np.float32)}).values()] == [1.0, 2.0, 3.0]


def test_what_is_no_tensor_is_neither_input_nor_output():
    class Net(nn.Module):
        def forward(self, x, factor, also=None):
            return {"y": x * factor, "factor": factor, "none": also}

    model = exported(Net(), torch.ones(2), 3)
    assert [s.name for s in model.inputs()] == ["x"]
    assert {name: v.tolist() for name, v in model.run({"x": np.ones(2, np.float32)}).items()} == {"y": [3.0, 3.0]}


def test_a_run_answers_as_the_program_does(small):
    batch = image(3)
    expected = small.native.module()(torch.from_numpy(batch["image"])).detach().numpy()
    assert np.array_equal(small.run(batch)["output_0"], expected)


def test_arrays_of_another_type_are_converted(words):
    answers = words.run({"ids": np.ones((1, 5), np.int32)})
    assert answers["logits"].shape == (1, 5, 50)


def test_watching_changes_no_output(small):
    batch = image(2)
    watched = small.run(batch, watch=["stem.0", "body", "head"])
    assert np.array_equal(watched["output_0"], small.run(batch)["output_0"])


def test_an_activation_is_behind_normalization_and_its_bound(small):
    batch = image()
    seen = small.run(batch, watch=["stem.0", "body"])
    state = small.native.state_dict
    x = nn.functional.conv2d(torch.from_numpy(batch["image"]), state["stem.0.weight"], padding=1)
    mean, var = small.native.state_dict["stem.1.running_mean"], small.native.state_dict["stem.1.running_var"]
    x = nn.functional.batch_norm(x, mean, var, state["stem.1.weight"], state["stem.1.bias"]).relu()
    # Exact: the same kernels on the same numbers.
    assert np.array_equal(seen["stem.0"], x.detach().numpy())
    y = nn.functional.relu6(nn.functional.conv2d(x, state["body.weight"], state["body.bias"], stride=2))
    assert np.array_equal(seen["body"], y.detach().numpy())


def test_an_activation_that_others_read_too_is_the_layers_own():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x):
            y = self.fc(x)
            return y.relu() + y

    model = exported(Net(), torch.zeros(1, 2))
    state = model.native.state_dict
    x = np.array([[1.0, -2.0]], np.float32)
    expected = nn.functional.linear(torch.from_numpy(x), state["fc.weight"], state["fc.bias"]).detach().numpy()
    assert np.array_equal(model.run({"x": x}, watch=["fc"])["fc"], expected)


def test_an_activation_is_kept_as_it_was_when_others_write_into_it():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x):
            return self.fc(x).add_(100.0)

    model = exported(Net(), torch.zeros(1, 2))
    assert np.abs(model.run({"x": np.ones((1, 2), np.float32)}, watch=["fc"])["fc"]).max() < 50


def test_the_size_counts_what_the_program_reads_once(words):
    # The tied table once (50 * 12), a dense layer with its bias (12 * 12 + 12).
    assert words.nbytes() == 4 * (50 * 12 + 12 * 12 + 12)


def test_originals_that_a_quantized_program_no_longer_reads_are_not_counted():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.used = nn.Parameter(torch.zeros(10))
            self.left = nn.Parameter(torch.zeros(1000))

        def forward(self, x):
            return x + self.used

    assert exported(Net(), torch.zeros(10)).nbytes() == 40


def test_an_unknown_layer_is_named(small):
    with pytest.raises(UsageError, match="the model has no layer 'tail'"):
        small.run(image(), watch=["tail"])


def test_a_missing_input_is_named(small):
    with pytest.raises(UsageError, match="the samples lack the input 'image' of model 'small'"):
        small.run({"picture": np.zeros((1, 3, 8, 8), np.float32)})


@pytest.mark.parametrize("shape", [(1, 3, 8, 9), (1, 4, 8, 8), (3, 8, 8), (0, 3, 8, 8)])
def test_a_shape_that_the_program_does_not_take_is_named(small, shape):
    batch = {"image": np.zeros(shape, np.float32)}
    for watch in ([], ["body"]):
        with pytest.raises(UsageError) as e:
            small.run(batch, watch=watch)
        sentence = f"the samples have 'image' as {list(shape)}, and model 'small' takes float32 [any, 3, 8, 8]"
        assert e.value.message == sentence
        assert "torch.export.Dim" in e.value.hint


@pytest.mark.parametrize(("length", "told"), [(1, "3 to 4"), (9, "3 to 4")])
def test_a_length_outside_its_range_is_one_sentence(length, told):
    model = exported(nn.Linear(2, 2), torch.zeros(3, 2), dynamic_shapes=({0: Dim("batch", min=3, max=4)},))
    with pytest.raises(UsageError, match=rf"as \[{length}, 2\], and model 'net' takes float32 \[{told}, 2\]"):
        model.run({"input": np.zeros((length, 2), np.float32)})


def test_one_sample_is_taken_though_compilers_keep_0_and_1_out_of_what_varies():
    model = exported(nn.Linear(2, 2), torch.zeros(3, 2), dynamic_shapes=({0: Dim("batch", min=2)},))
    assert model.run({"input": np.zeros((1, 2), np.float32)})["output_0"].shape == (1, 2)


class Paired(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, a, b):
        return self.fc(a) + b


def test_lengths_that_must_be_equal_are_held_against_each_other():
    batch = Dim("batch")
    model = exported(Paired(), torch.zeros(3, 2), torch.zeros(3, 2), dynamic_shapes=({0: batch}, {0: batch}))
    with pytest.raises(UsageError, match=r"have 'b' as \[5, 2\], and model 'net' takes float32 \[4 as in 'a', 2\]"):
        model.run({"a": np.zeros((4, 2), np.float32), "b": np.zeros((5, 2), np.float32)})


def test_shapes_are_checked_where_the_program_has_no_guards_of_its_own(small, monkeypatch):
    """PyTorch writes none for callers in certain folders."""
    unguarded = small.program.module(check_guards=False)
    monkeypatch.setitem(small.__dict__, "module", unguarded)
    made = Interpreter(unguarded).run(torch.zeros(1, 3, 10, 10), enable_io_processing=False)
    assert made[0].shape == (1, 4), "an image of another size runs, so that nobody else refuses it"
    with pytest.raises(UsageError, match="the samples have 'image' as"):
        small.run(image(size=10), watch=["body"])


def test_what_pytorch_itself_expects_of_shapes_is_one_sentence(monkeypatch):
    model = exported(nn.Linear(2, 2), torch.zeros(4, 2), dynamic_shapes=({0: 2 * Dim("half")},))
    monkeypatch.setitem(model.__dict__, "module", model.program.module(check_guards=False))
    with pytest.raises(UsageError, match=r"do not fit model 'net', which expects input .* of the form 2\*") as e:
        model.run({"input": np.zeros((5, 2), np.float32)})
    assert "torch.export.Dim" in e.value.hint


def test_a_number_that_varies_is_no_input():
    class Net(nn.Module):
        def forward(self, x, n):
            return x * n

    shapes = {"x": None, "n": Dim.DYNAMIC}
    model = exported(Net(), torch.ones(2), 3, dynamic_shapes=shapes)
    with pytest.raises(Unsupported, match="takes 'n', which is a number that varies and no tensor"):
        model.run({"x": np.ones(2, np.float32)})


def test_a_program_that_keeps_state_gives_no_state_away():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x):
            self.count.add_(1)
            return x + self.count

    model = exported(Counter(), torch.zeros(1))
    assert [s.name for s in model.outputs()] == ["output_0"]


def test_another_program_keeps_name_and_notes(small):
    other = small.with_program(small.program, "folded")
    assert (other.name, other.notes) == ("small", ("folded",))


def test_the_repr_is_one_line(small):
    assert repr(small) == f"<TorchModel torch, {small.nbytes():,} bytes>"
