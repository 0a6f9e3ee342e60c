"""Weights of torch.ptq rounded so that the results of their layers stay, and biases that follow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from qm.numerics import dequantize, sqnr_db, unpack_int4  # noqa: E402
from qm.plugin import Notes, Plan, QuantizeJob, Scheme, Silent, Target, fitting  # noqa: E402
from qm.testing import Drawn  # noqa: E402
from qm_torch import layer, matrix, trace, turn  # noqa: E402
from qm_torch.fold import fold  # noqa: E402
from qm_torch.model import TorchModel  # noqa: E402
from qm_torch.option import PtqOptions  # noqa: E402
from qm_torch.ptq import quantize  # noqa: E402

VNNI = Target(name="x86-vnni", pair_saturates=False)
PLAIN: dict[str, Any] = {"rounding": "nearest", "bias_correction": False}
BOTH: dict[str, Any] = {"rounding": "gptq", "bias_correction": True}


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def smooth(count: int) -> Drawn:
    """Pictures whose neighbours are alike, as those of cameras are, and brighter than they are dark."""
    noise = normal(count, 3, 14, 14, seed=7)
    soft = np.sum([np.roll(noise, (i, j), (2, 3)) for i in range(3) for j in range(3)], axis=0)[:, :, 2:, 2:]
    return Drawn([{"image": (s[None] / 3 + 0.5).astype(np.float32)} for s in soft])


class Network(nn.Module):
    """A dense, a depthwise and a narrow convolution, the last without bias, and two linear layers, the last without."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Conv2d(3, 16, 3, padding=1)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.narrow = nn.Conv2d(16, 24, 1, bias=False)
        self.wide = nn.Linear(24, 10)
        self.last = nn.Linear(10, 6, bias=False)

    def forward(self, image: Any) -> Any:
        x = self.narrow(self.depth(self.dense(image).relu()).relu())
        return self.last(self.wide(x.mean((2, 3))))


def exported(module: nn.Module, *shape: int) -> TorchModel:
    with torch.no_grad():
        return TorchModel(torch.export.export(module.eval(), (torch.zeros(shape),)), name="network")


@pytest.fixture(scope="module")
def network() -> TorchModel:
    torch.manual_seed(0)
    return exported(Network(), 1, 3, 12, 12)


def run(model: TorchModel, data: Drawn, scheme: str = "w8a8", notes: Notes | None = None, **options: Any) -> TorchModel:
    job = QuantizeJob(
        model=model,
        plan=Plan({f.name: Scheme.parse(scheme) for f in model.layers()}),
        data=data,
        target=VNNI,
        options=PtqOptions(**options),
        notes=Notes() if notes is None else notes,
    )
    return quantize(job)


def answers(model: TorchModel, data: Drawn) -> Any:
    return np.concatenate([next(iter(model.run(batch).values())) for batch in data])


def gain_db(model: TorchModel, scheme: str) -> float:
    """How much both together gain on pictures that nothing was fitted to."""
    data, judges = smooth(48), Drawn(smooth(80)[48:])
    wanted = answers(model, judges)
    plain, both = (sqnr_db(wanted, answers(run(model, data, scheme, **o), judges)) for o in (PLAIN, BOTH))
    return both - plain


FORMS = [
    (nn.Conv2d(3, 4, 3), (1, 3, 9, 8)),
    (nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0)), (2, 3, 9, 8)),
    (nn.Conv2d(3, 4, 3, dilation=(2, 1), padding=2), (1, 3, 9, 8)),
    (nn.Conv2d(3, 4, (3, 2), dilation=(1, 3), padding="same"), (1, 3, 9, 8)),
    (nn.Conv2d(3, 4, 3, padding="valid"), (1, 3, 9, 8)),
    (nn.Conv2d(3, 3, 3, groups=3), (1, 3, 9, 8)),
    (nn.Conv2d(4, 6, 3, groups=2), (1, 4, 9, 8)),
    (nn.Conv2d(3, 4, 3), (3, 9, 8)),
    (nn.Conv1d(3, 4, 5, padding=2, stride=2), (1, 3, 9)),
    (nn.Linear(5, 4), (3, 5)),
    (nn.Linear(5, 4), (2, 3, 5)),
]


@pytest.mark.parametrize(("module", "shape"), FORMS)
def test_the_rows_that_are_looked_at_make_the_results_of_the_layer(module: Any, shape: tuple[int, ...]) -> None:
    nn.init.zeros_(module.bias)
    (found,) = exported(module, *shape).found
    x, value = normal(*shape, seed=1), module.weight.detach().numpy()
    seen, rows = matrix.data(found.node, value.shape, x, 0), matrix.rows(found.node, value)
    products = seen @ np.swapaxes(rows, -1, -2)  # (groups, places, out)
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    # The same numbers, in another order of places and channels.
    assert np.sort(products.ravel()) == pytest.approx(np.sort(expected.ravel()), abs=1e-5)


def test_it_leaves_less_error_than_the_nearest(network: TorchModel) -> None:
    # 6 dB: half the error, in the mean of squares a quarter.
    assert gain_db(network, "w4a8") > 6
    assert gain_db(network, "w8a8") > 1


