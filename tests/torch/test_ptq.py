"""Static quantization of exported programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from qm.numerics import sqnr_db  # noqa: E402
from qm.plugin import Plan, QuantizeJob, Scheme, Target, Unsupported, UsageError  # noqa: E402
from qm_torch import xnnpack  # noqa: E402
from qm_torch.model import TorchModel  # noqa: E402
from qm_torch.option import PtqOptions  # noqa: E402
from qm_torch.ptq import quantize  # noqa: E402
from qm_torch.qdq import OPS  # noqa: E402

VNNI = Target(name="x86-vnni", pair_saturates=False)
AVX2 = Target(name="x86-avx2", pair_saturates=True)


class Samples:
    labels = None

    def __init__(self, batches: Sequence[dict[str, Any]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.batches)


class Residual(nn.Module):
    """A sum, a maximum, an even and an odd padding."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Conv2d(8, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.third = nn.Conv2d(8, 8, 3, stride=2)

    def forward(self, image: Any) -> Any:
        x = self.first(nn.functional.pad(image, [1, 1, 1, 1])).relu()
        x = nn.functional.max_pool2d(x, 2, 1)
        x = self.norm(self.second(nn.functional.pad(x, [1, 1, 1, 1]))) + x
        return self.third(nn.functional.pad(x, [0, 1, 0, 1]))


def images(count: int = 8) -> Samples:
    rng = np.random.default_rng(0)
    return Samples([{"image": rng.normal(0, 1, (1, 3, 8, 8)).astype(np.float32)} for _ in range(count)])


def job(model: TorchModel, *, scheme: str = "w8a8", data: Any = None, target: Target = VNNI, **more: Any) -> Any:
    plan = Plan({layer.name: Scheme.parse(scheme) for layer in model.layers()})
    return QuantizeJob(
        **{"model": model, "plan": plan, "data": images() if data is None else data, "target": target, **more}
    )


def answers(model: TorchModel, data: Samples) -> Any:
    return np.concatenate([next(iter(model.run(batch).values())) for batch in data])


def residual() -> TorchModel:
    torch.manual_seed(0)
    module = Residual().eval()
    module.norm.running_mean.normal_()
    return TorchModel(torch.export.export(module, (torch.zeros(1, 3, 8, 8),)), name="residual")


def steps(model: TorchModel, operation: Any) -> list[Any]:
    return [node for node in model.program.graph.nodes if node.target is operation]


def test_every_layer_is_in_the_scheme_asked_for_and_keeps_its_name(small: TorchModel) -> None:
    made = quantize(job(small))
    assert {name: str(s) for name, s in made.schemes().items()} == {
        "stem.0": "w8a8",
        "body": "w8a8",
        "head": "w8a8",
    }


def test_the_quantized_model_answers_as_the_float_model_does(small: TorchModel) -> None:
    data = images()
    assert sqnr_db(answers(small, data), answers(quantize(job(small)), data)) > 25


def test_a_layer_left_out_of_the_plan_stays_in_float(small: TorchModel) -> None:
    made = quantize(job(small, plan=Plan({"body": Scheme.parse("w8a8")})))
    assert {name: str(s) for name, s in made.schemes().items()} == {"stem.0": "float", "body": "w8a8", "head": "float"}


def test_an_empty_plan_changes_nothing(small: TorchModel) -> None:
    made = quantize(job(small, plan=Plan({}), data=Samples([])))
    assert np.array_equal(answers(made, images()), answers(small, images()))


def test_batch_norm_is_folded_away(small: TorchModel) -> None:
    made = quantize(job(small, plan=Plan({"head": Scheme.parse("w8a8")})))
    assert not steps(made, torch.ops.aten.batch_norm.default)


