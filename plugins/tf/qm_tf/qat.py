"""Quantization-aware training: the quantized graph learns to answer as the float model does.

It begins as ``tf.ptq`` leaves it, and is trained in TensorFlow on what LiteRT's kernels make of it, rounding included,
so that the file answers as the network did. No labels are needed; where there are some, they can be learnt too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from qm.plugin import Array, Batch, Dataset, QuantizeJob, UsageError, sha256
from qm_tf import cache, compact, convert, process, ptq, runtime
from qm_tf.answer import Answer
from qm_tf.graph import Graph
from qm_tf.model import LiteModel
from qm_tf.option import PtqOptions, QatOptions

CALIBRATES = 256
"""Samples whose ranges the training starts from."""
HELD_OUT = 1000
"""At most so many samples, and a tenth of all, choose the best epoch."""


def quantize(job: QuantizeJob) -> LiteModel:
    """The model, trained in the integers of the plan.

    Raises:
        UsageError: there are no samples or labels to learn from, or they do not fit.
        Unsupported: the graph has an operation that cannot be trained through.
        PluginError: what was written is not what the plan asks for.
    """
    options = job.options if isinstance(job.options, QatOptions) else QatOptions()
    if job.data is None or not len(job.data):
        raise UsageError("tf.qat needs samples to learn from", hint="Give some hundreds with --data; no labels needed.")
    start = _start(job, options)
    if not job.plan.quantized():
        return start
    with tempfile.TemporaryDirectory(prefix="qm-qat-") as folder:
        study = _study(job, options, start, Path(folder))
        result = _trained(job, study)
        content = compact.compacted(Path(study["to"]).read_bytes())
    ptq.verify(content, job.plan)
    _tell(job, study, result)
    Path(study["state"]).unlink(missing_ok=True)
    return start.with_content(content)


def _start(job: QuantizeJob, options: QatOptions) -> LiteModel:
    """The model as post-training quantization leaves it."""
    assert job.data is not None
    few = _First(job.data, CALIBRATES)
    return ptq.quantize(replace(job, data=few, options=PtqOptions(io=options.io)))


@dataclass(frozen=True)
class _First:
    """The first samples of a data set."""

    data: Dataset
    most: int

    def __len__(self) -> int:
        return min(self.most, len(self.data))

    def __iter__(self) -> Iterator[Batch]:
        return islice(iter(self.data), self.most)

    @property
    def labels(self) -> Array | None:
        return None if self.data.labels is None else self.data.labels[: self.most]


def _study(job: QuantizeJob, options: QatOptions, start: LiteModel, folder: Path) -> process.Event:
    """All that the child is told: files of the graphs, of the inputs and answers, and how to learn."""
    assert isinstance(job.model, LiteModel) and job.data is not None
    answers = Answer.of(job.model.graph)
    labels = _labels(job.data, options, job.model, answers)
    quantized, floats = folder / "quantized.tflite", folder / "float.tflite"
    quantized.write_bytes(start.content)
    floats.write_bytes(job.model.content)
    inputs, taught = _written(job, job.model, answers, folder)
    if labels is not None:
        np.save(folder / "labels.npy", labels)
    count = len(job.data)
    held = max(1, min(HELD_OUT, count // 10))
    learnt = max(1, count - held)  # A single sample does for both.
    batch = min(options.batch, learnt)
    told = options.model_dump() | {
        "batch": batch,
        "held": held,
        "inputs": [str(p) for p in inputs],
        "answers": [str(p) for p in taught],
        "kinds": [a.kind for a in answers],
        "labels": str(folder / "labels.npy") if labels is not None else None,
        "loss": ("both" if labels is not None else "distill") if options.loss == "auto" else options.loss,
        "numbers": [a.number for a in Answer.of(Graph(start.native))],
        "quantized": str(quantized),
        "floats": str(floats),
        "seed": job.seed,
        "steps": learnt // batch,
        "to": str(folder / "trained.tflite"),
    }
    return told | {"state": str(_state(told))}


def _labels(data: Dataset, options: QatOptions, model: LiteModel, answers: list[Answer]) -> Array | None:
    """The labels to learn, None where there are none or they are not wanted."""
    wanted = options.loss in ("labels", "both")
    if data.labels is None or options.loss == "distill":
        if wanted:
            raise UsageError(
                f"loss={options.loss} needs labels, and the data have none",
                hint="Give labels with --data, or take loss=distill.",
            )
        return None
    labels = np.asarray(data.labels, np.int64)
    classes = int(np.prod(model.graph.shape(answers[0].number)))
    if not len(labels) or labels.min() < 0 or labels.max() >= classes or answers[0].kind == "logistic":
        if wanted:
            raise UsageError(
                f"the model gives {classes} values a sample, which do not fit labels up to {labels.max(initial=0)}",
                hint="Take loss=distill.",
            )
        return None
    return labels


def _written(job: QuantizeJob, model: LiteModel, answers: list[Answer], folder: Path) -> tuple[list[Path], list[Path]]:
    """Files with the inputs and the float model's answers, one row a sample; nothing of them stays in memory."""
    assert job.data is not None
    interpreter = model.interpreter(extra_outputs=[a.number for a in answers])
    files: dict[Path, Any] = {}

    def put(path: Path, number: int, values: Array) -> None:
        if path not in files:
            shape = (len(job.data or ()), *values.shape[1:])
            files[path] = np.lib.format.open_memmap(path, "w+", values.dtype, shape)
        files[path][number] = values[0]

    given = {name: folder / f"input{i}.npy" for i, name in enumerate(s.name for s in model.inputs())}
    taught = [folder / f"answer{i}.npy" for i in range(len(answers))]
    for number, batch in enumerate(job.progress.track(job.data, "asking the float model", total=len(job.data))):
        values = runtime.run(interpreter, batch)
        for name, path in given.items():
            put(path, number, np.asarray(batch[name]))
        for answer, path in zip(answers, taught, strict=True):
            _check(values[answer.number], number)
            put(path, number, values[answer.number])
    return list(given.values()), taught