@pytest.mark.parametrize(("scheme", "bits"), [("w8a8", 8), ("w4a8", 4)])
def test_the_program_holds_the_integers_and_scales_that_were_chosen(
    network: TorchModel, scheme: str, bits: int, tmp_path: Any
) -> None:
    data = smooth(16)
    torch.export.save(run(network, data, scheme, **BOTH).program, tmp_path / "made.pt2")
    stored = torch.export.load(tmp_path / "made.pt2").state_dict
    gm = fold(trace.opened(network.program))
    plan = Plan({f.name: Scheme.parse(scheme) for f in network.layers()})
    wishes = fitting.Wishes.of(PtqOptions(**BOTH))
    chosen = turn.fit(network, gm, layer.schemes(gm.graph, plan), data, wishes, progress=Silent())
    real = network.program.state_dict
    for node, name in layer.named(gm.graph).items():
        held = stored[f"{name}.weight"].numpy()
        own = chosen[node]
        if bits == 4:
            held = unpack_int4(held, own.integers.size, signed=False).reshape(own.integers.shape).astype(np.int16) - 8
        assert np.array_equal(held, own.integers)
        assert np.array_equal(stored[f"{name}.weight_scale"].numpy(), own.grid.scale)
        # Not the nearest, and yet near: what is stored is of this weight, in its order.
        steps = np.abs(dequantize(held, own.grid) - real[f"{name}.weight"].detach().numpy()) / own.grid.spread(
            own.grid.scale, held.shape
        )
        assert steps.max() > 0.5
        assert np.median(steps) < 0.5


def test_biases_take_back_what_rounding_shifts(network: TorchModel) -> None:
    data = smooth(48)
    mean = answers(network, data).mean(axis=0)
    # One layer alone, whose results nothing is rounded behind; its weights have 4 bits, so that they shift them.
    plan = Plan({"last": Scheme.parse("w4a8")})
    shifts = []
    for corrected in (False, True):
        options = PtqOptions(rounding="nearest", weights="minmax", bias_correction=corrected)
        job = QuantizeJob(model=network, plan=plan, data=data, target=VNNI, options=options)
        shifts.append(np.abs(answers(quantize(job), data).mean(axis=0) - mean).max())
    # What is left is of the rounding of activations, an eighth of a thousandth of their range.
    assert shifts[1] < shifts[0] / 5


def test_layers_without_bias_get_one(network: TorchModel) -> None:
    made = run(network, smooth(8), **BOTH)
    assert {"narrow.bias", "last.bias"} <= set(made.program.state_dict)
    assert made.program.state_dict["last.bias"].shape == (6,)


def test_nothing_is_looked_at_where_nothing_is_asked_for(network: TorchModel) -> None:
    seen: list[str] = []

    class Told(Silent):
        def track(self, items: Any, label: str, total: int | None = None) -> Any:
            seen.append(label)
            return super().track(items, label, total)

    plan = Plan({f.name: Scheme.parse("w8a8") for f in network.layers()})
    for options in (PLAIN, BOTH | {"sequential": False}, BOTH):
        quantize(
            QuantizeJob(
                model=network, plan=plan, data=smooth(4), target=VNNI, options=PtqOptions(**options), progress=Told()
            )
        )
    assert seen == [
        *("calibrating", "rounding weights"),
        *("calibrating", "watching inputs", "rounding weights"),
        *("calibrating", "rounding layers in turn"),
    ]


def test_layers_that_share_a_weight_share_its_integers() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
            self.second.weight = self.first.weight

        def forward(self, image: Any) -> Any:
            return self.second(self.first(image).relu())

    torch.manual_seed(0)
    model = exported(Twice(), 3, 8)
    data = Drawn([{"image": normal(3, 8, seed=i)} for i in range(8)])
    made = run(model, data, **BOTH)
    assert sum(t.dtype is torch.int8 for t in made.program.state_dict.values()) == 1
    assert sqnr_db(answers(model, data), answers(made, data)) > 25


def test_a_bias_that_layers_share_is_corrected_for_each() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
            self.second.bias = self.first.bias

        def forward(self, image: Any) -> Any:
            return self.second(self.first(image).relu())

    torch.manual_seed(0)
    model = exported(Pair(), 3, 8)
    data = Drawn([{"image": normal(3, 8, seed=i) + 1} for i in range(8)])
    plain, made = (run(model, data, "w4a8", rounding="nearest", bias_correction=b) for b in (False, True))
    kept = [t for name, t in made.program.state_dict.items() if "bias" in name]
    assert len(kept) == 2 and not torch.equal(*kept)
    wanted = answers(model, data)
    assert sqnr_db(wanted, answers(made, data)) > sqnr_db(wanted, answers(plain, data))


def test_the_model_given_is_left_as_it_was(network: TorchModel) -> None:
    before = {name: t.clone() for name, t in network.program.state_dict.items()}
    run(network, smooth(8), "w4a8", **BOTH)
    assert all(torch.equal(t, before[name]) for name, t in network.program.state_dict.items())


def test_the_same_job_gives_the_same_program(network: TorchModel) -> None:
    first, second = (run(network, smooth(8), "w4a8") for _ in range(2))
    assert first.digest() == second.digest()


def test_it_is_said(network: TorchModel) -> None:
    notes = Notes()
    run(network, smooth(8), "w4a8", notes=notes)
    assert "5 layers with weights rounded so that results stay (rounding=gptq)" in notes


@pytest.mark.parametrize("weights", ["minmax", "mse", "octav", "hessian"])
def test_every_way_to_choose_the_range_of_weights_gives_a_model_that_stays_close(
    network: TorchModel, weights: str
) -> None:
    data = smooth(16)
    assert sqnr_db(answers(network, data), answers(run(network, data, weights=weights), data)) > 25
