"""From Keras and SavedModel to .tflite: the part that imports TensorFlow, run as a process of its own."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert import ConverterError

from qm.plugin import Array, Unsupported, UsageError
from qm_tf import process, saved, source
from qm_tf.served import LOAD_ERRORS, SIGNATURE, Served, fixed, probed, runner

_CUSTOM = re.compile(r"(?:Could not locate (?:class|function)|Unknown [\w ]+:) '([^']+)'")


def work(job: process.Event, emit: process.Emit) -> process.Event:
    """Convert ``job["source"]`` to ``job["folder"]/made.tflite``, quantized where the job names a scheme."""
    path, folder = Path(job["source"]), Path(job["folder"])
    served = (keras_served if job["kind"] == "keras" else saved.served)(path, folder)
    for spec, name in zip(served.specs, served.inputs, strict=True):
        if spec.dtype == tf.string:
            raise Unsupported(
                f"the input {name!r} of {str(path)!r} takes text, which LiteRT does not",
                hint="Convert the model without its text preprocessing.",
            )
    (folder / "made.tflite").write_bytes(converted(served, job))
    told = {"inputs": list(served.inputs), "outputs": list(served.outputs), "layers": list(served.layers)}
    if "scheme" in job:
        return told
    return told | {"notes": list(served.notes), "repeatable": probed(served, folder / "probe.npz")}


def keras_served(path: Path, folder: Path) -> Served:
    """A Keras model, brought to the form."""
    net, notes = keras_loaded(source.read(path), folder)
    if not getattr(net, "inputs", None):
        raise UsageError(
            f"the model in {str(path)!r} does not tell the shapes of its inputs",
            hint="Call it once on a batch, or give it a keras.Input, before it is saved.",
        )
    if isinstance(net, keras.Sequential):
        net = keras.Model(net.inputs, net.outputs)  # One read from .h5 was never called, and has no ``input`` itself.
    specs = [fixed(t.shape, t.dtype, number) for number, t in enumerate(net.inputs)]

    def answer(*values: Any) -> dict[str, Any]:
        made = net(keras.tree.pack_sequence_as(net.input, list(values)), training=False)
        return {f"o{number:03}": value for number, value in enumerate(keras.tree.flatten(made))}

    try:
        archive = keras.export.ExportArchive()
        archive.track(net)
        archive.add_endpoint(SIGNATURE, answer, input_signature=specs)
        archive.write_out(str(folder / "served"), verbose=False)
    except (*LOAD_ERRORS, tf.errors.OpError) as e:
        raise UsageError(
            f"Keras {keras.__version__} does not run the model in {str(path)!r}: {process.shortened(str(e))}",
            hint="Check that it predicts in Keras, and save it again.",
        ) from e
    return Served(
        folder=folder / "served",
        specs=specs,
        inputs=[str(t.name) for t in net.inputs],
        outputs=_output_names(net),
        layers=[layer.name for layer in net._flatten_layers(include_self=False)],
        run=runner(answer),
        notes=notes,
    )


def keras_loaded(file: source.KerasFile, folder: Path) -> tuple[Any, list[str]]:
    """The model, loaded by Keras 3 from a copy that it can read; no code from the file is run."""
    config, notes = source.repaired(file.config)
    place = folder / f"model.{file.container}"
    try:
        _copy(file, config, place)
        return keras.models.load_model(str(place), compile=False, safe_mode=True), notes
    except (*LOAD_ERRORS, zipfile.BadZipFile) as e:
        raise _refusal(file, e) from e


def _copy(file: source.KerasFile, config: source.Config, place: Path) -> None:
    text = json.dumps(config)
    if file.container == "h5":
        shutil.copyfile(file.path, place)
        with h5py.File(place, "r+") as f:
            f.attrs["model_config"] = text
        return
    with zipfile.ZipFile(file.path) as old, zipfile.ZipFile(place, "w") as new:
        for item in old.infolist():
            if item.filename == "config.json":
                new.writestr(item.filename, text)
            else:
                with old.open(item) as read, new.open(item.filename, "w", force_zip64=True) as write:
                    shutil.copyfileobj(read, write)


def _refusal(file: source.KerasFile, error: Exception) -> Exception:
    name = repr(str(file.path))
    text = str(error)
    if custom := _CUSTOM.findall(text):
        unknown = [c for c in source.layer_classes(file.config) if not hasattr(keras.layers, c.rpartition(">")[2])]
        known = {"Functional", "Model", "Sequential"}
        all_of_them = [*(c for c in unknown if c not in known), *custom]
        names = list(dict.fromkeys(c.rpartition(">")[2] for c in all_of_them))
        return Unsupported(
            f"{name} holds custom objects: {', '.join(names[:6])}, whose code is not in the file", hint=source.EXPORT
        )
    if isinstance(error, KeyError):
        return UsageError(f"the weights in {name} lack {text}: the file is damaged", hint=source.AGAIN)
    if isinstance(error, OSError | zipfile.BadZipFile):
        return UsageError(f"the weights in {name} cannot be read: the file is damaged", hint=source.AGAIN)
    return UsageError(
        f"Keras {keras.__version__} does not load {name}, written by Keras {file.version}: {process.shortened(text)}",
        hint='Export it with the Keras that wrote it, model.export("folder"), and name that folder.',
    )


def _output_names(net: Any) -> list[str]:
    """The keys where the model gives a dict, else the names of the layers that the outputs come from."""
    if isinstance(net.output, dict):
        return sorted(map(str, net.output))
    named = getattr(net, "output_names", None) or [t._keras_history.operation.name for t in net.outputs]
    return [f"{name}.{number}" if named.count(name) > 1 else str(name) for number, name in enumerate(named)]


def converted(served: Served, job: process.Event) -> bytes:
    """The .tflite by TensorFlow's converter.

    Raises:
        Unsupported: LiteRT has no operation for one in the model.
    """
    converter = tf.lite.TFLiteConverter.from_saved_model(str(served.folder), signature_keys=[SIGNATURE])
    if "scheme" in job:
        _set(converter, served, job)
    try:
        return bytes(converter.convert())
    except ConverterError as e:
        raise _unconvertible(str(job["source"]), str(e)) from e


def _set(converter: Any, served: Served, job: process.Event) -> None:
    sets = tf.lite.OpsSet
    integers = {
        "w8a8": sets.TFLITE_BUILTINS_INT8,
        "w8a16": sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
    }
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if job["scheme"] == "f16":
        converter.target_spec.supported_types = [tf.float16]
    if job["scheme"] in integers:
        converter.target_spec.supported_ops = [integers[job["scheme"]], sets.TFLITE_BUILTINS]
        converter.representative_dataset = lambda: _samples(Path(job["data"]), served)
    if job["io"] == "int8":
        converter.inference_input_type = converter.inference_output_type = tf.int8


def _samples(folder: Path, served: Served) -> Iterator[dict[str, Array]]:
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as kept:
            yield {spec.name: kept[spec.name] for spec in served.specs}


def _unconvertible(path: str, text: str) -> Exception:
    missing = re.findall(r"'tf\.(\w+)' op is neither a custom op nor a flex op", text)
    for listed in re.findall(r"(?:TF Select|Flex|Custom) ops: ([\w, ]+)", text):
        missing += listed.replace(" ", "").split(",")
    if missing := list(dict.fromkeys(missing)):
        return Unsupported(
            f"LiteRT has no operation for TensorFlow's {', '.join(missing[:6])}, which {path!r} uses",
            hint="Take it out of the model, for example out of its preprocessing, and convert the rest.",
        )
    if "requires element_shape to be static" in text:
        return Unsupported(
            f"{path!r} has a recurrent layer whose batch is free, which TensorFlow's converter does not take",
            hint="Name the Keras file it was exported from, or export it with a batch of 1.",
        )
    return Unsupported(
        f"TensorFlow's converter refuses {path!r}: {process.shortened(text)}",
        hint="Take what it names out of the model, and convert the rest.",
    )


if __name__ == "__main__":
    process.serve(work)
