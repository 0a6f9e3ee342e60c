"""Training a quantized program to answer as its float model does. Runs in a process of its own, see ``process``.

Source of the loss: Hinton et al., "Distilling the knowledge in a neural network", 2015, at temperature 1, with the mean
squared error of the answers over their variance beside it, which alone serves where answers are no classes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from qm.numerics import Tally
from qm.plugin import Array, Plan, Scheme, Unsupported, training, written
from qm_torch import annotation, layer, process, trace
from qm_torch.fold import fold
from qm_torch.student import Student, Values

SEEN = 32
"""Held-out samples on which what was trained is compared with what was written."""


@dataclass(frozen=True)
class Task:
    """What to learn from: inputs and the float model's answers, a row a sample, on disk.

    ``whole`` says that the program takes many samples at once; else each row is what it takes.
    """

    inputs: tuple[Array, ...]
    answers: tuple[Array, ...]
    labels: Array | None
    kinds: tuple[str, ...]
    whole: bool


@dataclass(frozen=True)
class Best:
    """The best epoch so far: what was learnt by then, and its answers to the first samples held out."""

    reached: training.Reached
    values: Values
    seen: tuple[Tensor, ...]


def work(job: process.Job, emit: process.Emit) -> process.Job:
    """Train, and leave what the best epoch had learnt in the current folder, in ``trained.pt``."""
    torch.use_deterministic_algorithms(True)  # noqa: FBT003
    torch.manual_seed(job["training"]["seed"])
    run = _Run(_student(job), _task(job), job)
    run.go(emit)
    torch.save({"values": run.best.values, "seen": list(run.best.seen)}, "trained.pt")
    return {"start": asdict(run.start.reached), "best": asdict(run.best.reached)}


def _student(job: process.Job) -> Student:
    gm = fold(trace.opened(torch.export.load("program.pt2")))
    plan = Plan({name: Scheme.parse(text) for name, text in job["plan"].items()})
    drawn = annotation.annotate(gm.graph, layer.named(gm.graph), plan)
    return Student(gm, drawn, plan, {n: (low, high) for n, (low, high) in job["ranges"].items()}, bits=job["bits"])


def _task(job: process.Job) -> Task:
    def arrays(names: list[str]) -> tuple[Array, ...]:
        return tuple(np.load(f"{name}.npy", mmap_mode="r") for name in names)

    return Task(
        inputs=arrays(job["inputs"]),
        answers=arrays(job["answers"]),
        labels=np.load("labels.npy") if job["labelled"] else None,
        kinds=tuple(job["kinds"]),
        whole=job["whole"],
    )


class _Run:
    """Training from the first epoch, or from where an interrupted one stopped."""

    def __init__(self, student: Student, task: Task, job: process.Job) -> None:
        self.student, self.task = student, task
        self.state = Path(job["state"])
        self.training = training.Training.told(job["training"])
        _, self.held = self.training.split()
        self._check_gradients(job["name"])
        self.adam = torch.optim.Adam([p for _, p in student.named()])
        self.start = self._judged(0)
        self.best = self.start
        self.done = 0

    def go(self, emit: process.Emit) -> None:
        self._resume()
        emit({"resumed": self.done})
        for epoch in range(self.done, self.training.epochs):
            for step, chosen in self.training.batches(epoch):
                emit({"step": step + 1, "loss": self._fit(chosen, step)})
            made = self._judged(epoch + 1)
            if made.reached.beats(self.best.reached):
                self.best = made
            self.done = epoch + 1
            self._save()
            emit({"epoch": self.done, **asdict(made.reached)})

    def _check_gradients(self, name: str) -> None:
        """See, on one sample, that every layer can be learnt.

        Raises:
            Unsupported: no gradient reaches a layer.
        """
        hint = "Use torch.ptq, or leave the layer in float with a rule."
        try:
            self._loss(self.held[:1]).backward()
        except RuntimeError as e:
            raise Unsupported(f"model {name!r} cannot be trained: {process.first_sentence(e)}", hint=hint) from e
        for target, weight in self.student.weights.items():
            if weight.weight.grad is None:
                raise Unsupported(
                    f"model {name!r} cannot be trained: no gradient comes back to {target!r}, as an operation behind "
                    "it has none",
                    hint=hint,
                )

    def _fit(self, chosen: Array, step: int) -> float:
        for group in self.adam.param_groups:
            group["lr"] = self.training.rate(step)
        self.adam.zero_grad()
        loss = self._loss(chosen)
        reached = self.training.check(float(loss), step)
        loss.backward()
        self.adam.step()
        return reached

    def _loss(self, chosen: Array) -> Tensor:
        made = self._answers(chosen)
        total = torch.zeros(())
        if self.training.loss != "labels":
            for kind, own, rows in zip(self.task.kinds, made, self.task.answers, strict=True):
                total = total + distance(kind, own, torch.from_numpy(rows[chosen]))
        if self.task.labels is not None and self.training.loss != "distill":
            classes = made[0].reshape(len(chosen), -1)
            total = total + functional.cross_entropy(classes, torch.from_numpy(self.task.labels[chosen]))
        return total

    def _answers(self, chosen: Array) -> tuple[Tensor, ...]:
        """The student's answers to those samples, a row each."""
        if self.task.whole:
            made: tuple[Tensor, ...] = self.student([torch.from_numpy(rows[chosen]) for rows in self.task.inputs])
            return made
        each = [self.student([torch.from_numpy(rows[i].copy()) for rows in self.task.inputs]) for i in chosen]
        return tuple(torch.stack(values) for values in zip(*each, strict=True))

    def _judged(self, epoch: int) -> Best:
        """How the student agrees with the float model on samples that are not learnt from."""
        tallies = [Tally() for _ in self.task.kinds]
        with torch.no_grad():
            for start in range(0, len(self.held), self.training.batch):
                chosen = self.held[start : start + self.training.batch]
                for tally, own, rows in zip(tallies, self._answers(chosen), self.task.answers, strict=True):
                    for made, wanted in zip(own.numpy(), rows[chosen], strict=True):
                        tally.update(wanted[None], made[None])
            # One by one, as the written program will be asked: sums go another way for many.
            each = [self._answers(self.held[i : i + 1]) for i in range(min(SEEN, len(self.held)))]
        has_classes = self.task.kinds[0] == "softmax"
        reached = training.Reached(
            epoch=epoch,
            agreement=tallies[0].agreement if has_classes else 0.0,
            sqnr_db=min(float(t.sqnr_db) for t in tallies),
        )
        return Best(reached, self.student.values(), tuple(torch.cat(rows) for rows in zip(*each, strict=True)))

    def _save(self) -> None:
        told: dict[str, Any] = {
            "done": self.done,
            "learnt": [p.detach() for _, p in self.student.named()],
            "adam": self.adam.state_dict(),
            "reached": asdict(self.best.reached),
            "values": self.best.values,
            "seen": list(self.best.seen),
        }
        with written(self.state, force=True) as place:
            torch.save(told, place)

    def _resume(self) -> None:
        if not self.state.is_file():
            return
        told = torch.load(self.state, weights_only=True)
        with torch.no_grad():
            for (_, parameter), value in zip(self.student.named(), told["learnt"], strict=True):
                parameter.copy_(value)
        self.adam.load_state_dict(told["adam"])
        self.best = Best(training.Reached(**told["reached"]), told["values"], tuple(told["seen"]))
        self.done = told["done"]


def distance(kind: str, own: Tensor, wanted: Tensor) -> Tensor:
    """How far answers, ``(batch, ...)``, are from those of the float model."""
    spread = (own - wanted).square().mean() / (wanted.var(correction=0) + 1e-12)
    if kind == "softmax":
        targets = wanted.log_softmax(-1)
        return (
            functional.kl_div(own.log_softmax(-1), targets, log_target=True, reduction="none").sum(-1).mean() + spread
        )
    if kind == "logistic":
        return functional.binary_cross_entropy_with_logits(own, wanted.sigmoid()) + spread
    return spread


if __name__ == "__main__":
    process.serve(work)
