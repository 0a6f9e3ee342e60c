"""Quantization-aware training: the quantized program learns to answer as the float model does.

It begins where post-training quantization ends, with batch norm folded as it will run, and is trained on what its
integers make of it. No labels are needed; where there are some, they can be learnt too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from qm.numerics import Tally
from qm.plugin import Array, Batch, Dataset, QuantizeJob, Unsupported, sha256, training
from qm_torch import answer, layer, process, ptq, range, student, trace
from qm_torch.answer import Answer
from qm_torch.model import TorchModel, refused
from qm_torch.option import QAT, PtqOptions, QatOptions
from qm_torch.ptq import Calibrated
from qm_torch.share import checked
from qm_torch.training import SEEN


def quantize(job: QuantizeJob) -> TorchModel:
    """The model, trained in the integers of the plan.

    Raises:
        UsageError: there are no samples or labels to learn from, or they do not fit; the model is quantized already.
        Unsupported: the plan asks for a layer or scheme that there is not, or the program cannot be trained through.
        PluginError: what was made is not what the plan asks for.
    """
    options = job.options if isinstance(job.options, QatOptions) else QatOptions()
    data = training.needed(job.data, "torch.qat")
    model = checked(job, "torch.qat", QAT)
    if not job.plan.quantized():
        return model.with_program(model.program)
    few = training.First(data, training.CALIBRATES)
    found = ptq.calibrated(job, model, few, PtqOptions())
    with process.workshop() as folder:
        teacher = _Asked(model)
        labels = training.labels(data, options.loss, classes=teacher.answers[0].classes)
        course = training.Training.of(options, samples=len(data), seed=job.seed, labelled=labels is not None)
        study = _study(job, model, teacher, found, course, labels, folder)
        result = _trained(job, course, study, folder)
        learnt = torch.load(folder / "trained.pt", weights_only=True)
        made = _written(job, model, found, learnt["values"])
        start, best = (training.Reached(**result[k]) for k in ("start", "best"))
        classes = study["kinds"][0] == "softmax"
        for line in training.told(course, start, best, before="rounding to the nearest", classes=classes):
            job.notes.say(line)
        same = _sameness(_Asked(made), course, learnt["seen"], folder, study)
        job.notes.say(_likeness(same))
    Path(study["state"]).unlink(missing_ok=True)
    return made


class _Asked:
    """A program that is asked for its answers, sample by sample."""

    def __init__(self, model: TorchModel) -> None:
        self.model = model
        gm = trace.opened(model.program)
        self.answers: list[Answer] = answer.answers(gm.graph)
        self._gm: GraphModule = answer.answering(gm)

    def inputs(self, batch: Batch) -> list[torch.Tensor]:
        """What the program takes, in order.

        Raises:
            UsageError: an input is missing, or of a shape that the program was not exported for.
            Unsupported: the program takes what is no tensor.
        """
        given: list[torch.Tensor] = pytree.tree_leaves(self.model.arguments(batch))
        if odd := [value for value in given if not isinstance(value, torch.Tensor)]:
            raise Unsupported(
                f"model {self.model.name!r} takes the constant {odd[0]!r}, which is no tensor",
                hint="Wrap the module in one whose forward takes tensors alone, and export that.",
            )
        return given

    def ask(self, inputs: list[torch.Tensor]) -> list[Array]:
        """The answers to a sample."""
        try:
            with torch.no_grad():
                made = self._gm(*inputs)
        except (AssertionError, RuntimeError) as e:
            raise refused(self.model.name, e) from e
        return [value.numpy() for value in made]

    @property
    def takes_many(self) -> bool:
        """Whether the program takes any number of samples at once."""
        starts = [n.meta.get("val") for n in self._gm.graph.nodes if n.op == "placeholder"]
        ends = [a.node.meta["val"] for a in self.answers]
        return all(_is_free(value) for value in (*starts, *ends))


def _is_free(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim > 0 and isinstance(value.shape[0], torch.SymInt)


def _study(
    job: QuantizeJob,
    model: TorchModel,
    teacher: _Asked,
    found: Calibrated,
    course: training.Training,
    labels: Array | None,
    folder: Path,
) -> process.Job:
    """All that the child is told: the program, how to round it, files of inputs and answers, and how to learn."""
    assert job.data is not None
    torch.export.save(model.program, folder / "program.pt2")
    whole = teacher.takes_many
    files = _asked(job, teacher, whole=whole, folder=folder)
    if labels is not None:
        np.save(folder / "labels.npy", labels)
    told = {
        "name": model.name,
        "training": course.values(),
        "plan": {name: str(scheme) for name, scheme in job.plan.quantized().items()},
        "ranges": {node.name: list(ends) for node, ends in found.chosen.items()},
        "bits": found.bits,
        "kinds": _kinds(teacher.answers, job.data),
        "labelled": labels is not None,
        "whole": whole,
        **files,
    }
    hashes = [sha256(folder / f"{name}.npy") for name in (*files["inputs"], *files["answers"])]
    hashes += [sha256(folder / "labels.npy")] if labels is not None else []
    parts = [model.digest(), *hashes, *(f"{k}={v}" for k, v in told.items()), torch.__version__]
    return told | {"state": str(training.state("torch", parts, ".pt").resolve())}


def _asked(job: QuantizeJob, teacher: _Asked, *, whole: bool, folder: Path) -> dict[str, list[str]]:
    """Files with the inputs and the float model's answers, one row a sample, by name."""
    assert job.data is not None
    rows = training.Rows(folder, len(job.data))
    inputs: list[str] = []
    for number, batch in enumerate(job.progress.track(job.data, "asking the float model", total=len(job.data))):
        given = teacher.inputs(batch)
        inputs = [f"input{i}" for i, _ in enumerate(given)]
        made = teacher.ask(given)
        for values in made:
            training.check_answer(values, number)
        names = [*inputs, *(f"answer{i}" for i, _ in enumerate(made))]
        for name, values in zip(names, [*(value.numpy() for value in given), *made], strict=True):
            rows.put(name, number, values if whole else values[None])
    rows.flush()
    return {"inputs": inputs, "answers": [f"answer{i}" for i, _ in enumerate(teacher.answers)]}


