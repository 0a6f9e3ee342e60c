"""Weights of 4 bits: two in a byte of the program, of its file and of its package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from qm.numerics import fake_quantize, grid_for_range, group_grid, sqnr_db, weight_clips  # noqa: E402
from qm.plugin import ExportJob, NotReady, Plan, QuantizeJob, Scheme, Target, Unsupported  # noqa: E402
from qm_torch import package, ptq, unpacking, weights  # noqa: E402
from qm_torch.aoti import Package  # noqa: E402
from qm_torch.compiler import check_compiler  # noqa: E402
from qm_torch.model import TorchModel  # noqa: E402
from qm_torch.option import PtqOptions  # noqa: E402

SAFE = Target(name="vnni", pair_saturates=False)


def _compiles() -> bool:
    try:
        check_compiler()
    except NotReady:
        return False
    return True


compiling = pytest.mark.skipif(not _compiles(), reason="there is no C++ compiler")


class Net(nn.Module):
    """A table, a convolution, a depthwise one and linear layers, each of an odd number of weights."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(301, 65)
        self.conv = nn.Conv1d(65, 257, 3, padding=1)
        self.depth = nn.Conv1d(257, 257, 3, groups=257)
        self.wide = nn.Linear(257, 513)
        self.head = nn.Linear(513, 3)

    def forward(self, ids: Any) -> Any:
        x = self.conv(self.table(ids).transpose(1, 2)).relu()
        return self.head(self.wide(self.depth(x).relu().mean(2)).relu())


class Samples(list[Any]):
    labels = None


def samples(count: int) -> Samples:
    rng = np.random.default_rng(0)
    return Samples({"ids": rng.integers(0, 301, (2, 7))} for _ in range(count))


@pytest.fixture(scope="module")
def net() -> TorchModel:
    torch.manual_seed(0)
    with torch.no_grad():
        free = {0: torch.export.Dim("batch", max=8)}
        program = torch.export.export(Net().eval(), (torch.zeros(2, 7, dtype=torch.int64),), dynamic_shapes=(free,))
    return TorchModel(program, name="net")


def by_weights(model: TorchModel, schemes: Mapping[str, str]) -> TorchModel:
    plan = Plan({name: Scheme.parse(s) for name, s in schemes.items()})
    return weights.quantize(QuantizeJob(model=model, plan=plan))


def by_ptq(model: TorchModel, schemes: Mapping[str, str], **options: Any) -> TorchModel:
    plan = Plan({name: Scheme.parse(s) for name, s in schemes.items()})
    job = QuantizeJob(model=model, plan=plan, data=samples(8), target=SAFE, options=PtqOptions(**options))
    return ptq.quantize(job)


ROWS = 30_000
GROUPED = {"table": "w4g32", "wide": "w4g32", "head": "w4g128"}
STATIC = {"conv": "w4a8", "depth": "w4a8", "wide": "w4a8", "head": "w4a8"}
PLAIN = {"weights": "mse", "rounding": "nearest", "bias_correction": False}
MIXED = {"conv": "w4a8", "depth": "w4a8", "head": "w8a8"}


@pytest.fixture(scope="module")
def grouped(net: TorchModel) -> TorchModel:
    return by_weights(net, GROUPED)


@pytest.fixture(scope="module")
def static(net: TorchModel) -> TorchModel:
    return by_ptq(net, STATIC, **PLAIN)


@pytest.fixture(scope="module")
def mixed(net: TorchModel) -> TorchModel:
    return by_ptq(net, MIXED)


def answers(model: Any, count: int = 6) -> Any:
    return np.concatenate([model.run(batch)["output_0"] for batch in samples(count)])


class Watch(torch.fx.Interpreter):
    """Keeps what each node made."""

    seen: dict[str, Any]

    def run_node(self, n: Any) -> Any:
        made = super().run_node(n)
        self.seen[n.name] = made
        return made


def restored(model: TorchModel, name: str) -> Any:
    """The weight that a layer of the program computes with."""
    found = next(f for f in model.found if f.name == name)
    watch = Watch(model.module)
    watch.seen = {}
    with torch.no_grad():
        watch.run(*model.program.example_inputs[0], enable_io_processing=False)
    return watch.seen[found.weight.name].numpy()


