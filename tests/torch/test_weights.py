"""Weight-only quantization of exported programs."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from qm.numerics import sqnr_db  # noqa: E402
from qm.plugin import Plan, QuantizeJob, Scheme, Unsupported, UsageError  # noqa: E402
from qm_torch.model import TorchModel  # noqa: E402
from qm_torch.weights import quantize  # noqa: E402

BATCH = {"ids": np.random.default_rng(0).integers(0, 50, (3, 5))}


def job(model: TorchModel, *names: str, scheme: str = "w8") -> QuantizeJob:
    chosen = names or [layer.name for layer in model.layers()]
    return QuantizeJob(model=model, plan=Plan({name: Scheme.parse(scheme) for name in chosen}))


def test_every_kind_of_layer_is_quantized_tables_too(words: TorchModel) -> None:
    assert {str(s) for s in quantize(job(words)).schemes().values()} == {"w8"}


def test_the_quantized_model_answers_as_the_float_model_does(words: TorchModel) -> None:
    made = quantize(job(words))
    assert sqnr_db(words.run(BATCH)["logits"], made.run(BATCH)["logits"]) > 35


def test_tied_weights_are_stored_once(words: TorchModel) -> None:
    made = quantize(job(words))
    integers = [t for t in made.program.state_dict.values() if t.dtype is torch.int8]
    assert sorted(t.numel() for t in integers) == [144, 600]
    assert len({layer.tied for layer in made.layers()} - {None}) == 1


def test_a_transposed_convolution_has_a_scale_for_each_of_its_outputs() -> None:
    module = nn.Sequential(nn.ConvTranspose2d(3, 5, 2)).eval()
    model = TorchModel(torch.export.export(module, (torch.zeros(1, 3, 4, 4),)))
    made = quantize(job(model))
    assert made.program.state_dict["0.weight_scale"].shape == (5,)
    assert [str(s) for s in made.schemes().values()] == ["w8"]


def test_the_share_of_the_weights_is_told(words: TorchModel) -> None:
    asked = job(words, "dense")
    quantize(asked)
    assert asked.notes == ["10.7 % of the weights are integers: 1 of 3 layers"]  # 144 of 600 + 144 + 600


def test_weights_with_nan_are_refused(words: TorchModel) -> None:
    words.program.state_dict["dense.weight"].data[0, 0] = float("nan")
    with pytest.raises(UsageError, match="NaN"):
        quantize(job(words))


def test_a_scheme_that_it_has_not_is_refused(words: TorchModel) -> None:
    with pytest.raises(Unsupported, match="torch.weights has no scheme 'w2g32'"):
        quantize(job(words, scheme="w2g32"))


@pytest.mark.parametrize("scheme", ["w8", "w4g32"])
def test_a_tied_layer_that_stays_in_float_keeps_its_weights(words: TorchModel, scheme: str) -> None:
    made = quantize(job(words, "table", scheme=scheme))
    assert {name: str(s) for name, s in made.schemes().items()} == {"table": scheme, "dense": "float", "out": "float"}
    assert sqnr_db(words.run(BATCH)["logits"], made.run(BATCH)["logits"]) > (35 if scheme == "w8" else 15)


def test_a_quantized_program_is_not_quantized_again(words: TorchModel) -> None:
    with pytest.raises(UsageError, match="is quantized already: its layer 'table' is w8"):
        quantize(job(quantize(job(words))))
