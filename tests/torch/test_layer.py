"""Layers: names that last, weights, multiply-accumulates, ties."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.export import Dim

from qm_torch import layer
from qm_torch.model import TorchModel


def exported(module, *inputs, **more):
    return TorchModel(torch.export.export(module.eval(), inputs, **more))


def names(model):
    return [found.name for found in model.layers()]


def test_layers_have_the_names_of_their_modules_in_the_order_they_run(small):
    assert [(n.name, n.kind) for n in small.layers()] == [("stem.0", "conv2d"), ("body", "conv2d"), ("head", "linear")]


def test_weights_are_counted_without_the_bias(small):
    assert [n.weights for n in small.layers()] == [8 * 3 * 9, 16 * 8 * 9, 16 * 4]


def test_multiply_accumulates_are_those_of_one_sample(small):
    # 8 by 8 positions, then 3 by 3 of them with a stride of 2.
    assert [n.macs for n in small.layers()] == [64 * 8 * 27, 9 * 16 * 72, 64]


def test_a_fixed_batch_is_divided_out():
    assert exported(nn.Linear(3, 5), torch.zeros(4, 3)).layers()[0].macs == 15


def test_multiply_accumulates_of_a_free_length_are_not_told():
    free = {0: Dim("batch"), 1: Dim("length")}
    assert exported(nn.Linear(3, 5), torch.zeros(4, 7, 3), dynamic_shapes=(free,)).layers()[0].macs == 0


def test_rows_of_all_positions_count_for_one_sample():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 5)

        def forward(self, x):
            return self.fc(x.reshape(-1, 3)).reshape(-1, 7, 5)

    model = exported(Net(), torch.zeros(4, 7, 3), dynamic_shapes=({0: Dim("batch")},))
    assert model.layers()[0].macs == 7 * 15


def test_transposed_convolutions_count_what_each_input_spreads():
    found = exported(nn.ConvTranspose2d(2, 4, 3, stride=2), torch.zeros(1, 2, 5, 5)).layers()[0]
    assert (found.kind, found.weights, found.macs) == ("conv_transpose2d", 72, 2 * 25 * 4 * 9)


def test_grouped_convolutions_count_their_own_inputs_only():
    assert exported(nn.Conv2d(4, 4, 3, padding=1, groups=4), torch.zeros(1, 4, 5, 5)).layers()[0].macs == 25 * 4 * 9


def test_tied_layers_name_one_another_and_a_table_multiplies_nothing(words):
    assert [(n.name, n.kind, n.tied) for n in words.layers()] == [
        ("table", "embedding", "table"),
        ("dense", "linear", None),
        ("out", "linear", "table"),
    ]
    assert words.layers()[0].macs == 0


@pytest.mark.parametrize("strict", [False, True])
def test_ties_are_seen_however_the_program_was_traced(strict):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.two(self.one(x))

    model = exported(Net(), torch.zeros(1, 3), strict=strict)
    assert [(n.name, n.tied) for n in model.layers()] == [("one", "one"), ("two", "one")]


def test_weights_that_functions_use_have_the_names_of_the_parameters():
    model = exported(nn.MultiheadAttention(8, 2, batch_first=True), *[torch.zeros(1, 5, 8)] * 3)
    assert names(model) == ["in_proj_weight", "out_proj"]


def test_a_module_that_runs_twice_has_two_layers_tied():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x):
            return self.fc(self.fc(x))

    assert [(n.name, n.tied) for n in exported(Net(), torch.zeros(1, 3)).layers()] == [("fc", "fc"), ("fc.2", "fc")]


def test_a_product_of_two_activations_is_no_layer():
    class Net(nn.Module):
        def forward(self, x, y):
            return nn.functional.linear(x, y)

    assert names(exported(Net(), torch.zeros(1, 3), torch.zeros(2, 3))) == []


def test_a_weight_that_is_computed_from_constants_is_a_layers():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.utils.parametrizations.weight_norm(nn.Linear(3, 5))

        def forward(self, x):
            return self.fc(x)

    (found,) = exported(Net(), torch.zeros(1, 3)).layers()
    assert (found.name, found.weights) == ("fc", 15)


def test_names_stay_when_the_graph_is_exported_again_and_saved(small, words, tmp_path):
    for model in (small, words):
        args, _ = model.program.example_inputs
        again = torch.export.export(model.program.module(), args)
        torch.export.save(again, tmp_path / "again.pt2")
        assert names(TorchModel(torch.export.load(tmp_path / "again.pt2"))) == names(model)


def test_the_layers_of_an_opened_graph_are_found_by_node(small):
    graph = small.program.module().graph
    assert {node.name: name for node, name in layer.named(graph).items()} == {
        "conv2d": "stem.0",
        "conv2d_1": "body",
        "linear": "head",
    }