def weight(model: TorchModel, name: str) -> Any:
    return model.program.state_dict[f"{name}.weight"].detach().numpy()


@pytest.mark.parametrize(("name", "group"), [("table", 32), ("wide", 32), ("head", 128)])
def test_groups_are_restored_bit_for_bit_as_numpy_has_them(
    net: TorchModel, grouped: TorchModel, name: str, group: int
) -> None:
    value = weight(net, name)
    expected = fake_quantize(value, group_grid(value, bits=4, group=group, axis=1))
    assert np.array_equal(restored(grouped, name), expected)


@pytest.mark.parametrize("name", ["conv", "depth", "wide", "head"])
def test_channels_are_restored_bit_for_bit_as_numpy_has_them(net: TorchModel, static: TorchModel, name: str) -> None:
    value = weight(net, name)
    reach = weight_clips(value.reshape(len(value), -1).astype(np.float64), bits=4, method="mse")
    grid = grid_for_range(-reach, reach, bits=4, symmetric=True, signed=True, axis=0)
    assert np.array_equal(restored(static, name), fake_quantize(value, grid))


def test_ranges_of_least_error_are_nearer_to_the_weights_than_those_up_to_the_greatest(net: TorchModel) -> None:
    made = {
        method: restored(by_ptq(net, {"wide": "w4a8"}, **(PLAIN | {"weights": method})), "wide")
        for method in ("mse", "minmax")
    }
    real = weight(net, "wide")
    # The ends are uniformly drawn weights, whose greatest is the best end but for the least integer: 16 steps, not 15.
    assert sqnr_db(real, made["mse"]) > sqnr_db(real, made["minmax"])
    assert len(np.unique(np.rint(made["minmax"][0] / np.abs(made["minmax"][0]).max() * 7))) <= 15


@pytest.mark.parametrize(("fixture", "asked"), [("grouped", GROUPED), ("static", STATIC), ("mixed", MIXED)])
def test_each_layer_is_read_back_in_its_own_scheme(
    net: TorchModel, request: pytest.FixtureRequest, tmp_path: Path, fixture: str, asked: Mapping[str, str]
) -> None:
    made = request.getfixturevalue(fixture)
    torch.export.save(made.program, tmp_path / "made.pt2")
    for model in (made, TorchModel(torch.export.load(tmp_path / "made.pt2"))):
        there = {name: str(s) for name, s in model.schemes().items()}
        assert there == {layer.name: asked.get(layer.name, "float") for layer in net.layers()}
        assert [layer.weights for layer in model.layers()] == [layer.weights for layer in net.layers()]
        assert [layer.macs for layer in model.layers()] == [layer.macs for layer in net.layers()]


def test_weights_of_eight_and_of_four_bits_stand_beside_each_other(net: TorchModel) -> None:
    asked = {"table": "w4g128", "conv": "w8", "wide": "w8", "head": "w4g32"}
    made = by_weights(net, asked)
    assert {name: str(s) for name, s in made.schemes().items()} == {**asked, "depth": "float"}
    assert sqnr_db(answers(net), answers(made)) > 15  # About 20 dB a layer of 4 bits.


def test_an_odd_number_of_weights_takes_one_half_byte_more(static: TorchModel) -> None:
    stored = {n: t for n, t in static.program.state_dict.items() if n.endswith(".weight")}
    sizes = {name: tuple(stored[f"{name}.weight"].shape) for name in STATIC}
    assert sizes == {"conv": (25058,), "depth": (386,), "wide": (65921,), "head": (770,)}
    assert stored["conv.weight"].dtype is torch.uint8


def test_the_program_and_its_file_hold_the_weights_packed(tmp_path: Path) -> None:
    plain = by_weights(table(), {"0": "w8"})
    packed = by_weights(table(), {"0": "w4g32"})
    sizes = []
    for number, model in enumerate((plain, packed)):
        torch.export.save(model.program, tmp_path / f"{number}.pt2")
        sizes.append((tmp_path / f"{number}.pt2").stat().st_size)
    count = ROWS * 64
    # A group of 32: 16 bytes, a scale of 4 and half a byte of a zero point; a row of 8 bits: a scale and a zero of 8.
    assert plain.nbytes() == count + ROWS * 12
    assert packed.nbytes() == count // 2 + ROWS * 2 * 4 + ROWS
    # The graph that unpacks takes some 20 kB.
    assert sizes[0] - sizes[1] == pytest.approx(plain.nbytes() - packed.nbytes(), abs=30_000)


