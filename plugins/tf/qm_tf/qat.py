"""Quantization-aware training: the quantized graph learns to answer as the float model does.

It begins as ``tf.ptq`` leaves it, and is trained in TensorFlow on what LiteRT's kernels make of it, rounding included,
so that the file answers as the network did. No labels are needed; where there are some, they can be learnt too.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from qm.plugin import Array, QuantizeJob, sha256, training
from qm_tf import compact, convert, process, ptq, runtime
from qm_tf.answer import Answer
from qm_tf.graph import Graph
from qm_tf.model import LiteModel
from qm_tf.option import PtqOptions, QatOptions


def quantize(job: QuantizeJob) -> LiteModel:
    """The model, trained in the integers of the plan.

    Raises:
        UsageError: there are no samples or labels to learn from, or they do not fit.
        Unsupported: the graph has an operation that cannot be trained through.
        PluginError: what was written is not what the plan asks for.
    """
    options = job.options if isinstance(job.options, QatOptions) else QatOptions()
    data = training.needed(job.data, "tf.qat")
    start = _start(job, options)
    if not job.plan.quantized():
        return start
    with tempfile.TemporaryDirectory(prefix="qm-qat-") as folder:
        labels = _labels(job, options)
        course = training.Training.of(options, samples=len(data), seed=job.seed, labelled=labels is not None)
        study = _study(job, course, labels, start, Path(folder))
        result = _trained(job, course, study)
        content = compact.compacted(Path(study["to"]).read_bytes())
    ptq.verify(content, job.plan)
    _tell(job, course, study, result)
    Path(study["state"]).unlink(missing_ok=True)
    return start.with_content(content)


def _start(job: QuantizeJob, options: QatOptions) -> LiteModel:
    """The model as post-training quantization leaves it."""
    assert job.data is not None
    few = training.First(job.data, training.CALIBRATES)
    return ptq.quantize(replace(job, data=few, options=PtqOptions(io=options.io)))


def _labels(job: QuantizeJob, options: QatOptions) -> Array | None:
    """The labels to learn, None where there are none or they are not wanted."""
    assert isinstance(job.model, LiteModel) and job.data is not None
    first = Answer.of(job.model.graph)[0]
    classes = None if first.kind == "logistic" else int(np.prod(job.model.graph.shape(first.number)))
    return training.labels(job.data, options.loss, classes=classes)


def _study(
    job: QuantizeJob, course: training.Training, labels: Array | None, start: LiteModel, folder: Path
) -> process.Event:
    """All that the child is told: files of the graphs, of the inputs and answers, and how to learn."""
    assert isinstance(job.model, LiteModel)
    answers = Answer.of(job.model.graph)
    quantized, floats = folder / "quantized.tflite", folder / "float.tflite"
    quantized.write_bytes(start.content)
    floats.write_bytes(job.model.content)
    inputs, taught = _written(job, job.model, answers, folder)
    if labels is not None:
        np.save(folder / "labels.npy", labels)
    told = {
        "training": course.values(),
        "inputs": [str(p) for p in inputs],
        "answers": [str(p) for p in taught],
        "kinds": [a.kind for a in answers],
        "labels": str(folder / "labels.npy") if labels is not None else None,
        "numbers": [a.number for a in Answer.of(Graph(start.native))],
        "quantized": str(quantized),
        "floats": str(floats),
        "to": str(folder / "trained.tflite"),
    }
    return told | {"state": str(_state(told))}


def _written(job: QuantizeJob, model: LiteModel, answers: list[Answer], folder: Path) -> tuple[list[Path], list[Path]]:
    """Files with the inputs and the float model's answers, one row a sample."""
    assert job.data is not None
    interpreter = model.interpreter(extra_outputs=[a.number for a in answers])
    rows = training.Rows(folder, len(job.data))
    names = [s.name for s in model.inputs()]
    for number, batch in enumerate(job.progress.track(job.data, "asking the float model", total=len(job.data))):
        values = runtime.run(interpreter, batch)
        for i, name in enumerate(names):
            rows.put(f"input{i}", number, np.asarray(batch[name]))
        for i, answer in enumerate(answers):
            training.check_answer(values[answer.number], number)
            rows.put(f"answer{i}", number, values[answer.number])
    rows.flush()
    return [rows.path(f"input{i}") for i in range(len(names))], [rows.path(f"answer{i}") for i in range(len(answers))]


def _state(told: process.Event) -> Path:
    """Where the training is kept after each epoch, until it is done."""
    files = [*told["inputs"], *told["answers"], told["quantized"], told["floats"], told["labels"]]
    hashes = [sha256(Path(f)) for f in files if f]
    rest = [f"{k}={told[k]}" for k in ("training", "kinds", "numbers")]
    return training.state("tf", [*hashes, *rest, *convert.versions()], ".npz")


def _trained(job: QuantizeJob, course: training.Training, study: process.Event) -> process.Event:
    try:
        with process.started("qm_tf.training", study, what="quantization-aware training") as child:
            steps = training.walked(child.events(), course, job.notes)
            for _ in job.progress.track(steps, "training", total=course.epochs * course.steps):
                pass
            return child.result
    except KeyboardInterrupt as e:
        e.add_note(training.KEPT)
        raise


def _tell(job: QuantizeJob, course: training.Training, study: process.Event, result: process.Event) -> None:
    start, best = (training.Reached(**result[k]) for k in ("start", "best"))
    for line in training.told(course, start, best, before="tf.ptq", classes=study["kinds"][0] == "softmax"):
        job.notes.say(line)
    if not best.epoch:
        return
    same = result["simulation_db"]
    if same >= training.EXACT_DB:
        job.notes.say("the file answers in LiteRT exactly as the trained network did")
    elif not result["parts_at"]:
        job.notes.say(f"the file answers in LiteRT as the trained network did, to {same:.0f} dB")
    else:
        job.notes.say(
            f"the file answers in LiteRT otherwise than the trained network did ({same:.0f} dB): its kernels round "
            f"otherwise from {result['parts_at']} on"
        )
