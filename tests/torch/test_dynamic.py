"""Dynamic quantization of exported programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from qm.numerics import sqnr_db  # noqa: E402
from qm.plugin import Plan, QuantizeJob, Scheme, Target, UsageError  # noqa: E402
from qm_torch import onednn  # noqa: E402
from qm_torch.dynamic import quantize  # noqa: E402
from qm_torch.model import TorchModel  # noqa: E402
from qm_torch.qdq import OPS  # noqa: E402

BATCH = {"ids": np.random.default_rng(0).integers(0, 50, (3, 5))}


def job(model: TorchModel, *names: str, target: str = "x86-vnni", pair_saturates: bool | None = False) -> QuantizeJob:
    chosen = names or [layer.name for layer in model.layers() if layer.kind == "linear" and not layer.tied]
    plan = Plan({name: Scheme.parse("w8d8") for name in chosen})
    return QuantizeJob(model=model, plan=plan, target=Target(name=target, pair_saturates=pair_saturates))


def operations(model: TorchModel, operation: Any) -> list[Any]:
    return [node for node in model.program.graph.nodes if node.target is operation]


def test_the_layers_chosen_are_dynamic_and_the_others_in_float(words: TorchModel) -> None:
    made = quantize(job(words))
    assert {name: str(s) for name, s in made.schemes().items()} == {"table": "float", "dense": "w8d8", "out": "float"}


def test_the_quantized_model_answers_as_the_float_model_does(words: TorchModel) -> None:
    made = quantize(job(words))
    assert sqnr_db(words.run(BATCH)["hidden"], made.run(BATCH)["hidden"]) > 35


def test_a_bit_stays_free_where_sums_may_saturate(words: TorchModel) -> None:
    made = quantize(job(words, target="x86-avx2", pair_saturates=True))
    assert [n.args[2] for n in operations(made, OPS.choose_qparams.tensor)] == [127]


def test_rows_of_their_own_range_lose_less_than_a_tensor_of_one_range(words: TorchModel) -> None:
    # One word weighs a hundred times the others: in one range nothing would be left of these.
    words.program.state_dict["table.weight"].data[0] *= 100
    batch = {"ids": np.array([[0, 1, 2, 3, 4]])}
    made = quantize(job(words))
    by_row = TorchModel(onednn.prepared(made.program))
    wanted, tensor, row = (m.run(batch)["hidden"][:, 1:] for m in (words, made, by_row))
    assert sqnr_db(wanted, row) > sqnr_db(wanted, tensor) + 20


def test_integer_products_restore_the_answer_of_the_reference(words: TorchModel) -> None:
    by_row = TorchModel(onednn.prepared(quantize(job(words)).program))
    assert len(operations(by_row, torch.ops.aten._int_mm.default)) == 1
    assert sqnr_db(words.run(BATCH)["hidden"], by_row.run(BATCH)["hidden"]) > 35


def test_a_program_without_dynamic_layers_is_left_as_it_is(words: TorchModel) -> None:
    assert onednn.prepared(words.program) is words.program


def test_lengths_stay_free_through_both(words: TorchModel) -> None:
    by_row = TorchModel(onednn.prepared(quantize(job(words)).program))
    assert by_row.inputs() == words.inputs()
    assert by_row.run({"ids": np.zeros((7, 5), np.int64)})["hidden"].shape == (7, 5, 12)


def test_a_quantized_program_is_not_quantized_again(words: TorchModel) -> None:
    with pytest.raises(UsageError, match="is quantized already: its layer 'dense' is w8d8"):
        quantize(job(quantize(job(words))))
