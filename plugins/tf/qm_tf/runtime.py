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
_FLEX = re.compile(r"\bFlex([A-Z]\w+)")
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
        named = "".join(f" {op!r}," for op in dict.fromkeys(_FLEX.findall(text)))
        return Unsupported(
            f"model {name!r} uses TensorFlow operations (SELECT_TF_OPS),{named} that LiteRT {version()} does not run",
            hint="Convert it with builtin operations only.",
        )
    if found := _UNRESOLVED.search(text):
        return Unsupported(
            f"LiteRT {version()} has no operation {found[1]!r}, which model {name!r} uses",
            hint="Convert it with builtin operations only.",
        )
    if "not a valid Flatbuffer" in text:
        return UsageError(f"model {name!r} is damaged or cut short", hint="Download or convert it again.")
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


class Runner:
    """An interpreter with its inputs and outputs at hand: asking for them takes longer than a small model runs.

    ``names`` are what batches call the inputs and outputs, by tensor number, where not as the file does.
    """

    def __init__(self, interpreter: Interpreter, names: Mapping[int, str] | None = None) -> None:
        self.interpreter = interpreter
        self.inputs = renamed(interpreter.get_input_details(), names or {})
        self.outputs = renamed(interpreter.get_output_details(), names or {})
        self._shapes = {d["index"]: tuple(int(n) for n in d["shape"]) for d in self.inputs}
        self._accepted: tuple[tuple[str, Any, tuple[int, ...]], ...] | None = None

    def run(self, batch: Batch) -> dict[int, Array]:
        """The outputs by tensor number, as stored.

        Raises:
            UsageError: the batch does not fit the model's inputs.
        """
        arrays = {name: np.asarray(value) for name, value in batch.items()}
        key = tuple((name, a.dtype, a.shape) for name, a in arrays.items())
        if key != self._accepted:
            self._accept(arrays)
        try:
            for d in self.inputs:
                self.interpreter.set_tensor(d["index"], fed(arrays[d["name"]], d))
            self.interpreter.invoke()
        except (ValueError, RuntimeError) as e:
            raise self._stopped(arrays, e) from e
        self._accepted = key
        return {d["index"]: self.interpreter.get_tensor(d["index"]) for d in self.outputs}

    def restored(self, values: Mapping[int, Array]) -> dict[str, Array]:
        """The outputs by name, as real values."""
        return {d["name"]: restored(values[d["index"]], d) for d in self.outputs}

    def _accept(self, arrays: Batch) -> None:
        """Check that the batch fits, and make room for its shapes."""
        self._accepted = None
        if problem := mismatch(specs(self.inputs), arrays):
            raise UsageError(problem, hint=f"The model takes {', '.join(map(str, specs(self.inputs))) or 'no inputs'}.")
        shapes = {d["index"]: arrays[d["name"]].shape for d in self.inputs}
        if shapes == self._shapes:
            return
        try:
            for number, shape in shapes.items():
                if shape != self._shapes[number]:
                    self.interpreter.resize_tensor_input(number, list(shape))
            with quiet():
                self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as e:
            self._shapes = dict.fromkeys(shapes, (-1,))  # What was there before is not known: the next batch sets all.
            raise self._stopped(arrays, e) from e
        self._shapes = shapes

    def _stopped(self, arrays: Batch, error: Exception) -> UsageError:
        came = ", ".join(f"{k} {v.dtype} {list(v.shape)}" for k, v in arrays.items())
        return UsageError(
            f"LiteRT stopped on the input {came}: {' '.join(str(error).split())[:200]}",
            hint=f"The model takes {', '.join(map(str, specs(self.inputs)))}.",
        )


def run(interpreter: Interpreter, batch: Batch) -> dict[int, Array]:
    """As a ``Runner`` does it, once."""
    return Runner(interpreter).run(batch)


def renamed(details: Sequence[Mapping[str, Any]], names: Mapping[int, str]) -> list[dict[str, Any]]:
    """Inputs or outputs under other names, by tensor number."""
    return [{**d, "name": names.get(d["index"], d["name"])} for d in details]


def fed(values: Array, details: Mapping[str, Any]) -> Array:
    """The values as the input takes them: real ones rounded to its integers, integers of its type as they are."""
    if not is_rounded(details) or values.dtype == details["dtype"]:
        return values
    scale, zero = details["quantization"]
    limits = np.iinfo(details["dtype"])
    scaled: Array = np.asarray(values / np.float32(scale))
    np.rint(scaled, out=scaled)
    scaled += zero
    np.clip(scaled, limits.min, limits.max, out=scaled)
    return scaled.astype(np.dtype(details["dtype"]))


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
