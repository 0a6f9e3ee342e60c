"""Quantization-aware training of exported programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from qm.numerics import sqnr_db  # noqa: E402
from qm.plugin import Notes, Plan, QuantizeJob, Scheme, Target, Unsupported, UsageError, cache  # noqa: E402
from qm_torch import annotation, layer, ptq, qat, student, trace  # noqa: E402
from qm_torch.fold import fold  # noqa: E402
from qm_torch.model import TorchModel  # noqa: E402
from qm_torch.option import PtqOptions, QatOptions  # noqa: E402
from qm_torch.training import distance  # noqa: E402

VNNI = Target(name="x86-vnni", pair_saturates=False)
AVX2 = Target(name="x86-avx2", pair_saturates=True)
NEAREST = PtqOptions(rounding="nearest", bias_correction=False)
"""What training starts from."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QM_CACHE", str(tmp_path / "cache"))
    # Small matrices: a thread for each of the machine's cores waits longer for the others than it computes.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


class Images(list[Any]):
    labels: Any = None


def images(count: int, seed: int = 1) -> Images:
    rng = np.random.default_rng(seed)
    return Images({"image": rng.normal(0, 1, (1, 3, 8, 8)).astype(np.float32)} for _ in range(count))


def job(model: TorchModel, *, data: Any = None, plan: Plan | None = None, **more: Any) -> QuantizeJob:
    whole = Plan({layer.name: Scheme.parse("w8a8") for layer in model.layers()})
    own = {key: more.pop(key) for key in ("target", "progress") if key in more}
    return QuantizeJob(
        model=model,
        plan=whole if plan is None else plan,
        data=images(200) if data is None else data,
        options=QatOptions(**more),
        notes=Notes(),
        **{"target": VNNI, **own},
    )


def answers(model: TorchModel, data: Images) -> Any:
    return np.concatenate([next(iter(model.run(batch).values())) for batch in data])


def error_db(model: TorchModel, made: TorchModel) -> float:
    data = images(100, seed=2)
    return sqnr_db(answers(model, data), answers(made, data))


