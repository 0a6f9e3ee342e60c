"""torch.ptq takes layers in turn: each is fitted to what reaches it through those that are rounded already."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from qm.numerics import sqnr_db  # noqa: E402
from qm.plugin import Plan, QuantizeJob, Scheme, Target  # noqa: E402
from qm.testing import Drawn  # noqa: E402
from qm_torch import trace  # noqa: E402
from qm_torch.model import TorchModel  # noqa: E402
from qm_torch.option import PtqOptions  # noqa: E402
from qm_torch.ptq import quantize  # noqa: E402
from qm_torch.way import Way  # noqa: E402

VNNI = Target(name="x86-vnni", pair_saturates=False)


class Network(nn.Module):
    """Convolutions around a sum that is made in place, and behind an activation that is, and a linear layer without
    bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        self.left = nn.Conv2d(12, 12, 3, padding=1, bias=False)
        self.right = nn.Conv2d(12, 12, 1)
        self.depth = nn.Conv2d(12, 12, 3, groups=12)
        self.last = nn.Linear(12, 6, bias=False)

    def forward(self, image: Any) -> Any:
        x = torch.relu_(self.first(image))
        x += self.left(x)
        x += self.right(x)
        return self.last(self.depth(x).relu().mean((2, 3)))


def pictures(count: int, seed: int) -> Drawn:
    """Pictures whose neighbours are alike, brighter than they are dark."""
    noise = np.random.default_rng(seed).standard_normal((count, 3, 14, 14)).astype(np.float32)
    soft = np.sum([np.roll(noise, (i, j), (2, 3)) for i in range(3) for j in range(3)], axis=0)[:, :, 2:, 2:]
    return Drawn([{"image": (s[None] / 3 + 0.5).astype(np.float32)} for s in soft])


@pytest.fixture(scope="module")
def network() -> TorchModel:
    torch.manual_seed(0)
    with torch.no_grad():
        return TorchModel(torch.export.export(Network().eval(), (torch.zeros(1, 3, 12, 12),)), name="network")


def run(model: TorchModel, data: Drawn, schemes: Any = "w4a8", **options: Any) -> TorchModel:
    names = [one.name for one in model.layers()]
    given = dict.fromkeys(names, schemes) if isinstance(schemes, str) else schemes
    plan = Plan({name: Scheme.parse(given[name]) for name in names if name in given})
    return quantize(QuantizeJob(model=model, plan=plan, data=data, target=VNNI, options=PtqOptions(**options)))


def answers(model: TorchModel, data: Drawn) -> Any:
    return np.concatenate([next(iter(model.run(batch).values())) for batch in data])


@pytest.mark.parametrize("rounding", ["gptq", "adaround"])
def test_layers_in_turn_make_good_what_those_before_them_lost(network: TorchModel, rounding: str) -> None:
    data, judges = pictures(48, 1), pictures(32, 2)
    wanted = answers(network, judges)
    apart, turned = (
        sqnr_db(wanted, answers(run(network, data, rounding=rounding, sequential=s), judges)) for s in (False, True)
    )
    # On pictures that nothing was fitted to; of the random network most of the loss is of activations.
    assert turned > apart + 0.3


def test_the_mean_of_results_stays(network: TorchModel) -> None:
    data = pictures(48, 1)
    wanted = answers(network, data).mean(axis=0)
    far = [
        np.abs(answers(run(network, data, bias_correction=b), data).mean(axis=0) - wanted).max() for b in (False, True)
    ]
    # What is left is of the rounding of activations, and of pictures' places that were not looked at.
    assert far[1] < far[0] / 3


def test_one_layer_alone_is_what_it_is_without_turns(network: TorchModel) -> None:
    data = pictures(8, 1)
    first, second = (run(network, data, {"left": "w4a8"}, sequential=s) for s in (False, True))
    assert first.digest() == second.digest()


def test_layers_of_8_bits_among_those_of_4_only_have_their_biases_changed(network: TorchModel) -> None:
    data, mixed = pictures(8, 1), {"first": "w4a8", "right": "w8a8", "last": "w4a8"}
    apart, turned = (run(network, data, mixed, sequential=s).program.state_dict for s in (False, True))
    assert torch.equal(apart["right.weight"], turned["right.weight"])
    assert not torch.equal(apart["right.bias"], turned["right.bias"])
    assert not torch.equal(apart["last.weight"], turned["last.weight"])


def test_layers_that_share_a_weight_share_its_integers() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)
            self.second.weight = self.first.weight

        def forward(self, image: Any) -> Any:
            return self.last(self.second(self.first(image).relu()).relu())

    torch.manual_seed(0)
    with torch.no_grad():
        model = TorchModel(torch.export.export(Twice().eval(), (torch.zeros(3, 8),)), name="twice")
    normal = np.random.default_rng(0).standard_normal((32, 3, 8)).astype(np.float32)
    data = Drawn([{"image": rows} for rows in normal])
    made = run(model, data)
    assert sum(t.dtype is torch.uint8 for t in made.program.state_dict.values()) == 2
    # Coarse as 4 bits are: noise of a tenth of the results.
    assert sqnr_db(answers(model, data), answers(made, data)) > 10


@pytest.mark.parametrize("room", [0, 1 << 28])
def test_what_a_layer_reads_is_seen_as_it_was_and_as_it_is(network: TorchModel, room: int) -> None:
    """Whatever is held between runs, with sums in place on the way."""
    data = pictures(3, 1)
    gm = trace.opened(network.program)
    nodes: Any = {str(n.args[1].target).removesuffix(".weight"): n for n in gm.graph.nodes if "conv2d" in str(n.target)}
    way = Way(network, gm, data, most=3, room=room)
    state = dict(network.program.state_dict)
    for name, node in nodes.items():
        ahead = list(nodes.values())[list(nodes).index(name) :]
        seen = list(way.inputs([node], ahead))
        assert [(number, at) for number, at, *_ in seen] == [(i, node) for i in range(3)]
        for (_, _, before, now), batch in zip(seen, data, strict=True):
            x = torch.from_numpy(batch["image"])
            assert torch.allclose(before, reads(network.program.state_dict, name, x), atol=1e-5)
            assert torch.allclose(now, reads(state, name, x), atol=1e-5)
        weight = state[f"{name}.weight"] * 0.9
        bias = torch.full((12,), 0.25)
        way.change(node, weight, bias)
        state = {**state, f"{name}.weight": weight, f"{name}.bias": bias}


def reads(state: Any, name: str, image: Any) -> Any:
    """What a layer reads in a network with that state, written out."""

    def conv(layer: str, x: Any, padding: int) -> Any:
        return nn.functional.conv2d(x, state[f"{layer}.weight"], state.get(f"{layer}.bias"), padding=padding)

    if name == "first":
        return image
    with torch.no_grad():
        x = conv("first", image, 1).relu()
        if name == "left":
            return x
        x = x + conv("left", x, 1)
        return x if name == "right" else x + conv("right", x, 0)
