"""ONNX Runtime with the settings that make runs repeatable, and its refusals in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto
from onnxruntime.capi import onnxruntime_pybind11_state as state

from qm.plugin import Array, Batch, QmError, TensorSpec, Unsupported, UsageError

PROVIDER = "CPUExecutionProvider"
ALL = ort.GraphOptimizationLevel.ORT_ENABLE_ALL

_UNKNOWN = re.compile(r"(\S+?)\(-?\d+\) is not a registered function|No Op registered for (\S+) with")

ORT_ERRORS = (
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoModel,
    state.NoSuchFile,
    state.NotImplemented,
    state.RuntimeException,
    state.EPFail,
    RuntimeError,
    ValueError,
    TypeError,
)


def options(level: ort.GraphOptimizationLevel = ALL, *, threads: int = 1, exact: bool = False) -> ort.SessionOptions:
    """Session options: fixed threads that do not spin, no chatter; ``exact`` for kernels that cannot saturate."""
    settings = ort.SessionOptions()
    settings.graph_optimization_level = level
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4  # Errors are raised as well; printing them tells them twice.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if exact:
        settings.add_session_config_entry("session.x64quantprecision", "1")
    return settings


def open_proto(
    proto: ModelProto, *, name: str, folder: Path | None = None, settings: ort.SessionOptions | None = None
) -> ort.InferenceSession:
    """A session on a model in memory; ``folder`` is where its external data lies.

    Raises:
        UsageError: ONNX Runtime refuses the model.
        Unsupported: it does not know one of its operators.
    """
    settings = settings or options()
    if folder is not None:
        settings.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder.resolve()))
    try:
        content = proto.SerializeToString()
    except ValueError as e:
        raise UsageError(
            f"model {name!r} has more than 2 GB of weights in one piece",
            hint="Keep its weights in an external data file, as onnx.save does with save_as_external_data.",
        ) from e
    return opened(content, name, settings)


def open_file(path: Path, *, settings: ort.SessionOptions | None = None) -> ort.InferenceSession:
    """A session on a file.

    Raises:
        UsageError: ONNX Runtime refuses the file.
        Unsupported: it does not know one of its operators.
    """
    return opened(str(path), str(path), settings or options())


def opened(
    what: bytes | str, name: str, settings: ort.SessionOptions, *, without: Sequence[str] = ()
) -> ort.InferenceSession:
    """A session on the bytes or the path of a model, some optimizations left out.

    Raises:
        UsageError: ONNX Runtime refuses the model.
        Unsupported: it does not know one of its operators.
    """
    try:
        # Its fallback would print to the screen and try the same again.
        return ort.InferenceSession(what, settings, [PROVIDER], disabled_optimizers=list(without), enable_fallback=0)
    except ORT_ERRORS as e:
        raise refusal(name, e) from e


def refusal(name: str, error: Exception) -> QmError:
    """What to tell the user when ONNX Runtime does not open a model."""
    text = reason(error)
    if found := _UNKNOWN.search(text):
        what = found[1] or found[2]
        return Unsupported(
            f"ONNX Runtime {ort.__version__} has no operator {what!r}, which model {name!r} uses",
            hint="Export the model with standard operators.",
        )
    if "NOT_IMPLEMENTED" in str(error) or isinstance(error, state.NotImplemented):
        return Unsupported(f"ONNX Runtime {ort.__version__} cannot run model {name!r}: {text}")
    return UsageError(
        f"ONNX Runtime {ort.__version__} refuses model {name!r}: {text}",
        hint="Check the model with onnx.checker.check_model, or export it again.",
    )


def reason(error: Exception) -> str:
    """The part of an ONNX Runtime error that is worth reading, in one line."""
    text = " ".join(str(error).split())
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ", "", text)
    text = re.sub(r"^Load model from .*? failed: ?", "", text)
    # Where in ONNX Runtime's own code it was raised: file, line and C++ signature.
    text = re.sub(r"^\S+\.(?:cc|h):\d+ \S+(?: ?\(.*?\))? ", "", text)
    text = re.sub(r"^(?:const )?onnxruntime::.*?&\) ", "", text)
    return text.removeprefix("This is an invalid model. ").rstrip(". ")


def specs(values: Sequence[ort.NodeArg]) -> tuple[TensorSpec, ...]:
    """Inputs or outputs of a session."""
    return tuple(TensorSpec(name=v.name, shape=_shape(v), dtype=dtype(v.type)) for v in values)


def _shape(value: ort.NodeArg) -> tuple[int | None, ...]:
    return tuple(n if isinstance(n, int) else None for n in value.shape or ())


def dtype(ort_type: str) -> str:
    """NumPy's name of a type such as ``tensor(float)``."""
    inner = str(ort_type).partition("(")[2].rstrip(")")
    return {"float": "float32", "double": "float64", "string": "object"}.get(inner, inner)


def type_name(element: int) -> str:
    """NumPy's name of an ONNX element type."""
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(element).name)
    except (KeyError, ValueError):
        return str(onnx.TensorProto.DataType.Name(element)).lower()


def run(session: ort.InferenceSession, batch: Batch, outputs: Sequence[str]) -> dict[str, Array]:
    """The outputs by name.

    Raises:
        UsageError: the batch does not fit the model's inputs.
    """
    expected = specs(session.get_inputs())
    feed = {s.name: np.asarray(batch[s.name]) for s in expected if s.name in batch}
    with fitting(expected, batch):
        values = session.run(list(outputs), feed)
    return {name: np.asarray(value) for name, value in zip(outputs, values, strict=True)}


@contextmanager
def fitting(expected: Sequence[TensorSpec], batch: Batch) -> Iterator[None]:
    """Check a batch against the inputs, and turn what ONNX Runtime still objects to into a sentence."""
    if problem := mismatch(expected, batch):
        raise UsageError(problem, hint=f"The model takes {', '.join(map(str, expected)) or 'no inputs'}.")
    try:
        yield
    except ORT_ERRORS as e:
        came = ", ".join(f"{k} {np.asarray(v).dtype} {list(np.shape(v))}" for k, v in batch.items())
        raise UsageError(
            f"ONNX Runtime stopped on the input {came}: {reason(e)}",
            hint=f"The model takes {', '.join(map(str, expected))}.",
        ) from e


def mismatch(expected: Sequence[TensorSpec], batch: Mapping[str, Array]) -> str:
    """What is wrong with a batch, empty where nothing is."""
    names = {s.name for s in expected}
    if lacking := [s.name for s in expected if s.name not in batch]:
        return f"the batch lacks the input {lacking[0]!r}; it has {', '.join(map(repr, batch)) or 'nothing'}"
    if unknown := [name for name in batch if name not in names]:
        return f"the model has no input {unknown[0]!r}"
    for spec in expected:
        array = np.asarray(batch[spec.name])
        if spec.dtype != "object" and array.dtype.name != spec.dtype:
            return f"the input {spec.name!r} must be {spec.dtype}, not {array.dtype.name}"
        fits = len(array.shape) == len(spec.shape) and all(
            n is None or n == m for n, m in zip(spec.shape, array.shape, strict=True)
        )
        if spec.shape and not fits:
            sizes = ", ".join("?" if n is None else str(n) for n in spec.shape)
            return f"the input {spec.name!r} must have the shape [{sizes}], not {list(array.shape)}"
    return ""
