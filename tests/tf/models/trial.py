"""Writes models of many kinds into a folder and converts each, in one process; ``told.json`` says what came of it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow as tf

from qm.plugin import LoadJob, QmError
from qm_tf import conversion, convert, process

PLACE = Path(sys.argv[1])
L = keras.layers
MODELS: dict[str, keras.Model] = {}


def plain(extra: Any = None, shape: tuple[int | None, ...] = (8, 8, 3)) -> keras.Model:
    image = keras.Input(shape, name="image")
    x = L.Conv2D(4, 3, name="conv")(image)
    x = L.DepthwiseConv2D(3, name="depthwise")(x)
    x = L.GlobalAveragePooling2D(name="pool")(extra(x) if extra else x)
    return keras.Model(image, L.Dense(5, activation="softmax", name="answer")(x))


def two(structure: type) -> keras.Model:
    right, left = keras.Input((8,), name="right"), keras.Input((4,), name="left")
    x = L.Concatenate()([L.Dense(5, name="a")(right), L.Dense(5, name="b")(left)])
    second, first = L.Dense(2, name="second")(x), L.Dense(3, name="first")(x)
    if structure is list:
        return keras.Model([right, left], [second, first])
    return keras.Model({"right": right, "left": left}, {"two": second, "one": first})


@keras.saving.register_keras_serializable("acme")
class Triple(keras.Layer):
    def call(self, x: Any) -> Any:
        return x * 3


def square(x: Any) -> Any:
    return x * x


def keras_files() -> None:
    kinds: dict[str, Any] = {
        "plain.keras": plain(),
        "plain_h5.h5": plain(),
        "free.keras": plain(shape=(None, None, 3)),
        "lists.keras": two(list),
        "dicts.keras": two(dict),
        "recurrent.keras": keras.Sequential([keras.Input((7, 3)), L.LSTM(6), L.Dense(2, name="answer")]),
        "custom_h5.h5": plain(Triple()),
        "function.keras": plain(L.Activation(square)),
        "unbuilt.keras": keras.Sequential([L.Dense(2)]),
    }
    x = keras.Input((8,), name="x")
    inner = keras.Sequential([keras.Input((8,)), L.Dense(4, name="deep")], name="inner")
    kinds["nested.keras"] = keras.Model(x, L.Dense(2, name="answer")(inner(x)))
    kinds["identity.keras"] = keras.Model(x, x)
    matrix, words = keras.Input((4, 4)), keras.Input((), dtype="string", name="words")
    kinds["inverse.keras"] = keras.Model(matrix, keras.ops.inv(matrix))
    kinds["text.keras"] = keras.Model(words, L.Hashing(10)(words))
    keras.config.set_dtype_policy("mixed_float16")
    kinds["mixed.keras"] = plain()
    keras.config.set_dtype_policy("float32")
    for file, model in kinds.items():
        model.save(PLACE / file)
        MODELS[Path(file).stem] = model
    MODELS["mixed"] = plain()  # The answers of the same weights in float32.
    MODELS["mixed"].set_weights(kinds["mixed.keras"].get_weights())
    spoil(PLACE / "plain_h5.h5", PLACE / "broken_weights.h5")


def spoil(path: Path, made: Path) -> None:
    import h5py

    shutil.copyfile(path, made)
    with h5py.File(made, "r+") as file:
        del file["model_weights"]["conv"]


class Functions(tf.Module):
    def __init__(self) -> None:
        self.weight = tf.Variable(np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4))

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def product(self, x: Any) -> Any:
        return {"o": x @ self.weight}

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def noisy(self, x: Any) -> Any:
        return {"o": x @ self.weight + tf.random.normal((1, 4))}

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def rounded(self, x: Any) -> Any:
        return {"o": tf.quantization.fake_quant_with_min_max_args(x @ self.weight, -1, 1)}


def folders() -> None:
    MODELS["exported"] = plain()
    MODELS["exported"].export(str(PLACE / "exported"), verbose=False)
    MODELS["recurrent"].export(str(PLACE / "free_loop"), verbose=False)
    it = Functions()
    for name, signatures in {
        "only": {"mine": it.product},
        "several": {"a": it.product, "b": it.noisy},
        "random": {"serving_default": it.noisy},
        "fake_quantized": {"serving_default": it.rounded},
        "no_signature": {},
    }.items():
        tf.saved_model.save(it, str(PLACE / name), signatures=signatures)
    shutil.copytree(PLACE / "exported", PLACE / "no_variables")
    shutil.rmtree(PLACE / "no_variables" / "variables")
    shutil.copytree(PLACE / "exported", PLACE / "cut")
    (PLACE / "cut" / "saved_model.pb").write_bytes((PLACE / "exported" / "saved_model.pb").read_bytes()[:9000])
    first_tensorflow()


def first_tensorflow() -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 4])
        answer = tf.nn.relu(x @ v1.get_variable("layer/weight", [4, 3]))
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(PLACE / "first_tensorflow"), {"x": x}, {"answer": answer})


def here(module: str, job: process.Event, *, what: str) -> process.Event:
    """The work of the child, in this process."""
    return conversion.work(job, lambda event: None)


def told(path: Path) -> dict[str, Any]:
    try:
        model = (convert.load_saved_model if path.is_dir() else convert.load_keras)(LoadJob(path=path))
    except QmError as e:
        return {"kind": type(e).__name__, "message": e.message, "hint": e.hint}
    return {
        "inputs": [str(s) for s in model.inputs()],
        "outputs": [str(s) for s in model.outputs()],
        "layers": [layer.name for layer in model.layers()],
        "notes": list(model.notes),
        "difference": difference(path, model),
    }


def difference(path: Path, model: Any) -> float | None:
    """The largest one from what Keras, or the SavedModel's own signature, answers."""
    rng = np.random.default_rng(1)
    batch = {s.name: rng.standard_normal([n or 16 for n in s.shape]).astype(np.float32) for s in model.inputs()}
    got = list(model.run(batch).values())
    if path.stem in MODELS:
        net = MODELS[path.stem]
        values = list(batch.values())
        expected = keras.tree.flatten(
            net(keras.tree.pack_sequence_as(net.inputs if len(values) == 1 else net.input, values))
        )
    elif path.stem == "first_tensorflow":
        signature = tf.saved_model.load(str(path)).signatures["serving_default"]
        expected = list(signature(**{k: tf.constant(v) for k, v in batch.items()}).values())
    else:
        return None
    return max(float(np.abs(g - np.asarray(e)).max()) for g, e in zip(got, expected, strict=True))


if __name__ == "__main__":
    os.environ["QM_CACHE"] = str(PLACE / "cache")
    keras.utils.set_random_seed(0)
    keras_files()
    folders()
    keras.saving.get_custom_objects().clear()
    process.run = here
    paths = [p for p in sorted(PLACE.iterdir()) if p.name != "cache"]
    (PLACE / "told.json").write_text(json.dumps({p.stem: told(p) for p in paths}))
