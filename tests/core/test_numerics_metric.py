"""How far outputs are apart, at once and in a stream."""

import math

import numpy as np
import pytest

from qm.numerics import Comparison, cosine, slice_sqnr_db, sqnr_db, top1_agreement


def test_a_tenth_of_the_amplitude_in_noise_is_20_db():
    x = np.array([1, -2, 3], np.float32)
    assert sqnr_db(x, x * np.float32(1.1)) == pytest.approx(20, abs=1e-4)  # 1.1 is not exact in float32


def test_identical_arrays_have_no_noise():
    assert sqnr_db(np.ones(3), np.ones(3)) == math.inf
    assert sqnr_db(np.zeros(3), np.zeros(3)) == math.inf


def test_noise_without_signal_is_minus_infinity():
    assert sqnr_db(np.zeros(3), np.ones(3)) == -math.inf


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_sqnr_of_what_is_not_finite_cannot_be_said(bad):
    good, spoilt = np.array([1.0, 2.0]), np.array([1.0, bad])
    for pair in ((good, spoilt), (spoilt, good), (spoilt, spoilt)):
        assert math.isnan(sqnr_db(*pair))


def test_large_float32_values_do_not_overflow_in_their_squares():
    x = np.array([3e38], np.float32)
    assert sqnr_db(x, x / 2) == pytest.approx(20 * math.log10(2))


def test_arrays_of_different_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(2,\) and \(2, 1\)"):
        sqnr_db(np.ones(2), np.ones((2, 1)))


def test_slices_show_the_class_whose_scores_are_all_zero():
    boxes_and_score = np.random.default_rng(0).uniform(0, [300, 300, 1], (500, 3))
    broken = boxes_and_score * [1.01, 1.01, 0]
    assert sqnr_db(boxes_and_score, broken) > 35
    assert slice_sqnr_db(boxes_and_score, broken) == pytest.approx([40, 40, 0])


def test_slices_may_run_along_another_axis():
    x = np.ones((1, 2, 5))
    assert slice_sqnr_db(x, x * np.array([1.1, 1.01])[:, None], axis=1) == pytest.approx([20, 40])


