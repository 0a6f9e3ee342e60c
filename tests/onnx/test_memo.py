"""What onnx.ptq keeps from plan to plan: the same bytes, and no second look at the samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import qm.target
from qm.plugin import Array, Batch, Memo, Plan, QuantizeJob, Scheme
from qm_onnx.model import OnnxModel
from qm_onnx.option import PtqOptions
from qm_onnx.ptq import quantize
from qm_onnx.site import KINDS

CHANGES = ("float", "w4a8", "w8a16", "w8a8t")


class Data:
    """Samples that count how often they are walked."""

    labels = None

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches, self.walks = batches, 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        self.walks += 1
        return iter(self.batches)


@pytest.fixture
def data(samples: list[dict[str, Array]]) -> Data:
    return Data(samples)


def written(
    model: OnnxModel,
    data: Data,
    plan: dict[str, str],
    memo: Memo | None = None,
    *,
    target: str = "x86-avx2",
    **told: Any,
) -> bytes:
    job = QuantizeJob(
        model=model,
        plan=Plan({name: Scheme.parse(text) for name, text in plan.items()}),
        data=data,
        target=qm.target.find(target),
        options=PtqOptions(**told),
        memo=Memo.forgetful() if memo is None else memo,
    )
    made: bytes = quantize(job).proto.SerializeToString(deterministic=True)
    return made


def whole_plan(model: OnnxModel) -> dict[str, str]:
    return {layer.name: "w8a8" for layer in model.layers() if layer.kind in KINDS}


def plans(model: OnnxModel) -> Iterator[dict[str, str]]:
    """All in int8, and each layer in turn in something else."""
    whole = whole_plan(model)
    yield whole
    for name in whole:
        for scheme in CHANGES:
            yield whole | {name: scheme}


def test_each_plan_is_written_as_without_the_memo(model: OnnxModel, data: Data) -> None:
    memo = Memo()
    for plan in plans(model):
        assert written(model, data, plan, memo) == written(model, data, plan), plan


@pytest.mark.parametrize(
    "told",
    [{"ranges": "mse"}, {"rounding": "gptq"}, {"bias_correction": False}, {"weights": "mse"}, {"target": "x86-vnni"}],
)
def test_other_options_do_not_get_what_was_made_with_these(model: OnnxModel, data: Data, told: dict[str, Any]) -> None:
    memo, plan = Memo(), whole_plan(model)
    written(model, data, plan, memo)
    assert written(model, data, plan, memo, **told) == written(model, data, plan, **told)


def test_layers_left_in_float_need_one_look_more_at_most(model: OnnxModel, data: Data) -> None:
    memo, whole = Memo(), whole_plan(model)
    written(model, data, whole, memo)
    first = data.walks
    for name in whole:
        written(model, data, whole | {name: "float"}, memo)
    # Without integers behind it, the Relu after "fc" stands alone, and what it reads was not looked at before.
    assert data.walks == first + 1


def test_other_ranges_need_no_second_look_either(model: OnnxModel, data: Data) -> None:
    memo, whole = Memo(), whole_plan(model)
    written(model, data, whole, memo)
    first = data.walks
    for method in ("percentile", "mse", "entropy"):
        written(model, data, whole, memo, ranges=method)
    assert data.walks == first


def test_a_layer_in_4_bits_looks_at_its_own_inputs_once(model: OnnxModel, data: Data) -> None:
    memo, whole = Memo(), whole_plan(model)
    written(model, data, whole, memo)
    first = data.walks
    for name in whole:
        for _ in range(2):
            written(model, data, whole | {name: "w4a8"}, memo)
    assert data.walks == first + len(whole)


def test_a_mean_over_samples_is_of_the_float_model_whatever_was_rounded_before(model: OnnxModel, data: Data) -> None:
    names = list(whole_plan(model))
    memo = Memo()
    written(model, data, dict.fromkeys(names, "w4a8"), memo)
    last = {names[-1]: "w4a8"}
    assert written(model, data, last, memo) == written(model, data, last)
    assert np.isfinite(next(iter(model.run(data.batches[0]).values()))).all()
