"""Training a quantized graph to answer as its float model does. Runs in a process of its own, see ``process``.

Source of the loss: Hinton et al., "Distilling the knowledge in a neural network", 2015, at temperature 1, with the mean
squared error of the answers over their variance beside it, which alone serves where answers are no classes.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from qm.numerics import Tally
from qm.plugin import Array, Unsupported, training, written
from qm_tf import flat, process, runtime
from qm_tf.answer import Answer
from qm_tf.graph import Graph
from qm_tf.model import LiteModel
from qm_tf.network import Network

Tensor = Any

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7
LEAST_DB = 50.0
"""A float graph rebuilt in TensorFlow answers as LiteRT does to this SQNR, or an operation is not what it seems."""
SEEN = 32


@dataclass(frozen=True)
class Task:
    """What to learn from: inputs and the float model's answers, ``(samples, ...)`` each, on disk."""

    inputs: tuple[Array, ...]
    answers: tuple[Array, ...]
    labels: Array | None
    kinds: tuple[str, ...]
    numbers: tuple[int, ...]
    """The tensors of the quantized graph that are compared with the answers."""
    check: Array
    """Samples that choose the best epoch."""


@dataclass(frozen=True)
class Best:
    """The best epoch so far, with its file.

    ``simulation_db`` is how near what was trained comes to what this file gives in LiteRT, and ``parts_at`` from which
    operation on it does not.
    """

    reached: training.Reached
    content: bytes
    simulation_db: float = training.EXACT_DB
    parts_at: str = ""


class Adam:
    """Kingma and Ba, "Adam: a method for stochastic optimization", 2015, by TensorFlow's own kernel."""

    def __init__(self, variables: list[tf.Variable]) -> None:
        self._variables = variables
        self.slots = [tf.Variable(tf.zeros_like(v), trainable=False) for v in (*variables, *variables)]

    def apply(self, gradients: list[Tensor], rate: Tensor, step: Tensor) -> None:
        """One step; ``step`` counts from 1."""
        count = len(self._variables)
        for v, m, s, g in zip(self._variables, self.slots[:count], self.slots[count:], gradients, strict=True):
            if g is None:
                continue
            tf.raw_ops.ResourceApplyAdam(
                var=v.handle,
                m=m.handle,
                v=s.handle,
                beta1_power=tf.pow(BETA_1, step),
                beta2_power=tf.pow(BETA_2, step),
                lr=rate,
                beta1=BETA_1,
                beta2=BETA_2,
                epsilon=EPSILON,
                grad=g,
            )


def work(job: process.Event, emit: process.Emit) -> process.Event:
    """Train, and leave the best file at ``job["to"]``."""
    tf.keras.utils.set_random_seed(job["training"]["seed"])
    tf.config.experimental.enable_op_determinism()
    quantized, floats = Path(job["quantized"]).read_bytes(), Path(job["floats"]).read_bytes()
    network = Network(quantized, floats)
    task = _task(job)
    _check_rebuilt(floats, task)
    run = _Run(network, task, job, quantized)
    run.go(emit)
    with written(Path(job["to"]), force=True) as place:
        place.write_bytes(run.best.content)
    return {
        "start": asdict(run.start.reached),
        "best": asdict(run.best.reached),
        "simulation_db": run.best.simulation_db,
        "parts_at": run.best.parts_at,
    }