def _kinds(answers: list[Answer], data: Dataset) -> list[str]:
    """What each answer is; the first is of classes where the data have labels that fit them."""
    kinds = [a.kind for a in answers]
    if kinds[0] == "value" and data.labels is not None and len(answers[0].shape) == 2:
        kinds[0] = "softmax" if training.fits(np.asarray(data.labels), answers[0].classes) else "value"
    return kinds


def _trained(job: QuantizeJob, course: training.Training, study: process.Job, folder: Path) -> process.Job:
    try:
        with process.started("qm_torch.training", study, what="quantization-aware training", folder=folder) as child:
            steps = training.walked(child.events(), course, job.notes)
            for _ in job.progress.track(steps, "training", total=course.epochs * course.steps):
                pass
            return child.result
    except KeyboardInterrupt as e:
        e.add_note(training.KEPT)
        raise


def _written(job: QuantizeJob, model: TorchModel, found: Calibrated, values: student.Values) -> TorchModel:
    """The program with what was learnt, as integers."""
    chosen = student.ranges(found.drawn, found.chosen, values, bits=found.bits)
    job.activations.extend(range.seen(found.drawn, found.streams, chosen, bits=found.bits))
    rounded = student.give(found.gm, layer.schemes(found.gm.graph, job.plan), values)
    return ptq.write(model, found.gm, found.drawn, chosen, job, bits=found.bits, rounded=rounded)


def _sameness(
    asked: _Asked, course: training.Training, seen: list[torch.Tensor], folder: Path, study: process.Job
) -> float:
    """SQNR of the written program's answers to those of what was trained, on samples held out."""
    _, held = course.split()
    inputs = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in study["inputs"]]
    tallies = [Tally() for _ in seen]
    for place, number in enumerate(held[:SEEN]):
        given = [rows[number : number + 1] if study["whole"] else rows[number] for rows in inputs]
        for tally, own, wanted in zip(tallies, asked.ask(student.tensors(given)), seen, strict=True):
            tally.update(wanted[place].numpy()[None], own if study["whole"] else own[None])
    return min(float(t.sqnr_db) for t in tallies)


def _likeness(same_db: float) -> str:
    if same_db >= training.EXACT_DB:
        return "the written program answers exactly as the trained network did"
    if same_db >= training.FAITHFUL_DB:
        return f"the written program answers as the trained network did, to {same_db:.0f} dB"
    return f"the written program answers otherwise than the trained network did ({same_db:.0f} dB)"
