"""TensorFlow's own converter as the engine that writes the integers: all layers alike, from the model's source."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qm.plugin import Dataset, Notes, Plan, PluginError, Progress, Scheme, Unsupported, UsageError
from qm_tf import flat, runtime, scheme
from qm_tf.convert import converted, shape_inputs
from qm_tf.graph import Graph
from qm_tf.layer import Found, find
from qm_tf.model import KerasModel, LiteModel, SourceModel
from qm_tf.name import BIAS, KERNEL
from qm_tf.normalize import normalize
from qm_tf.option import KINDS

SCHEMES = ("f16", "w8a16", "w8a8", "w8d8")
ANOTHER = "Leave the engine to qm: without -o engine=converter."

SMALL = 1024
"""Weights with fewer elements the converter leaves in float where activations are not static, without a word."""


def quantize(model: LiteModel, plan: Plan, data: Dataset | None, *, io: str, progress: Progress, notes: Notes) -> bytes:
    """The quantized .tflite, its layers under the names of the model's.

    Raises:
        Unsupported: there is no source to convert, or the plan is not the same for all layers.
        UsageError: the data is missing, empty, not finite, or does not fit the model.
        PluginError: the converter made other layers than the model has.
    """
    if not isinstance(model, SourceModel):
        raise Unsupported(
            f"TensorFlow's converter starts from a Keras file or a SavedModel, and {model.name!r} is neither",
            hint=f"Name the model's source instead of its .tflite. {ANOTHER}",
        )
    wanted = single(model, plan)
    if io == "int8" and str(wanted) != "w8a8":
        raise Unsupported(
            f"TensorFlow's converter gives int8 inputs and outputs with w8a8 only, not with {wanted}",
            hint="Ask for w8a8, or for io=float.",
        )
    kind = "keras" if isinstance(model, KerasModel) else "saved_model"
    with tempfile.TemporaryDirectory(prefix="qm-") as work:
        settings = {"scheme": str(wanted), "io": io}
        if wanted.is_static:
            settings["data"] = str(_saved(model, data, Path(work) / "data", progress))
        made = converted(model.source, kind, Path(work), **settings)
    shape_inputs(made.native, [model.graph.shape(t) for t in model.graph.inputs])
    native = named(made.native, model)
    _say_what_stayed(native, wanted, notes)
    _check_io(native, io, model.name)
    return flat.serialize(native)


def single(model: LiteModel, plan: Plan) -> Scheme:
    """The one scheme that the plan has for every layer which can be brought to it.

    Raises:
        Unsupported: there is more than one, or one that the converter does not have.
    """
    planned = {f.name: plan[f.name] for f in model.found}
    whole = [s for s in SCHEMES if any(str(p) == s for p in planned.values())]
    if not whole:
        asked = ", ".join(sorted(map(str, plan.schemes()))) or "float"
        raise Unsupported(
            f"TensorFlow's converter has {', '.join(SCHEMES)}, and the plan asks for {asked}", hint=ANOTHER
        )
    for f in model.found:
        if whole[0] in KINDS.get(f.kind, ()) and str(planned[f.name]) != whole[0]:
            raise Unsupported(
                f"TensorFlow's converter quantizes all layers alike, and the plan has {planned[f.name]} for "
                f"{f.name!r} beside {whole[0]}",
                hint=ANOTHER,
            )
    return Scheme.parse(whole[0])


def _saved(model: LiteModel, data: Dataset | None, folder: Path, progress: Progress) -> Path:
    """The samples in files, each input under its number."""
    if data is None or not len(data):
        what = "no calibration data was given" if data is None else "the calibration data is empty"
        raise UsageError(what, hint="Give samples with --data: static ranges are measured on them.")
    expected = model.inputs()
    hint = f"The model takes {', '.join(map(str, expected))}."
    folder.mkdir()
    for number, batch in enumerate(progress.track(data, "saving samples", len(data))):
        if problem := runtime.mismatch(expected, batch):
            raise UsageError(f"sample {number}: {problem}", hint=hint)
        arrays = {f"i{place:03}": np.asarray(batch[spec.name]) for place, spec in enumerate(expected)}
        for spec, values in zip(expected, arrays.values(), strict=True):
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise UsageError(
                    f"sample {number} of the calibration data holds NaN or infinity in {spec.name!r}",
                    hint="Leave such samples out, or mend them.",
                )
        fed = {key: v.astype(s.dtype) for s, (key, v) in zip(expected, arrays.items(), strict=True)}
        np.savez(folder / f"{number:06}.npz", **fed)  # type: ignore[arg-type]
    return folder


def named(native: Any, model: LiteModel) -> Any:
    """The converter's flatbuffer with tensors named as in the model.

    Raises:
        PluginError: its layers are not the model's.
    """
    graph = Graph(native)
    found = find(graph)
    _check_same(found, graph, model)
    for mine, theirs in zip(found, model.found, strict=True):
        graph.tensor(mine.weights[0]).name = (theirs.name + KERNEL).encode()
        if mine.bias >= 0:
            graph.tensor(mine.bias).name = (theirs.name + BIAS).encode()
    return normalize(native)


def _check_same(found: Sequence[Found], graph: Graph, model: LiteModel) -> None:
    got = [(f.kind, graph.shape(f.weights[0])) for f in found]
    there = [(f.kind, model.graph.shape(f.weights[0])) for f in model.found]
    if got == there:
        return
    what = f"{len(got)} layers instead of {len(there)}"
    for g, t, theirs in zip(got, there, model.found, strict=False):
        if g != t:
            what = f"where {theirs.name!r} is a {t[0]} of {list(t[1])} it has a {g[0]} of {list(g[1])}"
            break
    raise PluginError("tf", f"TensorFlow's converter made other layers of {model.name!r}: {what}", hint=ANOTHER)


def _say_what_stayed(native: Any, wanted: Scheme, notes: Notes) -> None:
    graph = Graph(native)
    left = [f for f in find(graph) if scheme.scheme(graph, f).is_float]
    if not left:
        return
    small = [f for f in left if np.prod(graph.shape(f.weights[0])) < SMALL]
    why = f", whose weights have under {SMALL:,} elements" if len(small) == len(left) and not wanted.is_static else ""
    names = ", ".join(f.name for f in left[:6]) + (f" and {len(left) - 6} more" if len(left) > 6 else "")
    notes.say(f"TensorFlow's converter left {names} in float{why}; {wanted} was asked")


def _check_io(native: Any, io: str, name: str) -> None:
    graph = Graph(native)
    kinds = {graph.type(t) for t in (*graph.inputs, *graph.outputs)}
    if io == "int8" and "FLOAT32" in kinds:
        raise PluginError("tf", f"TensorFlow's converter left an input or output of {name!r} in float", hint=ANOTHER)
