"""Keras files and SavedModel folders as float .tflite models, converted once and kept."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from qm.plugin import Array, LoadJob, PluginError, Unsupported, UsageError, sha256
from qm.plugin import cache as kept
from qm_tf import cache, flat, process, source
from qm_tf.graph import graphs
from qm_tf.layer import find
from qm_tf.model import KerasModel, LiteModel, SavedModel
from qm_tf.normalize import normalize
from qm_tf.scheme import is_quantized

FORMAT = "1"
"""Changes when the same source is to be converted anew."""

TOLERANCE = 1e-3
"""The largest difference from TensorFlow's own answers, relative to the largest of them; 1e-6 is common."""

_QUANTIZED = frozenset({"FAKE_QUANT", "QUANTIZE"})


@dataclass(frozen=True, kw_only=True)
class Made:
    """What the converter made, its inputs and outputs by the names that the source has for them."""

    native: Any
    layers: Sequence[str]
    told: process.Event


def load_keras(job: LoadJob) -> KerasModel:
    """The model in a Keras file.

    Raises:
        UsageError: the file is missing, damaged, or no whole Keras model.
        Unsupported: it holds what cannot be converted.
    """
    source.check(source.read(job.path))
    made = _converted(job.path, "keras")
    return KerasModel(made.content, source=job.path, name=str(job.path), notes=made.notes)


def load_saved_model(job: LoadJob) -> SavedModel:
    """The model in a SavedModel folder: its signature ``serving_default``, else its only one.

    Raises:
        UsageError: the folder is missing, damaged, or no SavedModel.
        Unsupported: it holds what cannot be converted.
    """
    _check_folder(job.path)
    made = _converted(job.path, "saved_model")
    return SavedModel(made.content, source=job.path, name=str(job.path), notes=made.notes)


def _check_folder(path: Path) -> None:
    if not path.exists():
        raise UsageError(f"model {str(path)!r} does not exist", hint="Check the path.")
    if not path.is_dir():
        raise UsageError(f"{str(path)!r} is a file, not a SavedModel folder", hint="Name the folder.")
    if not (path / "saved_model.pb").is_file():
        if list(path.glob("*.index")):
            raise UsageError(
                f"{str(path)!r} is a checkpoint: it holds only the weights of a model, not the model",
                hint="Load it in the code that made it, and save the whole model.",
            )
        raise UsageError(f"{str(path)!r} holds no saved_model.pb", hint="Name a SavedModel folder.")
    if not (path / "saved_model.pb").stat().st_size:
        raise UsageError(f"{str(path / 'saved_model.pb')!r} is empty", hint=source.AGAIN)


def _converted(path: Path, kind: str) -> cache.Entry:
    name = kept.key([FORMAT, kind, sha256(path), *versions()])
    found = cache.get(name)
    if found is None:
        found = _convert(path, kind)
        cache.put(name, found)
    return found


def versions() -> list[str]:
    """What a conversion depends on beside its source."""
    there = []
    for name in ("tensorflow", "tensorflow-cpu", "keras", "ai-edge-litert", "quantized-model"):
        try:
            there.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return there


def _convert(path: Path, kind: str) -> cache.Entry:
    with tempfile.TemporaryDirectory(prefix="qm-") as work:
        made = converted(path, kind, Path(work))
        with np.load(Path(work) / "probe.npz") as kept:
            probe = dict(kept)
    shape_inputs(made.native, [v.shape for name, v in sorted(probe.items()) if name.startswith("i")])
    content = flat.serialize(normalize(made.native, layers=made.layers))
    model = LiteModel(content, name=str(path))
    check(model)
    notes = [*made.told["notes"], _loops(model), compared(model, probe, repeatable=made.told["repeatable"])]
    return cache.Entry(content=content, notes=tuple(note for note in notes if note))


