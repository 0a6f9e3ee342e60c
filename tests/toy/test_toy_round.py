"""Rounding to the nearest integer."""

import numpy as np
import pytest

from qm.errors import Unsupported, UsageError
from qm.plugin import Plan, QuantizeJob, Scheme
from qm_toy.plugin import RoundOptions
from qm_toy.round import quantize, round_nearest
from qm_toy.sample import model


class Samples(list):
    labels = None


SAMPLES = Samples({"x": np.random.default_rng(i).normal(size=(1, 16)).astype(np.float32)} for i in range(4))


def rounded(plan, *, given=None, data=SAMPLES, **options):
    plan = Plan({name: Scheme.parse(text) for name, text in plan.items()})
    return quantize(QuantizeJob(model=given or model(), plan=plan, data=data, options=RoundOptions(**options)))


@pytest.mark.parametrize("bits", [4, 8])
def test_a_weight_moves_by_half_a_step_at_most(bits):
    w = np.random.default_rng(0).normal(size=(8, 100)).astype(np.float32)
    packed = round_nearest(w, bits)
    assert (np.abs(packed.values() - w) <= packed.scale / 2 * 1.0001).all()


def test_the_error_is_that_of_a_uniform_distribution():
    w = np.random.default_rng(0).uniform(-1, 1, size=(1, 10_000)).astype(np.float32)
    packed = round_nearest(w, 8)
    # Round-to-nearest moves a weight by at most half a step, so the mean square is step**2 / 12.
    assert np.square(packed.values() - w).mean() == pytest.approx(packed.scale.item() ** 2 / 12, rel=0.05)


def test_the_largest_weight_of_each_row_is_kept():
    w = np.array([[1.0, -127.0], [0.5, 0.25]], np.float32)
    assert round_nearest(w, 8).integers().tolist() == [[1, -127], [127, 64]]


def test_clipping_makes_the_steps_finer():
    w = np.array([[1.0, 0.5]], np.float32)
    assert round_nearest(w, 8, clip=0.5).scale.item() == pytest.approx(0.5 / 127)


def test_a_row_of_zeros_stays_zero():
    assert round_nearest(np.zeros((1, 3), np.float32), 8).values().tolist() == [[0.0, 0.0, 0.0]]


def test_the_clip_option_reaches_the_weights():
    whole, half = rounded({"head": "w8"}), rounded({"head": "w8"}, clip=0.5)
    assert np.array_equal(half.native[2].weight.scale * 2, whole.native[2].weight.scale)


def test_a_static_range_holds_every_sample():
    span = rounded({"second": "w8a8"}).native[1].span
    seen = np.concatenate([model().run(batch, watch=["first"])["first"] for batch in SAMPLES])
    assert span == (0.0, float(seen.max()))


def test_a_static_range_without_samples_is_refused():
    with pytest.raises(UsageError, match="layer 'head' needs samples"):
        rounded({"head": "w8a8"}, data=None)


def test_nan_in_a_sample_is_named():
    bad = Samples([*SAMPLES, {"x": np.full((1, 16), np.nan)}])
    with pytest.raises(UsageError, match="sample 4 holds NaN or infinity"):
        rounded({"head": "w8a8"}, data=bad)


def test_a_quantized_layer_is_not_quantized_again():
    once = rounded({"head": "w8"})
    with pytest.raises(UsageError, match="layer 'head' is in 'w8' already"):
        rounded({"head": "w4"}, given=once)


def test_a_quantized_model_can_have_its_other_layers_quantized():
    twice = rounded({"first": "w4"}, given=rounded({"head": "w8"}))
    assert [str(scheme) for scheme in twice.schemes().values()] == ["w4", "float", "w8"]


def test_layers_that_share_a_weight_must_agree():
    with pytest.raises(UsageError, match=r"'second' and 'third' share one weight, .* in 'w8' and 'float'"):
        rounded({"second": "w8"}, given=model(tied=True))


def test_an_unknown_scheme_lists_those_on_offer():
    with pytest.raises(Unsupported, match="'head' cannot be brought to 'w3'") as caught:
        rounded({"head": "w3"})
    assert caught.value.hint == "Choose among: w4, w8, w8a8, w8d8."
