"""What a Keras file is, told without TensorFlow: which Keras wrote it, and what in it cannot be converted."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from qm.plugin import Unsupported, UsageError, contents

Config = dict[str, Any]

EXPORT = 'Where its code is at hand, model.export("folder") writes a SavedModel that needs no code: name that folder.'
AGAIN = "Download it, or save it again."
WHOLE = "Save the whole model: model.save(...), not model.save_weights(...)."

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_OTHERS = (
    (0, b"version https://git-lfs", "a Git LFS pointer", "Fetch the file itself: git lfs pull"),
    (4, b"TFL3", "a TensorFlow Lite model", "Give the file the suffix .tflite."),
    (0, b"\x1f\x8b", "a gzip archive", "Unpack it."),
)
_STRIPPED = {
    "ClusterWeights": ("clustering", "Take the wrappers off first: strip_clustering(model)."),
    "PruneLowMagnitude": ("pruning", "Take the wrappers off first: strip_pruning(model)."),
}
_FAKE_QUANTIZED = ("QuantizeAnnotate", "QuantizeLayer", "QuantizeWrapper", "QuantizeWrapperV2")
_TENSORFLOW_LAYERS = ("ClassMethod", "InstanceMethod", "InstanceProperty", "SlicingOpLambda", "TFOpLambda")
_DROPPED: dict[str, tuple[str, Any]] = {
    "DepthwiseConv2D": ("groups", 1),
    "GRU": ("time_major", False),
    "LSTM": ("time_major", False),
    "RNN": ("time_major", False),
}
"""Arguments that Keras 2 writes and Keras 3 refuses, at the value where they do nothing."""
_MIXED = ("mixed_float16", "mixed_bfloat16")


@dataclass(frozen=True, kw_only=True)
class KerasFile:
    """A file that holds a whole Keras model. ``config`` is the model's, as its Keras wrote it."""

    path: Path
    container: Literal["h5", "keras"]
    version: str
    config: Config = field(repr=False)

    @property
    def generation(self) -> int:
        """3 for Keras 3, 2 for what came before."""
        return 3 if self.version.split(".")[0] not in ("0", "1", "2") else 2


def read(path: Path) -> KerasFile:
    """The file, its weights not read.

    Raises:
        UsageError: it is missing, empty, damaged, something else, or holds weights alone.
    """
    head = _head(path)
    if head.startswith(_HDF5):
        return _hdf5(path)
    if head.startswith(_ZIP):
        return _archive(path)
    for at, magic, what, hint in _OTHERS:
        if head[at : at + len(magic)] == magic:
            raise UsageError(f"{str(path)!r} is {what}, not a Keras model", hint=hint)
    what = "text" if head.isascii() and b"\0" not in head else "neither HDF5 nor a .keras archive"
    raise UsageError(f"{str(path)!r} is no Keras model: it is {what}", hint=AGAIN)


def _head(path: Path) -> bytes:
    return contents(path, "a Keras file", most=256)


def _hdf5(path: Path) -> KerasFile:
    import h5py  # It comes with TensorFlow; a .tflite is read without either.

    try:
        with h5py.File(path, "r") as file:
            attributes = dict(file.attrs)
            is_keras = {"layer_names", "keras_version"} & set(attributes) or {"layers", "vars", "model_weights"} & set(
                file
            )
    except (OSError, RuntimeError, KeyError):
        raise _damaged(path) from None
    if "model_config" not in attributes:
        if is_keras:
            raise UsageError(f"{str(path)!r} holds only the weights of a model, not the model", hint=WHOLE)
        raise UsageError(f"{str(path)!r} is an HDF5 file that holds no Keras model", hint="Name another file.")
    return KerasFile(
        path=path,
        container="h5",
        version=_text(attributes.get("keras_version", "2")),
        config=_parsed(path, _text(attributes["model_config"])),
    )


def _archive(path: Path) -> KerasFile:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if "config.json" not in names or "metadata.json" not in names:
                raise UsageError(
                    f"{str(path)!r} is a zip archive that holds no Keras model", hint="Name a .keras file."
                )
            config, metadata = archive.read("config.json"), archive.read("metadata.json")
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError):
        raise _damaged(path) from None
    if not any(name.startswith("model.weights.") for name in names):
        raise UsageError(f"{str(path)!r} holds no weights", hint="Save the model again.")
    return KerasFile(
        path=path,
        container="keras",
        version=str(_parsed(path, metadata.decode("utf-8", "replace")).get("keras_version", "3")),
        config=_parsed(path, config.decode("utf-8", "replace")),
    )


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _parsed(path: Path, text: str) -> Config:
    try:
        found = json.loads(text)
    except ValueError:
        raise _damaged(path) from None
    if not isinstance(found, dict):
        raise _damaged(path)
    return found


def _damaged(path: Path) -> UsageError:
    nbytes = path.stat().st_size if path.exists() else 0
    return UsageError(f"model {str(path)!r} is damaged or cut short at {nbytes:,} bytes", hint=AGAIN)


