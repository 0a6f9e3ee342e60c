"""The toy's arithmetic."""

import numpy as np
import pytest

from qm.errors import UsageError
from qm.plugin import Activations
from qm_toy.model import Dense, ToyModel, quantize_activations
from qm_toy.sample import model
from qm_toy.weight import Float, Packed


def dense(weight, *, activations=Activations.FLOAT, span=None, relu=False, name="a"):
    bias = np.zeros(weight.shape[0], np.float32)
    return Dense(name=name, tensor=name, weight=weight, bias=bias, relu=relu, activations=activations, span=span)


def test_a_layer_multiplies_adds_and_cuts_at_zero():
    weight = Float(array=np.array([[1.0, 2.0], [-3.0, 0.0]], np.float32))
    layer = Dense(name="a", tensor="a", weight=weight, bias=np.array([0.5, 1.0], np.float32), relu=True)
    assert layer.run(np.array([[1.0, 1.0]], np.float32)).tolist() == [[3.5, 0.0]]


def test_zero_is_exact_in_quantized_activations():
    integers, _ = quantize_activations(np.array([[0.0, 0.3, 5.0]]), np.array(-1.0), np.array(5.0))
    assert integers[0, 0] == 0


def test_activations_outside_the_static_span_are_cut():
    integers, scale = quantize_activations(np.array([[100.0]]), np.array(0.0), np.array(5.1))
    assert (integers * scale).item() == pytest.approx(5.1, rel=1e-6)


def test_an_activation_moves_by_half_a_step_at_most():
    x = np.random.default_rng(0).uniform(-1, 1, size=(1, 1000))
    integers, scale = quantize_activations(x, np.array(-1.0), np.array(1.0))
    # The zero point is rounded too, which moves the ends of the range by half a step more.
    assert np.abs(integers * scale - x).max() <= scale * 1.001


def test_integer_kernels_are_exact_where_the_inputs_are_integers():
    rng = np.random.default_rng(0)
    integers = rng.integers(-127, 128, size=(4, 8))
    x = np.concatenate([[0, 255], rng.integers(0, 256, size=6)])[None].astype(np.float32)
    layer = dense(Packed.pack(integers, np.ones((1, 1)), 8), activations=Activations.STATIC, span=(0.0, 255.0))
    assert layer.run(x).tolist() == (x @ integers.T).tolist()


def test_scales_of_groups_apply_in_the_integer_kernel():
    rng = np.random.default_rng(0)
    packed = Packed.pack(rng.integers(-8, 8, size=(4, 8)), rng.uniform(0.5, 2, size=(4, 2)), 4)
    x = np.arange(8, dtype=np.float32)[None] * 51
    layer = dense(packed, activations=Activations.STATIC, span=(0.0, 255.0))
    assert layer.run(np.minimum(x, 255)) == pytest.approx(np.minimum(x, 255) @ packed.values().T, rel=1e-5)


def test_a_dynamic_range_belongs_to_the_sample_not_to_the_batch():
    packed = Packed.pack(np.random.default_rng(0).integers(-127, 128, size=(4, 8)), np.ones((1, 1)), 8)
    layer = dense(packed, activations=Activations.DYNAMIC)
    small = np.random.default_rng(1).normal(size=(1, 8)).astype(np.float32)
    assert np.array_equal(layer.run(np.concatenate([small, small * 1000]))[:1], layer.run(small))


def test_integer_layers_say_so():
    packed = Packed.pack(np.zeros((2, 2), int), np.ones((1, 1)), 8)
    assert dense(packed, activations=Activations.DYNAMIC).is_integer
    assert not dense(packed).is_integer


def test_a_shared_weight_is_counted_once():
    alone, shared = model(), model(tied=True)
    bias = alone.native[1].bias.nbytes
    assert shared.nbytes() == alone.nbytes() + bias


def test_watched_layers_come_after_the_output():
    seen = model().run({"x": np.zeros((2, 16), np.float32)}, watch=["second"])
    assert list(seen) == ["y", "second"]
    assert seen["second"].shape == (2, 64)


def test_an_input_of_a_wrong_shape_says_what_was_expected_and_what_came():
    with pytest.raises(UsageError, match=r"'x float32 \[\?, 16\]' got shape \[1, 3\]"):
        model().run({"x": np.zeros((1, 3))})


def test_an_input_of_a_wrong_name_says_which_came():
    with pytest.raises(UsageError, match="the input 'x' is missing: image came"):
        model().run({"image": np.zeros((1, 16))})


def test_the_repr_shows_no_numbers_but_the_size():
    assert repr(ToyModel([dense(Float(array=np.zeros((2, 2), np.float32)))])) == "<ToyModel toy, 24 bytes>"