def test_folding_changes_results_by_rounding_alone() -> None:
    from qm_torch import trace
    from qm_torch.fold import fold

    model = residual()
    folded = TorchModel(trace.closed(fold(trace.opened(model.program)), model.program))
    # The even padding of the convolutions is their own now; the odd one cannot be.
    assert len(steps(folded, torch.ops.aten.pad.default)) == 1
    np.testing.assert_allclose(answers(folded, images()), answers(model, images()), rtol=1e-4, atol=1e-5)


def test_a_batch_norm_whose_input_is_read_elsewhere_is_left_alone() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, image: Any) -> Any:
            x = self.conv(image)
            return self.norm(x) + x

    model = TorchModel(torch.export.export(Both().eval(), (torch.zeros(1, 3, 8, 8),)))
    made = quantize(job(model))
    assert len(steps(made, torch.ops.aten.batch_norm.default)) == 1
    assert sqnr_db(answers(model, images()), answers(made, images())) > 25


def test_the_other_side_of_a_sum_is_read_as_integers() -> None:
    made = quantize(job(residual()))
    (total,) = steps(made, torch.ops.aten.add.Tensor)
    assert [a.target is OPS.dequantize_per_tensor.default for a in total.args] == [False, True]


def test_a_maximum_is_taken_in_one_scale() -> None:
    made = quantize(job(residual()))
    (pool,) = steps(made, torch.ops.aten.max_pool2d.default)
    (after,) = pool.users
    assert pool.args[0].args[1:] == after.args[1:]


def test_the_float_weights_are_gone(small: TorchModel) -> None:
    made = quantize(job(small))
    assert [t.dtype for name, t in made.program.state_dict.items() if name.endswith("weight")] == [torch.int8] * 3
    assert made.nbytes() < 0.6 * small.nbytes()


def test_weights_have_a_scale_a_channel(small: TorchModel) -> None:
    made = quantize(job(small))
    weight, scale = (made.program.state_dict[name] for name in ("body.weight", "body.weight_scale"))
    real = small.program.state_dict["body.weight"]
    assert scale.shape == (16,)
    # Round-to-nearest moves a weight by half a step at most.
    assert ((weight * scale.reshape(-1, 1, 1, 1) - real).abs() <= scale.reshape(-1, 1, 1, 1) * 0.5001).all()


@pytest.mark.parametrize(("target", "highest"), [(VNNI, 255), (AVX2, 127), (Target(name="unknown"), 127)])
def test_a_bit_of_the_activations_stays_free_where_sums_may_saturate(
    small: TorchModel, target: Target, highest: int
) -> None:
    asked = job(small, target=target)
    made = quantize(asked)
    assert {node.args[4] for node in steps(made, OPS.quantize_per_tensor.default)} == {highest}
    assert any(("all 8 bits" if highest == 255 else "7 of their 8 bits") in note for note in asked.notes)


def test_the_quantized_share_of_the_weights_is_told(small: TorchModel) -> None:
    asked = job(small, plan=Plan({"body": Scheme.parse("w8a8")}))
    quantize(asked)
    assert "80.4 % of the weights are integers: 1 of 3 layers" in asked.notes  # 1152 of 216 + 1152 + 64


def test_the_same_graph_comes_out_every_time(small: TorchModel) -> None:
    first, second = (quantize(job(small)) for _ in range(2))
    assert str(first.program.graph) == str(second.program.graph)
    assert all(torch.equal(t, second.program.state_dict[name]) for name, t in first.program.state_dict.items())


def test_batches_stay_free_where_they_were(small: TorchModel) -> None:
    made = quantize(job(small))
    assert made.inputs() == small.inputs()
    assert made.run({"image": np.zeros((5, 3, 8, 8), np.float32)})["output_0"].shape == (5, 4)


def test_a_saved_quantized_program_tells_the_same_schemes(small: TorchModel, tmp_path: Any) -> None:
    made = quantize(job(small))
    torch.export.save(made.program, tmp_path / "made.pt2")
    again = TorchModel(torch.export.load(tmp_path / "made.pt2"))
    assert again.schemes() == made.schemes()