def exported(module: nn.Module, name: str) -> TorchModel:
    """The module for any number of images, its input called as its argument is."""
    free = ({0: torch.export.Dim("batch")},)
    return TorchModel(torch.export.export(module.eval(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=free), name=name)


@pytest.mark.parametrize("target", [VNNI, AVX2], ids=["eight bits", "seven bits"])
def test_what_is_written_answers_exactly_as_what_was_trained(small: TorchModel, target: Target) -> None:
    asked = job(small, data=images(600), epochs=4, target=target)
    trained = qat.quantize(asked)
    assert trained.schemes() == asked.plan.layers
    assert "the written program answers exactly as the trained network did" in asked.notes
    assert any(note.startswith("SQNR to the float model there: ") for note in asked.notes)
    rounded = ptq.quantize(QuantizeJob(model=small, plan=asked.plan, data=asked.data, target=target, options=NEAREST))
    # What is not better on samples held out is not kept; other samples differ from those by some tenths.
    assert error_db(small, trained) > error_db(small, rounded) - 0.5


def test_four_bits_learn_to_answer_as_the_float_model_does(small: TorchModel) -> None:
    plan = Plan({layer.name: Scheme.parse("w4a8") for layer in small.layers()})
    asked = job(small, plan=plan, data=images(256))
    found = ptq.calibrated(asked, small, asked.data, PtqOptions())
    gm = fold(trace.opened(small.program))
    drawn = annotation.annotate(gm.graph, layer.named(gm.graph), plan)
    ranges = {node.name: ends for node, ends in found.chosen.items()}
    learner = student.Student(gm, drawn, plan, ranges, bits=found.bits)
    given = torch.from_numpy(np.concatenate([batch["image"] for batch in asked.data]))
    wanted = torch.from_numpy(answers(small, asked.data))
    adam = torch.optim.Adam([p for _, p in learner.named()], 1e-3)
    unseen = torch.from_numpy(np.concatenate([batch["image"] for batch in images(100, seed=2)]))
    truth = answers(small, images(100, seed=2))
    before = sqnr_db(truth, learner([unseen])[0].detach().numpy())
    for step in range(200):
        some = slice(step % 4 * 64, step % 4 * 64 + 64)
        adam.param_groups[0]["lr"] = 1e-3 * (1 - step / 200)
        adam.zero_grad()
        distance("value", learner([given[some]])[0], wanted[some]).backward()
        adam.step()
    # From 27 dB, about 5 dB are gained; half of that is well above what another order of sums would change.
    assert sqnr_db(truth, learner([unseen])[0].detach().numpy()) > before + 2.5
    values = learner.values()
    chosen = student.ranges(found.drawn, found.chosen, values, bits=found.bits)
    rounded = student.give(found.gm, layer.schemes(found.gm.graph, plan), values)
    made = ptq.write(small, found.gm, found.drawn, chosen, asked, bits=found.bits, rounded=rounded)
    assert made.schemes() == plan.layers
    one = images(1, seed=3)
    own = learner([torch.from_numpy(one[0]["image"])])[0].detach().numpy()
    assert np.array_equal(answers(made, one), own)


def test_a_layer_left_out_of_the_plan_stays_as_it_is(small: TorchModel) -> None:
    made = qat.quantize(job(small, plan=Plan({"body": Scheme.parse("w8a8")}), epochs=1))
    assert {name: str(s) for name, s in made.schemes().items()} == {"stem.0": "float", "body": "w8a8", "head": "float"}
    assert torch.equal(made.program.state_dict["head.weight"], small.program.state_dict["head.weight"])


class Flat(nn.Module):
    """One layer, with nothing that bounds it."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(192, 4)

    def forward(self, image: Any) -> Any:
        return self.only(image.flatten(1))


class Interrupted:
    """Progress that stops the training after some steps."""

    def __init__(self, after: int) -> None:
        self.after = after

    def track(self, items: Iterable[Any], label: str, total: int | None = None) -> Iterator[Any]:
        for count, item in enumerate(items):
            if label == "training" and count == self.after:
                raise KeyboardInterrupt
            yield item


def test_an_interrupted_training_goes_on_to_the_same_program(small: TorchModel) -> None:
    steps = (200 - 20) // 32
    whole = qat.quantize(job(small, epochs=3, batch=32))
    # A step of the second epoch is told once the first is kept.
    with pytest.raises(KeyboardInterrupt) as caught:
        qat.quantize(job(small, epochs=3, batch=32, progress=Interrupted(after=steps)))
    assert caught.value.__notes__ == ["Finished epochs are kept: the same command goes on from the last one."]
    again = job(small, epochs=3, batch=32)
    resumed = qat.quantize(again)
    assert any(note.startswith("training goes on after epoch ") for note in again.notes)
    assert resumed.digest() == whole.digest()
    assert not list((cache.folder("torch") / "training").iterdir())


def test_where_training_only_harms_the_start_is_kept(small: TorchModel) -> None:
    asked = job(small, epochs=1, learning_rate=0.5, schedule="constant", batch=16)
    made = qat.quantize(asked)
    assert (
        "no epoch came closer than the integers that rounding to the nearest had chosen, and those are kept"
        in asked.notes
    )
    rounded = ptq.quantize(QuantizeJob(model=small, plan=asked.plan, data=asked.data, target=VNNI, options=NEAREST))
    assert np.array_equal(answers(made, images(8)), answers(rounded, images(8)))


def test_a_training_that_goes_astray_says_what_to_do() -> None:
    data = images(40)
    for batch in data:
        batch["image"] *= 1e30  # Squares of answers are more than float32 holds.
    model = exported(Flat(), "flat")
    with pytest.raises(UsageError, match="training went astray in step 1: the loss is ") as caught:
        qat.quantize(job(model, data=data, epochs=1, learning_rate=0.1))
    assert caught.value.hint == "Lower the learning rate: -o learning_rate=0.01"


def test_labels_alone_can_be_learnt(small: TorchModel) -> None:
    data = images(200)
    data.labels = answers(small, data).argmax(1)
    asked = job(small, data=data, epochs=1, loss="labels")
    qat.quantize(asked)
    assert any("from the labels" in note for note in asked.notes)
    assert any(note.startswith("agreement with the float model there: ") for note in asked.notes)


def test_a_program_for_one_sample_at_a_time_can_be_trained() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4), nn.Softmax(-1)).eval()
    program = torch.export.export(module, (torch.zeros(1, 3, 8, 8),))
    model = TorchModel(program, name="single")
    (name,) = (spec.name for spec in model.inputs())
    asked = job(model, data=Images({name: batch["image"]} for batch in images(60)), epochs=2, batch=16)
    assert {str(s) for s in qat.quantize(asked).schemes().values()} == {"w8a8"}
    assert any(note.startswith("agreement with the float model there: ") for note in asked.notes)


def test_layers_that_share_a_weight_go_on_sharing_it() -> None:
    torch.manual_seed(0)

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(12, 12), nn.Linear(12, 12)
            self.second.weight = self.first.weight

        def forward(self, image: Any) -> Any:
            return self.second(self.first(image.flatten(1)[:, :12]).relu())

    made = qat.quantize(job(exported(Tied(), "tied"), epochs=1))
    assert [layer.tied for layer in made.layers()] == ["first", "first"]


def test_what_no_gradient_goes_through_is_named() -> None:
    class Stepped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(192, 8), nn.Linear(8, 4)

        def forward(self, image: Any) -> Any:
            return self.second((self.first(image.flatten(1)) > 0).float())

    with pytest.raises(Unsupported, match=r"'stepped' cannot be trained: no gradient comes back to 'first\.weight'"):
        qat.quantize(job(exported(Stepped(), "stepped"), epochs=1))


def test_training_needs_samples(small: TorchModel) -> None:
    with pytest.raises(UsageError, match=r"torch\.qat needs samples to learn from"):
        qat.quantize(job(small, data=Images()))


def test_a_loss_of_labels_needs_labels(small: TorchModel) -> None:
    with pytest.raises(UsageError, match="loss=labels needs labels, and the data have none"):
        qat.quantize(job(small, data=images(8), loss="labels"))


def test_labels_beyond_the_models_classes_are_refused(small: TorchModel) -> None:
    data = images(8)
    data.labels = np.full(8, 4)
    with pytest.raises(UsageError, match="gives 4 values a sample, which do not fit labels up to 4"):
        qat.quantize(job(small, data=data, loss="both"))