def table() -> TorchModel:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(ROWS, 64)).eval()
    return TorchModel(torch.export.export(module, (torch.zeros(1, 4, dtype=torch.int64),)))


def test_layers_that_share_a_weight_share_its_bytes(words: TorchModel) -> None:
    made = by_weights(words, dict.fromkeys(("table", "dense", "out"), "w4g32"))
    bytes_of = {n: tuple(t.shape) for n, t in made.program.state_dict.items() if n.endswith("weight")}
    assert sorted(bytes_of.values()) == [(72,), (300,)]
    assert [layer.tied for layer in made.layers()] == ["table", None, "table"]
    assert [layer.weights for layer in made.layers()] == [600, 144, 600]


def test_layers_that_share_a_weight_may_have_schemes_of_their_own(words: TorchModel) -> None:
    asked = {"table": "w4g32", "dense": "float", "out": "w8"}
    made = by_weights(words, {name: s for name, s in asked.items() if s != "float"})
    assert {name: str(s) for name, s in made.schemes().items()} == asked
    value = words.program.state_dict["out.weight"].detach().numpy()
    assert np.array_equal(restored(made, "table"), fake_quantize(value, group_grid(value, bits=4, group=32, axis=1)))


def test_a_pte_file_of_packed_weights_is_refused(grouped: TorchModel, tmp_path: Path) -> None:
    pytest.importorskip("executorch.runtime", reason="executorch is not installed")
    from qm_torch.lower import export

    with pytest.raises(
        Unsupported, match=r"no kernels for w4g32, in which 3 of the layers of 'net' are, such as 'table'"
    ):
        export(ExportJob(model=grouped, path=tmp_path / "net.pte"))


def test_a_program_without_packed_weights_is_compiled_as_before(net: TorchModel) -> None:
    eight = by_weights(net, {"head": "w8"})
    assert unpacking.prepared(eight.program) is eight.program


@pytest.fixture(scope="module")
def compiled(net: TorchModel, grouped: TorchModel, mixed: TorchModel, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Packages, compiled once for all tests of this file, by name, each with the program that it was made of."""
    folder = tmp_path_factory.mktemp("packages")
    models = {"eight": by_ptq(net, dict.fromkeys(MIXED, "w8a8")), "mixed": mixed, "grouped": grouped}
    return {
        name: (model, package.export(ExportJob(model=model, path=folder / f"{name}.pt2")).path)
        for name, model in models.items()
    }


@compiling
def test_a_package_is_smaller_by_the_halves_of_its_bytes(net: TorchModel, compiled: Any) -> None:
    eight, mixed = (compiled[name][1].stat().st_size for name in ("eight", "mixed"))
    halved = sum(layer.weights for layer in net.layers() if MIXED.get(layer.name) == "w4a8")
    # oneDNN pads the channels of what it lays out, which makes the file of 8 bits larger; the code that unpacks, and
    # what stands for each constant in the file, takes some 30 kB.
    assert eight - mixed > 0.5 * halved - 30_000


@compiling
def test_a_package_of_groups_keeps_them_packed(compiled: Any) -> None:
    # What a package holds beside the constants of its program: code. Unpacked, the weights would take 700 kB more.
    code = {name: path.stat().st_size - model.nbytes() for name, (model, path) in compiled.items()}
    assert code["grouped"] < code["eight"] + 60_000


@compiling
def test_a_package_of_a_mixed_plan_answers_as_its_program_does(compiled: Any) -> None:
    model, path = compiled["mixed"]
    # Both sum integers exactly; scales are multiplied in another order, so that a value may fall to the next step.
    assert sqnr_db(answers(model), answers(Package(path))) > 40


@compiling
def test_a_package_of_groups_answers_as_its_program_does(compiled: Any) -> None:
    model, path = compiled["grouped"]
    # The same weights; sums of products in another order.
    np.testing.assert_allclose(answers(Package(path)), answers(model), atol=1e-5)


@compiling
def test_a_package_tells_its_schemes(compiled: Any) -> None:
    told = Package(compiled["mixed"][1]).manifest.schemes
    assert {name: str(s) for name, s in told.items()} == {"table": "float", "wide": "float", **MIXED}
