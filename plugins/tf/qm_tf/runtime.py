"""LiteRT's interpreter with settings that make runs repeatable, and its refusals in one sentence."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from qm.plugin import Array, Batch, QmError, TensorSpec, Unsupported, UsageError

_SELECT = re.compile(r"Select TensorFlow op\(s\)|Flex\w+")
_UNRESOLVED = re.compile(r"Encountered unresolved custom op: (\w+)")
_INTEGERS = ("int8", "uint8", "int16")


def version() -> str:
    """LiteRT's version."""
    return metadata.version("ai-edge-litert")


def opened(content: bytes, name: str, *, threads: int = 1, xnnpack: bool = True) -> Interpreter:
    """An interpreter on the bytes of a model, its tensors allocated.

    Raises:
        UsageError: LiteRT refuses the model.
        Unsupported: it does not know one of its operators.
    """
    kind = OpResolverType.AUTO if xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        with quiet():
            made = Interpreter(model_content=content, num_threads=threads, experimental_op_resolver_type=kind)
            made.allocate_tensors()
    except (ValueError, RuntimeError, TypeError) as e:
        raise refusal(name, e) from e
    return made


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what native code writes to the error stream off the screen."""
    kept = os.dup(2)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def refusal(name: str, error: Exception) -> QmError:
    """What to tell the user when LiteRT does not open a model."""
    text = " ".join(str(error).split())
    if _SELECT.search(text):
        return Unsupported(
            f"model {name!r} uses TensorFlow operations (SELECT_TF_OPS) that LiteRT {version()} does not run",
            hint="Convert it with builtin operations only.",
        )
    if found := _UNRESOLVED.search(text):
        return Unsupported(
            f"LiteRT {version()} has no operation {found[1]!r}, which model {name!r} uses",
            hint="Convert it with builtin operations only.",
        )
    return UsageError(f"LiteRT {version()} refuses model {name!r}: {text[:200]}", hint="Convert it again.")


def is_rounded(details: Mapping[str, Any]) -> bool:
    """Whether an input or output holds integers that stand for real values."""
    return np.dtype(details["dtype"]).name in _INTEGERS and details["quantization"][0] != 0


def specs(details: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    """Inputs or outputs; those of integers with a scale are fed and read as the real values they stand for."""
    return tuple(
        TensorSpec(
            name=d["name"],
            shape=_shape(d),
            dtype="float32" if is_rounded(d) else np.dtype(d["dtype"]).name,
        )
        for d in details
    )


def _shape(details: Mapping[str, Any]) -> tuple[int | None, ...]:
    signature = details.get("shape_signature")
    lengths = details["shape"] if signature is None or not len(signature) else signature
    return tuple(None if n < 0 else int(n) for n in lengths)


def run(interpreter: Interpreter, batch: Batch) -> dict[int, Array]:
    """The outputs by tensor number, as stored.

    Raises:
        UsageError: the batch does not fit the model's inputs.
    """
    given = interpreter.get_input_details()
    if problem := mismatch(specs(given), batch):
        raise UsageError(problem, hint=f"The model takes {', '.join(map(str, specs(given))) or 'no inputs'}.")
    resized = False
    for d in given:
        length = np.shape(batch[d["name"]])
        if tuple(d["shape"]) != length:
            interpreter.resize_tensor_input(d["index"], list(length))
            resized = True
    try:
        if resized:
            with quiet():
                interpreter.allocate_tensors()
        for d in given:
            interpreter.set_tensor(d["index"], fed(np.asarray(batch[d["name"]]), d))
        interpreter.invoke()
    except (ValueError, RuntimeError) as e:
        came = ", ".join(f"{k} {np.asarray(v).dtype} {list(np.shape(v))}" for k, v in batch.items())
        raise UsageError(
            f"LiteRT stopped on the input {came}: {' '.join(str(e).split())[:200]}",
            hint=f"The model takes {', '.join(map(str, specs(given)))}.",
        ) from e
    return {d["index"]: interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()}


def fed(values: Array, details: Mapping[str, Any]) -> Array:
    """The values as the input takes them: real ones rounded to its integers, integers of its type as they are."""
    if not is_rounded(details) or values.dtype == details["dtype"]:
        return values
    scale, zero = details["quantization"]
    limits = np.iinfo(details["dtype"])
    rounded: Array = np.clip(np.rint(values / np.float32(scale)) + zero, limits.min, limits.max)
    return rounded.astype(np.dtype(details["dtype"]))


def restored(values: Array, details: Mapping[str, Any]) -> Array:
    """Real values of an output or activation that is stored in integers."""
    if not is_rounded(details):
        return values
    scale, zero = details["quantization"]
    made: Array = (values.astype(np.float32) - np.float32(zero)) * np.float32(scale)
    return made


def mismatch(expected: Sequence[TensorSpec], batch: Batch) -> str:
    """What is wrong with a batch, empty where nothing is."""
    names = {s.name for s in expected}
    if lacking := [s.name for s in expected if s.name not in batch]:
        return f"the batch lacks the input {lacking[0]!r}; it has {', '.join(map(repr, batch)) or 'nothing'}"
    if unknown := [name for name in batch if name not in names]:
        return f"the model has no input {unknown[0]!r}"
    for spec in expected:
        array = np.asarray(batch[spec.name])
        if array.dtype.name != spec.dtype and not (spec.dtype == "float32" and array.dtype.name in _INTEGERS):
            return f"the input {spec.name!r} must be {spec.dtype}, not {array.dtype.name}"
        fits = len(array.shape) == len(spec.shape) and all(
            n is None or n == m for n, m in zip(spec.shape, array.shape, strict=True)
        )
        if not fits:
            sizes = ", ".join("?" if n is None else str(n) for n in spec.shape)
            return f"the input {spec.name!r} must have the shape [{sizes}], not {list(array.shape)}"
    return ""
