"""Writes ``keras2.keras`` and ``keras2.h5`` beside it: an untrained model by the Keras before Keras 3 (tf-keras)."""

from pathlib import Path

import tf_keras

HERE = Path(__file__).parent


def old() -> tf_keras.Model:
    """A convolution, a depthwise one, whose ``groups`` Keras 3 refuses, and a dense layer."""
    layers = tf_keras.layers
    image = tf_keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(image)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    return tf_keras.Model(image, layers.Dense(32, name="answer")(layers.Flatten()(x)), name="old")


if __name__ == "__main__":
    tf_keras.utils.set_random_seed(0)
    model = old()
    model.save(HERE / "keras2.keras")
    model.save(HERE / "keras2.h5")