@pytest.mark.parametrize("method", ["percentile", "mse", "entropy"])
def test_ranges_are_chosen_as_asked(small: TorchModel, method: str) -> None:
    rng = np.random.default_rng(1)
    batches = [{"image": rng.standard_t(2, (1, 3, 8, 8)).astype(np.float32)} for _ in range(8)]
    values = np.concatenate([b["image"] for b in batches])
    plan = Plan({"stem.0": Scheme.parse("w8a8")})
    asked = job(small, data=Samples(batches), plan=plan, options=PtqOptions(ranges=method, percentile=99))
    quantize(asked)
    (image,) = asked.activations
    assert image.high - image.low < float(values.max() - values.min())


def test_what_calibration_saw_is_told(small: TorchModel) -> None:
    asked = job(small)
    quantize(asked)
    values = np.concatenate([b["image"] for b in images()])
    image = next(a for a in asked.activations if a.tensor == "image")
    assert (image.layer, image.low, image.high) == ("stem.0", pytest.approx(values.min()), pytest.approx(values.max()))
    assert len(asked.activations) == 3


def test_a_tensor_of_zeros_can_be_quantized(small: TorchModel) -> None:
    made = quantize(job(small, data=Samples([{"image": np.zeros((1, 3, 8, 8), np.float32)}])))
    assert np.isfinite(answers(made, images())).all()


def test_xnnpack_gets_signed_integers_behind_every_layer() -> None:
    model = residual()
    made = quantize(job(model))
    ready = TorchModel(xnnpack.prepared(made.program))
    assert {node.args[5] for node in steps(ready, OPS.quantize_per_tensor.default)} == {torch.int8}
    for conv in steps(ready, torch.ops.aten.conv2d.default):
        following = next(iter(conv.users))
        end = next(iter(following.users)) if following.target is torch.ops.aten.relu.default else following
        assert end.target is OPS.quantize_per_tensor.default
    assert sqnr_db(answers(model, images()), answers(ready, images())) > 25


def test_data_of_no_samples_is_refused(small: TorchModel) -> None:
    with pytest.raises(UsageError, match="calibration has no samples"):
        quantize(job(small, data=Samples([])))


def test_a_sample_with_nan_is_refused_by_its_number(small: TorchModel) -> None:
    batches = list(images(3))
    batches[2]["image"][0, 0, 0, 0] = np.nan
    with pytest.raises(UsageError, match="input 'image' holds NaN or infinity for calibration sample 2"):
        quantize(job(small, data=Samples(batches)))


@pytest.mark.parametrize("shape", [(1, 3, 10, 10), (3, 8, 8)])
def test_a_sample_of_another_shape_is_refused(small: TorchModel, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"have 'image' as .* model 'small' takes float32 \[any, 3, 8, 8\]"):
        quantize(job(small, data=Samples([{"image": np.zeros(shape, np.float32)}])))


def test_a_sample_without_the_input_is_refused(small: TorchModel) -> None:
    with pytest.raises(UsageError, match="the samples lack the input 'image'"):
        quantize(job(small, data=Samples([{"other": np.zeros((1, 3, 8, 8), np.float32)}])))


def test_a_quantized_program_is_not_quantized_again(small: TorchModel) -> None:
    with pytest.raises(UsageError, match=r"model 'small' is quantized already: its layer 'stem\.0' is w8a8"):
        quantize(job(quantize(job(small))))


def test_a_scheme_that_it_has_not_is_refused(small: TorchModel) -> None:
    with pytest.raises(Unsupported, match="torch.ptq has no scheme 'w4'"):
        quantize(job(small, scheme="w4"))


def test_a_layer_that_it_cannot_quantize_is_refused(words: TorchModel) -> None:
    with pytest.raises(Unsupported, match="torch.ptq has no w8a8 for embedding layers, such as 'table'"):
        quantize(job(words, data=Samples([{"ids": np.zeros((1, 5), np.int64)}])))
