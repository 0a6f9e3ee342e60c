"""Writes the small models beside it: float, untrained, and the same at each run. Needs TensorFlow and Keras."""

import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import tensorflow as tf

HERE = Path(__file__).parent


def small() -> keras.Model:
    """Convolution, batch norm and ReLU; a depthwise one with ReLU6; a residual sum; pooling; two dense layers."""
    layers = keras.layers
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_norm")(x))
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    y = layers.Conv2D(16, 1, name="pointwise")(layers.ReLU(max_value=6, name="depthwise_relu")(y))
    x = layers.ReLU(name="sum_relu")(layers.Add(name="sum")([x, y]))
    x = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu", name="down")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(32, activation="relu", name="hidden")(x)
    x = layers.Dense(10, name="logits")(x)
    return keras.Model(image, layers.Softmax(name="probabilities")(x), name="small")


def mlp() -> keras.Model:
    """Three dense layers, linear at the end."""
    features = keras.Input((40,), name="features")
    x = keras.layers.Dense(64, activation="relu", name="first")(features)
    x = keras.layers.Dense(64, activation="relu", name="second")(x)
    return keras.Model(features, keras.layers.Dense(40, name="last")(x), name="mlp")


def words() -> keras.Model:
    """An embedding, its mean, and a dense layer."""
    ids = keras.Input((12,), dtype="int32", name="ids")
    x = keras.layers.Embedding(200, 16, name="table")(ids)
    x = keras.layers.GlobalAveragePooling1D(name="mean")(x)
    return keras.Model(ids, keras.layers.Dense(4, name="answer")(x), name="words")


def twice() -> keras.Model:
    """One dense layer, used two times."""
    features = keras.Input((16,), name="features")
    layer = keras.layers.Dense(16, activation="relu", name="shared")
    return keras.Model(features, keras.layers.Dense(8, name="last")(layer(layer(features))), name="twice")


def convert(net: keras.Model) -> bytes:
    archive = keras.export.ExportArchive()
    archive.track(net)
    spec = [keras.InputSpec(shape=(1, *net.inputs[0].shape[1:]), dtype=net.inputs[0].dtype, name=net.inputs[0].name)]
    archive.add_endpoint("serving_default", lambda x: net(x, training=False), input_signature=spec)
    folder = HERE / "saved"
    archive.write_out(folder, verbose=False)
    try:
        return tf.lite.TFLiteConverter.from_saved_model(str(folder)).convert()
    finally:
        tf.io.gfile.rmtree(str(folder))


if __name__ == "__main__":
    for make in (small, mlp, words, twice):
        keras.utils.set_random_seed(0)
        (HERE / f"{make.__name__}.tflite").write_bytes(convert(make()))