def converted(path: Path, kind: str, folder: Path, **settings: str) -> Made:
    """What a child makes of the source in ``folder``; ``settings`` as ``qm_tf.conversion`` takes them."""
    job = {"source": str(path), "kind": kind, "folder": str(folder), **settings}
    told = process.run("qm_tf.conversion", job, what=f"converting {str(path)!r}")
    native = flat.parse((folder / "made.tflite").read_bytes())
    for signature in native.signatureDefs or ():
        main = native.subgraphs[signature.subgraphIndex]
        main.inputs = _ordered(main.inputs, signature.inputs or ())
        main.outputs = _ordered(main.outputs, signature.outputs or ())
        for place, names in ((signature.inputs, told["inputs"]), (signature.outputs, told["outputs"])):
            for entry in place or ():
                entry.name = names[int(flat.text(entry.name)[1:])].encode()
    return Made(native=native, layers=told["layers"], told=told)


def _ordered(numbers: Any, entries: Sequence[Any]) -> list[int]:
    """Tensor numbers in the order of the source, as the numbers in the signature's names have it."""
    named = [int(e.tensorIndex) for e in sorted(entries, key=lambda e: flat.text(e.name))]
    return named if sorted(named) == sorted(int(n) for n in numbers) else [int(n) for n in numbers]


def shape_inputs(native: Any, shapes: Sequence[tuple[int, ...]]) -> None:
    """Store lengths that the model can be opened with; what is free stays free, in the signature of the shape."""
    main = native.subgraphs[0]
    for number, shape in zip(main.inputs, shapes, strict=True):
        main.tensors[number].shape = list(shape)


def check(model: LiteModel) -> None:
    """Refuse a conversion that is no float model that runs.

    Raises:
        UsageError: it has nothing to run, or LiteRT refuses it.
        Unsupported: LiteRT does not know its operations, or it is quantized.
    """
    kinds = {op.kind for graph in graphs(model.native) for op in graph.ops}
    if not kinds:
        raise UsageError(f"model {model.name!r} has no operations", hint="Name a model that computes something.")
    if unknown := sorted(k.removeprefix("CUSTOM:") for k in kinds if k.startswith("CUSTOM:")):
        select = [k.removeprefix("Flex") for k in unknown if k.startswith("Flex")]
        what = f"TensorFlow's own {', '.join(select)} (SELECT_TF_OPS)" if select else f"custom {', '.join(unknown)}"
        raise Unsupported(
            f"model {model.name!r} needs {what}, which LiteRT does not run",
            hint="Take it out of the model, for example out of its preprocessing, and convert the rest.",
        )
    if is_quantized(model.native) or kinds & _QUANTIZED:
        raise Unsupported(f"model {model.name!r} is quantized already", hint="Name the float model it was made from.")
    model.inputs()  # LiteRT's own checks.


def _loops(model: LiteModel) -> str:
    inner = sum(len(find(graph)) for graph in list(graphs(model.native))[1:])
    if not inner:
        return ""
    what = "operation with weights stands" if inner == 1 else "operations with weights stand"
    return f"{inner} {what} inside loops, such as recurrent layers, and cannot be quantized as layers"


def compared(model: LiteModel, probe: dict[str, Array], *, repeatable: bool) -> str:
    """Compare with TensorFlow's answers to the same inputs; what is worth a note, empty where nothing is.

    Raises:
        PluginError: the answers are not finite any more, or others.
    """
    numbers = {f"i{n:03}": spec.name for n, spec in enumerate(model.inputs())}
    got = model.run({numbers[key]: value for key, value in probe.items() if key in numbers})
    worst = 0.0
    for number, (name, value) in enumerate(got.items()):
        expected = probe[f"o{number:03}"]
        if not np.isfinite(expected).all():
            return f"the output {name!r} is not finite on made-up inputs, before conversion too"
        if not np.isfinite(value).all():
            raise PluginError(
                "tf", f"model {model.name!r} gives NaN or infinity once converted, where TensorFlow gives numbers"
            )
        worst = max(worst, difference(value, expected))
    if not repeatable:
        return "the model answers at random: its conversion was not compared with TensorFlow"
    if worst > TOLERANCE:
        raise PluginError(
            "tf",
            f"model {model.name!r} answers differently once converted: by {worst:.2g} of its largest output",
            hint="Report it, with the model; a conversion that changes a model is not used.",
        )
    return ""


def difference(value: Array, expected: Array) -> float:
    """The largest difference, relative to the largest expected value."""
    if value.shape != expected.shape or not expected.size:
        return 0.0 if value.shape == expected.shape else np.inf
    a, b = value.astype(np.float64), expected.astype(np.float64)
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-6))