class _Run:
    """Training from the first epoch, or from where an interrupted one stopped."""

    def __init__(self, network: Network, task: Task, job: process.Event, quantized: bytes) -> None:
        self.network, self.task, self.job = network, task, job
        self.variables = network.learnt()
        self.adam = Adam(self.variables)
        self.bounded = network.bounded()
        self.training = training.Training.told(job["training"])
        self.start = self._judged(0, quantized)
        self.best = self.start
        self.done = 0
        self._step = tf.function(self._one_step, reduce_retracing=True)

    def go(self, emit: process.Emit) -> None:
        self._resume()
        emit({"resumed": self.done})
        for epoch in range(self.done, self.training.epochs):
            for step, chosen in self.training.batches(epoch):
                emit({"step": step + 1, "loss": self._fit(chosen, step)})
            made = self._judged(epoch + 1, self.network.written())
            if made.reached.beats(self.best.reached):
                simulation_db, parts_at = self._faithful(made.content)
                self.best = replace(made, simulation_db=simulation_db, parts_at=parts_at)
            self.done = epoch + 1
            self._save()
            emit({"epoch": self.done, "agreement": made.reached.agreement, "sqnr_db": made.reached.sqnr_db})

    def _fit(self, chosen: Array, step: int) -> float:
        inputs = [tf.constant(a[chosen]) for a in self.task.inputs]
        answers = [tf.constant(a[chosen]) for a in self.task.answers]
        labels = None if self.task.labels is None else tf.constant(self.task.labels[chosen])
        rate = tf.constant(self.training.rate(step), tf.float32)
        loss = float(self._step(inputs, answers, labels, rate, tf.constant(step + 1, tf.float32)))
        return self.training.check(loss, step)

    def _one_step(self, inputs: Any, answers: Any, labels: Any, rate: Tensor, step: Tensor) -> Tensor:
        with tf.GradientTape() as tape:
            made = self.network(inputs, list(self.task.numbers))
            loss = self._loss(made, answers, labels)
        self.adam.apply(tape.gradient(loss, self.variables), rate, step)
        for variable, low, high in self.bounded:
            variable.assign(tf.clip_by_value(variable, low, high))
        return loss

    def _loss(self, made: list[Tensor], answers: list[Tensor], labels: Tensor | None) -> Tensor:
        total = tf.constant(0.0)
        if self.training.loss != "labels":
            for kind, own, wanted in zip(self.task.kinds, made, answers, strict=True):
                total += distance(kind, tf.reshape(own, tf.shape(wanted)), wanted)
        if labels is not None:
            classes = tf.reshape(made[0], (tf.shape(labels)[0], -1))
            total += tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=classes))
        return total

    def _judged(self, epoch: int, content: bytes) -> Best:
        """How the file, as LiteRT runs it, agrees with the float model on samples that are not learnt from."""
        tallies = [Tally() for _ in self.task.kinds]
        same: list[bool] = []
        for made, chosen in self._answers_of(content, self.task.check):
            for tally, own, wanted in zip(tallies, made, self.task.answers, strict=True):
                tally.update(wanted[chosen][None], own.reshape(wanted[chosen][None].shape))
            if self.task.kinds[0] == "softmax":
                same.append(int(made[0].argmax()) == int(self.task.answers[0][chosen].argmax()))
        worst = min(float(t.sqnr_db) for t in tallies)
        reached = training.Reached(epoch=epoch, agreement=float(np.mean(same)) if same else 0.0, sqnr_db=worst)
        return Best(reached, content)

    def _answers_of(self, content: bytes, samples: Array) -> Any:
        interpreter = LiteModel(content).interpreter(extra_outputs=self.task.numbers)
        details = {d["index"]: d for d in interpreter.get_output_details()}
        for chosen in samples:
            values = self._run(interpreter, chosen)
            yield [runtime.restored(values[t], details[t]) for t in self.task.numbers], chosen

    def _run(self, interpreter: Any, chosen: int) -> dict[int, Array]:
        names = self.network.input_names
        return runtime.run(interpreter, {n: a[chosen][None] for n, a in zip(names, self.task.inputs, strict=True)})

    def _faithful(self, content: bytes) -> tuple[float, str]:
        """SQNR of the network to what its file gives in LiteRT, on held-out samples; and where they part, if they do.

        That is the first operation whose result is off by more than a file may be.
        """
        few = self.task.check[:SEEN]
        names = {t: f"{op.kind} {self.network.graph.name(t)!r}" for op in self.network.graph.ops for t in op.outputs}
        numbers = [t for t in names if self.network.graph.type(t) in ("FLOAT32", "INT8", "INT16")]
        simulated = self.network([tf.constant(a[few]) for a in self.task.inputs], numbers)
        tallies = {t: Tally() for t in numbers}
        interpreter = LiteModel(content).interpreter(extra_outputs=numbers)
        details = {d["index"]: d for d in interpreter.get_output_details()}
        for place, chosen in enumerate(few):
            values = self._run(interpreter, chosen)
            for t, own in zip(numbers, simulated, strict=True):
                tallies[t].update(runtime.restored(values[t], details[t]).reshape(-1), own.numpy()[place].reshape(-1))
        reached = {t: min(float(tally.sqnr_db), training.EXACT_DB) for t, tally in tallies.items()}
        answers_db = min(reached.get(t, training.EXACT_DB) for t in self.task.numbers)
        parts = (names[t] for t in numbers if reached[t] < training.FAITHFUL_DB)
        return answers_db, next(parts, "") if answers_db < training.FAITHFUL_DB else ""

    def _save(self) -> None:
        values = {f"v{i}": v.numpy() for i, v in enumerate([*self.variables, *self.adam.slots])}
        with written(Path(self.job["state"]), force=True) as place, place.open("wb") as f:
            np.savez(
                f,
                done=self.done,
                best=np.frombuffer(self.best.content, np.uint8),
                reached=json.dumps(asdict(self.best.reached)),
                simulation_db=self.best.simulation_db,
                parts_at=self.best.parts_at,
                **values,
            )

    def _resume(self) -> None:
        path = Path(self.job["state"])
        if not path.is_file():
            return
        with np.load(path) as state:
            for i, v in enumerate([*self.variables, *self.adam.slots]):
                v.assign(state[f"v{i}"])
            self.best = Best(
                training.Reached(**json.loads(str(state["reached"]))),
                state["best"].tobytes(),
                float(state["simulation_db"]),
                str(state["parts_at"]),
            )
            self.done = int(state["done"])


