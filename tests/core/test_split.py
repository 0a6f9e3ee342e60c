"""Which samples are for what."""

from __future__ import annotations

import numpy as np
import pytest

from qm.data import open_data
from qm.plugin import Layer, Recipe, TensorSpec
from qm.split import divided, trial_samples

INPUTS = [TensorSpec(name="x", shape=(1, 4), dtype="float32")]


def network(macs: int) -> list[Layer]:
    return [Layer(name=name, kind="Conv", weights=10, macs=macs // 2) for name in ("first", "second")]


@pytest.mark.parametrize(
    ("macs", "count"),
    [(12_500_000, 1024), (100_000_000, 343), (385_000_000, 256), (4_000_000_000, 256), (0, 256)],
    ids=["ResNet-8", "between", "EfficientNet-Lite0", "ResNet-50", "unknown"],
)
def test_a_trial_takes_the_more_samples_the_smaller_the_model_is(macs, count):
    assert trial_samples(network(macs)) == count


def test_no_sample_has_two_uses():
    whole = open_data(np.random.default_rng(0).random((1000, 4), np.float32), INPUTS)
    split = divided(whole, Recipe(), trials=256)
    assert split.calibration is not None
    assert split.judged is not None
    used = [*split.calibration.indices, *split.tried, *split.judged.indices]
    assert (len(split.calibration), len(split.tried), len(split.judged)) == (128, 256, 512)
    assert len(set(used)) == len(used)


def test_trials_leave_half_of_the_rest_to_the_verdict():
    whole = open_data(np.random.default_rng(0).random((100, 4), np.float32), INPUTS)
    split = divided(whole, Recipe(), trials=1024)
    assert split.judged is not None
    assert (len(split.tried), len(split.judged)) == (25, 25)


def test_without_a_planner_none_are_kept_for_trials():
    whole = open_data(np.random.default_rng(0).random((100, 4), np.float32), INPUTS)
    assert divided(whole, Recipe()).tried == ()