def test_cosine_of_right_angles_and_of_scaled_vectors():
    assert cosine(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 0
    assert cosine(np.array([1.0, 2.0]), np.array([-2.0, -4.0])) == pytest.approx(-1)


def test_cosine_with_zero_is_zero_and_of_two_zeros_is_one():
    assert cosine(np.zeros(2), np.ones(2)) == 0
    assert cosine(np.zeros(2), np.zeros(2)) == 1


def test_top1_counts_rows():
    assert top1_agreement(np.eye(4), np.eye(4)[[0, 1, 2, 0]]) == 0.75


def test_nan_never_agrees():
    assert top1_agreement(np.eye(2), np.array([[1, 0], [0, np.nan]])) == 0.5


def noisy(count=12, shape=(1, 3, 10), seed=0):
    rng = np.random.default_rng(seed)
    reference = [{"y": rng.standard_normal(shape).astype(np.float32)} for _ in range(count)]
    other = [{"y": r["y"] + np.float32(0.1) * rng.standard_normal(shape).astype(np.float32)} for r in reference]
    return reference, other


def compared(reference, other):
    comparison = Comparison()
    for r, o in zip(reference, other, strict=True):
        comparison.update(r, o)
    return comparison


def test_a_stream_says_what_the_whole_would():
    reference, other = noisy()
    tally = compared(reference, other).outputs["y"]
    r, o = (np.concatenate([b["y"] for b in side]) for side in (reference, other))
    assert tally.sqnr_db == pytest.approx(sqnr_db(r, o))
    assert tally.cosine == pytest.approx(cosine(r, o))
    assert tally.agreement == pytest.approx(top1_agreement(r, o))
    assert tally.slice_sqnr_db[2] == pytest.approx(slice_sqnr_db(r, o))
    assert tally.slice_sqnr_db[1] == pytest.approx(slice_sqnr_db(r, o, axis=1))


def test_each_sample_is_remembered_by_its_figures():
    reference, other = noisy()
    tally = compared(reference, other).outputs["y"]
    pairs = [(r["y"], o["y"]) for r, o in zip(reference, other, strict=True)]
    assert tally.sample_sqnr_db == pytest.approx([sqnr_db(*p) for p in pairs])
    assert tally.sample_agreement == pytest.approx([top1_agreement(*p) for p in pairs])


def test_a_batch_counts_as_its_samples():
    reference, other = noisy()
    batch = [{"y": np.concatenate([b["y"] for b in side])} for side in (reference, other)]
    comparison = Comparison()
    comparison.update(*batch, samples=12)
    one_by_one = compared(reference, other)
    assert comparison.samples == 12
    assert comparison.outputs["y"].sample_sqnr_db == pytest.approx(one_by_one.outputs["y"].sample_sqnr_db)
    assert comparison.sqnr_db == pytest.approx(one_by_one.sqnr_db)


def test_a_batch_of_another_length_is_refused():
    with pytest.raises(ValueError, match="output 'y' has 2 and 2 rows, not 3"):
        Comparison().update({"y": np.ones((2, 1))}, {"y": np.ones((2, 1))}, samples=3)


def test_outputs_of_other_names_are_refused():
    with pytest.raises(ValueError, match=r"\['a'\] and \['b'\]"):
        Comparison().update({"a": np.ones(1)}, {"b": np.ones(1)})


def test_the_worst_output_speaks_for_all():
    x = np.arange(1.0, 5).reshape(1, 4)
    comparison = compared([{"good": x, "bad": x}], [{"good": x, "bad": x[:, ::-1]}])
    assert comparison.sqnr_db == comparison.outputs["bad"].sqnr_db < 10
    assert comparison.agreement == 0


def test_nan_from_the_other_model_is_not_lost_among_good_samples():
    reference, other = noisy(count=3)
    other[1]["y"][0, 0, 0] = np.nan
    comparison = compared(reference, other)
    assert not comparison.finite
    assert math.isnan(comparison.sqnr_db)
    assert np.isnan(comparison.outputs["y"].sample_sqnr_db).tolist() == [False, True, False]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_output_that_cannot_be_said_is_not_hidden_by_one_that_can(bad):
    good, spoilt = np.array([[1.0, 2.0]]), np.array([[1.0, bad]])
    comparison = compared([{"a": good, "b": good, "c": good}], [{"a": good, "b": spoilt, "c": good}])
    assert math.isnan(comparison.outputs["b"].sqnr_db)
    assert math.isnan(comparison.sqnr_db)


def test_infinity_that_the_reference_has_too_is_not_blamed_on_the_other():
    masked = {"y": np.array([[1.0, -np.inf]])}
    assert compared([masked], [masked]).finite


def test_an_output_of_another_shape_is_counted_and_leaves_the_error_unsaid():
    comparison = compared([{"y": np.ones((1, 5))}] * 2, [{"y": np.ones((1, 5))}, {"y": np.ones((1, 4))}])
    assert comparison.outputs["y"].unlike == 1
    assert math.isnan(comparison.sqnr_db)
    assert math.isnan(comparison.agreement)


def test_slices_along_an_axis_that_changes_its_length_are_given_up():
    shapes = [(1, 4, 3), (1, 6, 3), (1, 4, 3)]
    batches = [{"y": np.ones(shape)} for shape in shapes]
    assert list(compared(batches, batches).outputs["y"].slice_sqnr_db) == [2]


def test_integer_and_text_outputs_agree_by_equality():
    reference = {"label": np.array([1, 2, 3, 4]), "name": np.array(["a", "b"], object)}
    other = {"label": np.array([1, 2, 3, 5]), "name": np.array(["a", "c"], object)}
    comparison = compared([reference], [other])
    assert comparison.outputs["label"].agreement == 0.75
    assert comparison.outputs["name"].agreement == 0.5
    assert math.isnan(comparison.outputs["name"].sqnr_db)


def test_the_error_of_integer_outputs_does_not_hide_that_of_the_floats():
    reference = {"scores": np.array([[1.0, 2.0]]), "label": np.array([1])}
    other = {"scores": np.array([[1.1, 2.2]]), "label": np.array([0])}
    assert compared([reference], [other]).sqnr_db == pytest.approx(20)


def test_a_single_score_has_no_top_to_agree_on():
    assert math.isnan(compared([{"y": np.ones((1, 1))}], [{"y": np.zeros((1, 1))}]).agreement)


def test_nothing_compared_says_nothing():
    assert math.isnan(Comparison().sqnr_db) and math.isnan(Comparison().agreement)