def distance(kind: str, own: Tensor, wanted: Tensor) -> Tensor:
    """How far answers, ``(batch, ...)``, are from those of the float model."""
    spread = tf.reduce_mean(tf.math.squared_difference(own, wanted)) / (tf.math.reduce_variance(wanted) + 1e-12)
    if kind == "softmax":
        targets = tf.nn.softmax(wanted)
        entropy = -tf.reduce_sum(targets * tf.nn.log_softmax(wanted), -1)
        return tf.reduce_mean(-tf.reduce_sum(targets * tf.nn.log_softmax(own), -1) - entropy) + spread
    if kind == "logistic":
        targets = tf.sigmoid(wanted)
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=own)) + spread
    return spread


def _task(job: process.Event) -> Task:
    labels = np.load(job["labels"]) if job["labels"] else None
    _, check = training.Training.told(job["training"]).split()
    return Task(
        inputs=tuple(np.load(p, mmap_mode="r") for p in job["inputs"]),
        answers=tuple(np.load(p, mmap_mode="r") for p in job["answers"]),
        labels=labels,
        kinds=tuple(job["kinds"]),
        numbers=tuple(job["numbers"]),
        check=check,
    )


def _check_rebuilt(floats: bytes, task: Task) -> None:
    """The float graph in TensorFlow answers as LiteRT's does: an operation read wrongly would train a wrong model."""
    network = Network(floats, floats)
    few = task.check[: SEEN // 4]
    numbers = [a.number for a in Answer.of(Graph(flat.parse(floats)))]
    made = network([tf.constant(a[few]) for a in task.inputs], numbers)
    tally = Tally()
    for own, wanted in zip(made, task.answers, strict=True):
        tally.update(wanted[few], own.numpy().reshape(wanted[few].shape))
    if tally.sqnr_db < LEAST_DB:
        raise Unsupported(
            f"tf.qat computes this graph otherwise than LiteRT does ({tally.sqnr_db:.0f} dB), and would train it wrong",
            hint="Use tf.ptq.",
        )


if __name__ == "__main__":
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    process.serve(work)
