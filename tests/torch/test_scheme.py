"""What a layer is in is read from the graph, whoever quantized it."""

from __future__ import annotations

import pytest
import torch
import torch.ao.quantization.fx._decomposed
from torch import nn
from torchao.quantization import quantize_
from torchao.quantization.granularity import PerAxis, PerGroup
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86
from torchao.quantization.quant_api import IntxWeightOnlyConfig
from torchao.utils import unwrap_tensor_subclass

from qm_torch.model import TorchModel

Q = torch.ops.quantized_decomposed


def schemes(module, *inputs):
    program = torch.export.export(module.eval(), inputs)
    return {name: str(s) for name, s in TorchModel(program).schemes().items()}


def net(weight_of, data_of=lambda x: x, stored=torch.int8, shape=(6, 64)):
    """A linear layer whose stored weight and whose data pass the given operations."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("stored", torch.zeros(shape, dtype=stored))
            self.register_buffer("scale", torch.ones(shape[0]))
            self.register_buffer("zero", torch.zeros(shape[0], dtype=torch.int64))

        def forward(self, x):
            return nn.functional.linear(data_of(x), weight_of(self))

    return Net()


def per_channel(low, high, dtype=torch.int8):
    return lambda m: Q.dequantize_per_channel(m.stored, m.scale, m.zero, 0, low, high, dtype)


def per_tensor(low, high):
    return lambda m: Q.dequantize_per_tensor(m.stored, 0.1, 0, low, high, torch.int8)


def static(low, high, dtype=torch.uint8):
    def through(x):
        stored = Q.quantize_per_tensor(x, 0.1, 3, low, high, dtype)
        return Q.dequantize_per_tensor(stored, 0.1, 3, low, high, dtype)

    return through


def test_a_float_program_is_in_float(small, words):
    assert {str(s) for model in (small, words) for s in model.schemes().values()} == {"float"}


def test_half_precision_is_told():
    assert schemes(nn.Linear(4, 4).half(), torch.zeros(1, 4, dtype=torch.float16)) == {"linear": "f16"}


@pytest.mark.parametrize(
    ("weight", "data", "expected"),
    [
        (per_channel(-128, 127), static(0, 255), "w8a8"),
        (per_channel(-127, 127), static(-128, 127, torch.int8), "w8a8"),
        (per_channel(-127, 127), static(-32768, 32767, torch.int16), "w8a16"),
        (per_channel(-128, 127), lambda x: x, "w8"),
        (per_channel(-8, 7), lambda x: x, "w4"),
        (per_channel(-7, 7), static(0, 255), "w4a8"),
        (per_channel(-3, 3), static(0, 15), "w3a4"),
        (per_tensor(-128, 127), static(0, 255), "w8a8t"),
        (per_tensor(-127, 127), lambda x: x, "w8t"),
    ],
)
def test_bits_are_those_between_the_least_and_the_greatest_integer(weight, data, expected):
    assert list(schemes(net(weight, data), torch.zeros(1, 64)).values()) == [expected]


def test_seven_bits_for_kernels_without_vnni_are_still_the_scheme_of_eight():
    assert list(schemes(net(per_channel(-128, 127), static(0, 127)), torch.zeros(1, 64)).values()) == ["w8a8"]


def test_one_scale_for_one_channel_is_a_scale_a_channel():
    made = net(per_tensor(-127, 127), shape=(1, 64))
    assert list(schemes(made, torch.zeros(1, 64)).values()) == ["w8"]


def test_data_that_are_only_moved_after_they_were_restored_are_static():
    through = static(0, 255)
    made = net(per_channel(-127, 127), lambda x: through(x).permute(1, 0).reshape(-1, 64))
    assert list(schemes(made, torch.zeros(64, 2)).values()) == ["w8a8"]


def test_data_that_are_computed_after_they_were_restored_are_float():
    through = static(0, 255)
    made = net(per_channel(-127, 127), lambda x: torch.sin(through(x)))
    assert list(schemes(made, torch.zeros(1, 64)).values()) == ["w8"]


def test_ranges_chosen_at_run_time_are_dynamic():
    def data(x):
        scale, zero = Q.choose_qparams(x, -128, 127, 1e-4, torch.int8)
        stored = Q.quantize_per_tensor(x, scale, zero, -128, 127, torch.int8)
        return Q.dequantize_per_tensor(stored, scale, zero, -128, 127, torch.int8)

    assert list(schemes(net(per_channel(-127, 127), data), torch.zeros(1, 64)).values()) == ["w8d8"]


def test_groups_are_told_by_their_length():
    def weight(m):
        scales, zeros = m.scale.reshape(6, 1).expand(6, 2), m.zero.reshape(6, 1).expand(6, 2)
        return Q.dequantize_per_channel_group(m.stored, scales, zeros, -8, 7, torch.int8, 32, torch.float32)

    assert list(schemes(net(weight), torch.zeros(1, 64)).values()) == ["w4g32"]


def test_packed_weights_have_the_bits_that_are_stored():
    def unpacked(m):
        low, high = (m.stored & 15).to(torch.int8) - 8, (m.stored >> 4).to(torch.int8) - 8
        return torch.stack([low, high], -1).reshape(6, 64) * m.scale.reshape(6, 1)

    made = net(unpacked, stored=torch.uint8, shape=(6, 32))
    assert list(schemes(made, torch.zeros(1, 64)).values()) == ["w4"]


def test_a_table_of_integers_is_in_a_scheme_of_weights_alone():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("stored", torch.zeros(10, 4, dtype=torch.int8))

        def forward(self, ids):
            table = Q.dequantize_per_channel(
                self.stored, torch.ones(10), torch.zeros(10, dtype=torch.int64), 0, -127, 127, torch.int8
            )
            return nn.functional.embedding(ids, table)

    assert list(schemes(Net(), torch.zeros(1, 3, dtype=torch.int64)).values()) == ["w8"]


@pytest.mark.parametrize("strict", [False, True])
def test_what_torchao_converts_is_read(small, strict):
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    args, _ = small.program.example_inputs
    prepared = prepare_pt2e(small.program.module(), quantizer)
    prepared(*args)
    made = torch.export.export(convert_pt2e(prepared), args, strict=strict)
    assert {n: str(s) for n, s in TorchModel(made).schemes().items()} == {
        "stem.0": "w8a8",
        "body": "w8a8",
        "head": "w8a8",
    }


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32)), "w4g32"),
        (IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0)), "w8"),
    ],
)
def test_tensors_that_torchao_quantized_are_read(config, expected):
    module = nn.Sequential(nn.Linear(64, 48))
    quantize_(module, config)
    assert list(schemes(unwrap_tensor_subclass(module), torch.zeros(2, 64)).values()) == [expected]