def check(file: KerasFile) -> None:
    """Refuse what cannot be converted and is seen in the file already.

    Raises:
        Unsupported: it is of the other Keras, holds code, or is quantized.
    """
    name = repr(str(file.path))
    if file.container == "keras" and file.generation == 2:
        raise Unsupported(
            f"{name} was written by Keras {file.version} (tf_keras), whose .keras files Keras 3 does not read",
            hint='Save it as HDF5 with that Keras: tf_keras.models.load_model(...).save("model.h5"), and name that.',
        )
    nodes = tuple(_nodes(file.config))
    _check_quantized(name, nodes)
    if code := _names(n for n in nodes if _is_code(n)):
        raise Unsupported(
            f"{name} holds Python code in {_listed('Lambda layer', code)}, and code from a file is never run",
            hint=f"Replace it by a layer of Keras. {EXPORT}",
        )
    old = [n for n in nodes if n["class_name"] in _TENSORFLOW_LAYERS]
    if file.generation == 2 and old:
        raise Unsupported(
            f"{name} uses TensorFlow functions as layers ({', '.join(_names(old)[:3])}), which Keras 3 does not read",
            hint='Export it with the Keras that wrote it: tf_keras.models.load_model(...).export("folder").',
        )
    if custom := custom_classes(file.config):
        top = file.config.get("class_name")
        what = f"the subclassed model {top!r}" if top in custom else f"custom objects: {', '.join(custom[:6])}"
        raise Unsupported(f"{name} holds {what}, whose code is not in the file", hint=EXPORT)


def _check_quantized(name: str, nodes: tuple[Config, ...]) -> None:
    before = "Name the float model that it was made from."
    for node in nodes:
        kind = node["class_name"].rpartition(">")[2]
        if kind in _FAKE_QUANTIZED:
            raise Unsupported(f"{name} is quantized already: it holds a {kind!r}", hint=before)
        if kind in ("QuantizedDTypePolicy", "QuantizedFloat8DTypePolicy"):
            mode = node.get("config", {}).get("mode", "an integer type")
            raise Unsupported(f"{name} is quantized already: Keras stores it in {mode}", hint=before)
        if kind in _STRIPPED:
            what, hint = _STRIPPED[kind]
            raise Unsupported(f"{name} holds the wrappers of {what} ({kind})", hint=hint)


def _nodes(value: Any) -> Iterator[Config]:
    """Every object of a configuration that has a class."""
    if isinstance(value, dict):
        if isinstance(value.get("class_name"), str):
            yield value
        for inner in value.values():
            yield from _nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _nodes(inner)


def _is_code(node: Config) -> bool:
    config = node.get("config")
    if node["class_name"] != "Lambda" or not isinstance(config, dict):
        return False
    function = config.get("function")
    marked = isinstance(function, dict) and function.get("class_name") == "__lambda__"
    return marked or config.get("function_type") == "lambda"


def _names(nodes: Iterator[Config] | list[Config]) -> list[str]:
    configs = [n.get("config") for n in nodes]
    return [str(c.get("name", "?")) for c in configs if isinstance(c, dict)]


def _listed(what: str, names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"the {what}{'s' if len(names) > 1 else ''} {', '.join(map(repr, names[:4]))}{more}"


def custom_classes(config: Config) -> list[str]:
    """Classes that do not come with Keras, as Keras 3 marks them; of functions it keeps the bare name."""
    nodes = (n for n in _nodes(config) if n.get("registered_name") and n["class_name"] != "function")
    return list(dict.fromkeys(n["class_name"] for n in nodes if not str(n.get("module")).startswith("keras")))


def layer_classes(config: Config) -> list[str]:
    """The classes of a model's layers."""
    layers = config.get("config", {})
    inner = layers.get("layers", []) if isinstance(layers, dict) else layers
    return list(dict.fromkeys(n["class_name"] for n in inner if isinstance(n, dict) and "class_name" in n))


def repaired(config: Config) -> tuple[Config, list[str]]:
    """The configuration as Keras 3 reads it, in float32 throughout, and what was done to it."""
    notes: list[str] = []
    made = _repaired(config, notes)
    assert isinstance(made, dict)
    return made, list(dict.fromkeys(notes))


def _repaired(value: Any, notes: list[str]) -> Any:
    if isinstance(value, list):
        return [_repaired(inner, notes) for inner in value]
    if not isinstance(value, dict):
        return value
    made = {key: _repaired(inner, notes) for key, inner in value.items()}
    config = made.get("config")
    kind, dropped = str(made.get("class_name")), _DROPPED.get(str(made.get("class_name")))
    if dropped and isinstance(config, dict) and config.get(dropped[0]) == dropped[1]:
        config.pop(dropped[0])
        notes.append(f"the idle argument {dropped[0]!r} of {kind} layers was dropped: Keras 3 does not know it")
    if kind == "Sequential" and isinstance(config, list):  # As Keras before 2.2.3 wrote it.
        made["config"] = {"name": "sequential", "layers": config}
    if kind in ("DTypePolicy", "Policy") and isinstance(config, dict) and config.get("name") in _MIXED:
        notes.append(f"the model was trained in {config['name']} and is converted in float32, as its weights are")
        return "float32"
    return made
