"""A SavedModel folder, brought to the form that is converted; in the process that has TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorflow.core.protobuf import saved_model_pb2

from qm.plugin import UsageError
from qm_tf import process, source
from qm_tf.served import LOAD_ERRORS, SIGNATURE, Served, fixed, runner


def served(path: Path, folder: Path) -> Served:
    """A SavedModel, brought to the form."""
    tags, key, described = chosen(path)
    names = sorted(described.inputs)
    tensors = [described.inputs[n] for n in names]
    specs = [
        fixed([None if d.size < 0 else d.size for d in t.tensor_shape.dim], tf.as_dtype(t.dtype), number)
        for number, t in enumerate(tensors)
    ]
    outputs = sorted(described.outputs)
    module = tf.Module()
    call, module.kept, layers = _callable(path, tags, key, names, outputs)

    def answer(*values: Any) -> dict[str, Any]:
        made = call(values)
        return {f"o{number:03}": value for number, value in enumerate(made)}

    module.answer = tf.function(answer, input_signature=specs)
    tf.saved_model.save(module, str(folder / "served"), signatures={SIGNATURE: module.answer})
    return Served(
        folder=folder / "served",
        specs=specs,
        inputs=names,
        outputs=outputs,
        layers=layers,
        run=runner(module.answer),
    )


def chosen(path: Path) -> tuple[list[str], str, Any]:
    """The tags of the graph to take, and its signature by key and description.

    Raises:
        UsageError: the file is damaged, or there is none to choose.
    """
    found = saved_model_pb2.SavedModel()
    try:
        found.ParseFromString((path / "saved_model.pb").read_bytes())
    except DecodeError:
        raise UsageError(f"{str(path / 'saved_model.pb')!r} is damaged", hint=source.AGAIN) from None
    graphs = [g for g in found.meta_graphs if "serve" in g.meta_info_def.tags] or list(found.meta_graphs)
    usable = {k: s for g in graphs[:1] for k, s in g.signature_def.items() if s.outputs and not k.startswith("__")}
    if SIGNATURE not in usable and len(usable) != 1:
        there = f": there are {', '.join(sorted(usable))}" if usable else ""
        raise UsageError(
            f"{str(path)!r} has no signature {SIGNATURE!r} to convert{there}",
            hint=f"Save it with signatures={{{SIGNATURE!r}: ...}}, the function that answers.",
        )
    key = SIGNATURE if SIGNATURE in usable else next(iter(usable))
    return list(graphs[0].meta_info_def.tags), key, usable[key]


def _callable(
    path: Path, tags: list[str], key: str, inputs: list[str], outputs: list[str]
) -> tuple[Callable[[Sequence[Any]], list[Any]], Any, list[str]]:
    """The signature as a function of values in order, what it needs kept alive, and the names of its layers."""
    try:
        loaded = tf.saved_model.load(str(path), tags=tags)
        signature = loaded.signatures[key]
        if not hasattr(loaded, "graph"):  # Else written by TensorFlow 1.
            layers = [v.name.rpartition("/")[0].rpartition("/")[2] for v in signature.variables]
            return _by_name(loaded, key, inputs, outputs), loaded, list(dict.fromkeys(layers))
    except LOAD_ERRORS:  # Objects that nobody here knows, an old optimizer for one. The graph needs none of them.
        pass
    frozen, fed, fetched = _frozen(path, tags, key, inputs, outputs)

    def call(values: Sequence[Any]) -> list[Any]:
        feeds = dict(zip(fed, values, strict=True))
        return list(tf.graph_util.import_graph_def(frozen, input_map=feeds, return_elements=fetched, name=""))

    return call, None, []


def _by_name(loaded: Any, key: str, inputs: list[str], outputs: list[str]) -> Callable[[Sequence[Any]], list[Any]]:
    def call(values: Sequence[Any]) -> list[Any]:  # Holds all that was loaded: a signature alone loses its variables.
        made = loaded.signatures[key](**dict(zip(inputs, values, strict=True)))
        return [made[name] for name in outputs]

    return call


def _frozen(
    path: Path, tags: list[str], key: str, inputs: list[str], outputs: list[str]
) -> tuple[Any, list[str], list[str]]:
    """The graph with its variables as constants, and the tensors to feed and to fetch."""
    v1 = tf.compat.v1
    try:
        with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
            described = v1.saved_model.load(session, tags, str(path)).signature_def[key]
            fed = [described.inputs[n].name for n in inputs]
            fetched = [described.outputs[n].name for n in outputs]
            nodes = sorted({name.partition(":")[0] for name in fetched})
            return v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), nodes), fed, fetched
    except (*LOAD_ERRORS, tf.errors.OpError) as e:
        raise UsageError(
            f"TensorFlow {tf.__version__} does not load {str(path)!r}: {process.shortened(str(e))}",
            hint="Save it again with the TensorFlow that made it, its folder 'variables' beside saved_model.pb.",
        ) from e
