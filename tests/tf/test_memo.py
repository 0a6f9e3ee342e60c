"""What tf.ptq keeps from plan to plan: the same bytes, and no second look at the samples."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qm.plugin import Array, Dataset, Memo, Plan, QuantizeJob, Scheme
from qm_tf.model import LiteModel
from qm_tf.option import PtqOptions
from qm_tf.ptq import quantize


class Counted:
    """Samples that count how often they are walked."""

    labels = None

    def __init__(self, samples: list[dict[str, Array]]) -> None:
        self.samples, self.walks = samples, 0

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        self.walks += 1
        return iter(self.samples)


@pytest.fixture
def data(images: list[dict[str, Array]]) -> Counted:
    return Counted(images)


def written(model: LiteModel, data: Dataset, plan: dict[str, str], memo: Memo, **told: object) -> bytes:
    schemes = Plan({name: Scheme.parse(text) for name, text in plan.items()})
    job = QuantizeJob(
        model=model, plan=schemes, data=data, options=PtqOptions.model_validate({"engine": "aeq"} | told), memo=memo
    )
    return quantize(job).content


def whole(model: LiteModel) -> dict[str, str]:
    return {layer.name: "w8a8" for layer in model.layers()}


@pytest.mark.parametrize("scheme", ["float", "w4a8", "w8a16", "w8d8"])
def test_each_plan_is_written_as_without_the_memo(small: LiteModel, data: Counted, scheme: str) -> None:
    memo = Memo()
    written(small, data, whole(small), memo)
    for name in whole(small):
        plan = whole(small) | {name: scheme}
        assert written(small, data, plan, memo) == written(small, data, plan, Memo.forgetful()), name


def test_layers_left_in_float_need_no_second_look_at_the_samples(small: LiteModel, data: Counted) -> None:
    memo, told = Memo(), {"rounding": "nearest", "bias_correction": False}
    written(small, data, whole(small), memo, **told)
    for name in whole(small):
        written(small, data, whole(small) | {name: "float"}, memo, **told)
    assert data.walks == 1


def test_other_ranges_do_not_get_what_was_made_with_these(small: LiteModel, data: Counted) -> None:
    memo = Memo()
    for ranges in ("minmax", "mse", "percentile"):
        made = written(small, data, whole(small), memo, ranges=ranges)
        assert made == written(small, data, whole(small), Memo.forgetful(), ranges=ranges)