def _check(values: Array, number: int) -> None:
    if not np.isfinite(values).all():
        raise UsageError(
            f"the float model answers with NaN or infinity for sample {number}", hint="Look at that sample."
        )


def _state(told: process.Event) -> Path:
    """Where the training is kept after each epoch, until it is done: named after all that it depends on."""
    files = [*told["inputs"], *told["answers"], told["quantized"], told["floats"], told["labels"]]
    hashes = [sha256(Path(f)) for f in files if f]
    rest = [
        f"{k}={v}"
        for k, v in sorted(told.items())
        if k not in ("inputs", "answers", "labels", "quantized", "floats", "to")
    ]
    place = cache.folder() / "training"
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UsageError(
            f"the folder {str(place)!r}, where training is kept after each epoch, cannot be made: {e.strerror}",
            hint="Name another with the variable QM_CACHE.",
        ) from e
    return place / f"{cache.key([*hashes, *rest, *convert.versions()])}.npz"


def _trained(job: QuantizeJob, study: process.Event) -> process.Event:
    total = study["epochs"] * study["steps"]
    try:
        with process.started("qm_tf.training", study, what="quantization-aware training") as child:
            for _ in job.progress.track(_steps(job, study, child), "training", total=total):
                pass
            return child.result
    except KeyboardInterrupt as e:
        e.add_note("Finished epochs are kept: the same command goes on from the last one.")
        raise


def _steps(job: QuantizeJob, study: process.Event, child: process.Child) -> Iterator[None]:
    """One item a step, those of the epochs before an interrupt at once."""
    for event in child.events():
        if "step" in event:
            yield
        elif done := event.get("resumed"):
            job.notes.say(f"training goes on after epoch {done}, where it was interrupted")
            for _ in range(done * study["steps"]):
                yield


def _tell(job: QuantizeJob, study: process.Event, result: process.Event) -> None:
    learnt = {
        "distill": "the float model's answers",
        "labels": "the labels",
        "both": "the float model's answers and the labels",
    }
    say = job.notes.say
    assert job.data is not None
    count = len(job.data)
    say(
        f"trained {study['epochs']} epochs on {max(1, count - study['held'])} samples from {learnt[study['loss']]}; "
        f"epoch {result['epoch']} is kept, the best of all on {study['held']} others"
    )
    before, after = (f"{result[k]:.1f} dB" for k in ("start_sqnr_db", "sqnr_db"))
    if study["kinds"][0] == "softmax":
        agreed = [f"{result[k]:.1%}" for k in ("start_agreement", "agreement")]
        say(
            f"agreement with the float model there: {agreed[0]} ({before}) before training, {agreed[1]} ({after}) after"
        )
    else:
        say(f"SQNR to the float model there: {before} before training, {after} after")
    same = result["simulation_db"]
    if not result["epoch"]:
        say("no epoch came closer than the integers that tf.ptq had chosen, and those are kept")
    elif result["exact"]:
        say("the file answers in LiteRT exactly as the trained network did")
    elif not result["parts_at"]:
        say(f"the file answers in LiteRT as the trained network did, to {same:.0f} dB")
    else:
        say(
            f"the file answers in LiteRT otherwise than the trained network did ({same:.0f} dB): its kernels round "
            f"otherwise from {result['parts_at']} on"
        )
