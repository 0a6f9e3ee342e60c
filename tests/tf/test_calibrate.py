"""Calibration of float .tflite models in a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from qm.plugin import Array, Plan, Scheme, Silent, UsageError
from qm_tf import calibrate, chain
from qm_tf.calibrate import joined, observe, ranges
from qm_tf.chain import Chain
from qm_tf.model import LiteModel


def drawn(model: LiteModel, scheme: str = "w8a8", *, border: int = 0) -> Chain:
    plan = Plan({x.name: Scheme.parse(scheme) for x in model.layers()})
    return chain.draw(model.graph, model.found, plan, border=border)


def by_name(model: LiteModel, values: dict[int, Any]) -> dict[str, Any]:
    return {model.graph.name(t): v for t, v in values.items()}


class Counted(list[dict[str, Array]]):
    labels = None
    walks = 0

    def __iter__(self) -> Iterator[dict[str, Array]]:
        self.walks += 1
        return super().__iter__()


def test_extremes_are_those_that_the_model_computes(small: LiteModel, images: Any) -> None:
    streams = by_name(small, observe(small, drawn(small).tensors, images, progress=Silent()))
    stem = np.stack([small.run(b, watch=["stem_1"])["stem_1"] for b in images])
    assert (streams["stem_1"].low, streams["stem_1"].high) == (stem.min(), stem.max())
    given = np.stack([b["image"] for b in images])
    assert (streams["image"].low, streams["image"].high) == (given.min(), given.max())


def test_the_samples_are_walked_through_once(mlp: LiteModel, features: Sequence[dict[str, Array]]) -> None:
    data = Counted(features)
    observe(mlp, drawn(mlp).tensors, data, progress=Silent())
    assert data.walks == 1


def test_what_is_kept_does_not_grow_with_the_samples(mlp: LiteModel, features: Any) -> None:
    few, many = (observe(mlp, drawn(mlp).tensors, Counted(features * n), progress=Silent()) for n in (1, 8))
    assert [s.nbytes for s in few.values()] == [s.nbytes for s in many.values()]


def test_no_samples_are_an_error(mlp: LiteModel) -> None:
    with pytest.raises(UsageError, match="calibration has no samples"):
        observe(mlp, drawn(mlp).tensors, Counted(), progress=Silent())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_is_named(mlp: LiteModel, features: Any, value: float) -> None:
    features[3]["features"][0, 5] = value
    with pytest.raises(UsageError, match="input 'features' holds NaN or infinity for calibration sample 3"):
        observe(mlp, drawn(mlp).tensors, features, progress=Silent())


def test_an_activation_that_is_not_finite_is_named_with_its_tensor_and_layer(mlp: LiteModel, features: Any) -> None:
    features[2]["features"][:] = 3e38
    with pytest.raises(
        UsageError, match=r"tensor 'first_1' at 'first_1' holds NaN or infinity for calibration sample 2"
    ):
        observe(mlp, drawn(mlp).tensors, features, progress=Silent())


def test_a_sample_of_another_shape_is_an_error(mlp: LiteModel, features: Any) -> None:
    features[1]["features"] = np.zeros((1, 41), np.float32)
    with pytest.raises(UsageError, match=r"the input 'features' must have the shape \[1, 40\], not \[1, 41\]"):
        observe(mlp, drawn(mlp).tensors, features, progress=Silent())


def test_range_methods_differ(small: LiteModel, images: Any) -> None:
    tensors = drawn(small)
    streams = observe(small, tensors.tensors, images, method="mse", progress=Silent())
    found = {m: ranges(small, tensors, streams, method=m, percentile=99.0) for m in ("minmax", "percentile", "mse")}
    widths = {m: by_name(small, r)["stem_1"][1] for m, r in found.items()}
    assert widths["percentile"] < widths["mse"] < widths["minmax"]


def test_ranges_of_16_bits_are_symmetric(small: LiteModel, images: Any) -> None:
    tensors = drawn(small, "w8a16")
    streams = observe(small, tensors.tensors, images, progress=Silent())
    low, high = by_name(small, ranges(small, tensors, streams, method="minmax"))["image"]
    assert low == -high


def test_zeros_alone_get_a_range_that_holds_them(mlp: LiteModel) -> None:
    data = Counted([{"features": np.zeros((1, 40), np.float32)}])
    tensors = drawn(mlp)
    made = ranges(mlp, tensors, observe(mlp, tensors.tensors, data, progress=Silent()), method="minmax")
    assert by_name(mlp, made)["features"] == (0.0, 1.0)


def test_a_prescribed_range_is_taken_over(small: LiteModel, images: Any) -> None:
    tensors = drawn(small, border=8)
    made = ranges(small, tensors, observe(small, tensors.tensors, images, progress=Silent()), method="minmax")
    assert by_name(small, made)["output_0"] == (0, 255 / 256)


def test_tensors_that_share_a_scale_get_the_widest_range() -> None:
    sharing = Chain(widths={}, border=0, tensors={}, groups=[frozenset({1, 2})], fixed={})
    assert joined(sharing, {1: (-1.0, 0.5), 2: (0.0, 2.0), 3: (0.0, 9.0)}) == {1: (-1, 2), 2: (-1, 2), 3: (0, 9)}


def test_a_prescribed_range_in_a_group_widens_the_others_and_stays() -> None:
    sharing = Chain(widths={}, border=0, tensors={}, groups=[frozenset({1, 2})], fixed={1: (0.0, 1.0)})
    assert calibrate.joined(sharing, {1: (0.0, 0.4), 2: (-3.0, 0.5)}) == {1: (0.0, 1.0), 2: (-3.0, 1.0)}
